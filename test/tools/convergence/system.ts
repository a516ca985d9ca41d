/**
 * The process under test: the parts that make the catalog's snapshot, told of one epoch after the other in an order that a
 * schedule decides, and beside it what was learnt when. Does not own: the world (`world.ts`), or what must come out
 * (`reference.ts`).
 */
import type { Gate } from "../../../src/discovery/gate.ts";
import type { ConsulState } from "../../../src/discovery/consul-state.ts";
import type { registrationReader } from "../../../src/discovery/registration-event.ts";
import type { RegistrationLog } from "../../../src/discovery/registration-log.ts";
import type { Catalog, NamedChange } from "../../../src/tools/catalog.ts";
import type { SourceChange } from "../../../src/tools/source.ts";
import type { Tool } from "../../../src/tools/tool.ts";
import type { ConsulTruth, Expected, Learnt, Registration, Truth, WholeTool } from "./reference.ts";
import type { ConsulReading, Delivery, Feed } from "./world.ts";

/** The parts, as they are or mutated. */
export interface Modules {
  readonly Catalog: typeof Catalog;
  readonly ConsulState: typeof ConsulState;
  readonly Gate: typeof Gate;
  readonly RegistrationLog: typeof RegistrationLog;
  readonly registrationReader: typeof registrationReader;
}

export interface SystemOptions {
  readonly maxTools: number;
  readonly requiredTags: readonly string[];
}

const excludedTags = ["deprecated"];

/** All is quiet: what the catalog has come to, and all that it may depend on. */
export interface Quiet {
  readonly actual: Expected;
  readonly truth: Truth;
}

/** One after the other of the numbers, again and again; 0 where there are none. */
type Choose = () => { readonly which: number; readonly batch: number; readonly odd: number };

function chooser(schedule: readonly number[]): Choose {
  let at = 0;
  return () => {
    const number = schedule.length === 0 ? 0 : schedule[at % schedule.length]!;
    at += 1;
    return { which: number % 10, batch: Math.floor(number / 10) % 10, odd: Math.floor(number / 100) };
  };
}

/** One life of a process. */
class Process {
  readonly catalog: Catalog;
  readonly #gate: Gate<SourceChange>;
  readonly #log: RegistrationLog;
  readonly #read: ReturnType<typeof registrationReader>;
  readonly #consul: ConsulState;
  #era = 0;
  readonly #tools = new Map<string, { readonly whole: WholeTool; readonly tool: Tool }>();
  #pending: NamedChange[] = [];
  /** What the reference is told. */
  readonly learnt: Learnt[] = [];
  #held: Learnt[] | undefined = [];
  #batch = 0;
  readonly #time: { readonly now: number };

  constructor(parts: Modules, { maxTools, requiredTags }: SystemOptions, time: { readonly now: number }) {
    const clock = { now: () => time.now };
    this.#time = time;
    this.catalog = new parts.Catalog({ maxTools, requiredTags, excludedTags, clock });
    this.#gate = new parts.Gate((change) => this.#pending.push({ source: "events", change }));
    this.#log = new parts.RegistrationLog({ clock });
    this.#read = parts.registrationReader();
    this.#consul = new parts.ConsulState();
  }

  hear({ message, isPastWatermark }: Delivery): void {
    const learnt = { ...this.#moment, kind: "message", message, isPastWatermark } as const;
    // While the gate is shut the process has the message, and has not learnt from it yet.
    (this.#held ?? this.learnt).push(learnt);
    const { value, offset, ...rest } = message;
    const bytes = value === null ? null : new TextEncoder().encode(value);
    const read = this.#read({ ...rest, value: bytes, offset: String(offset), headers: {} });
    if (!read.ok) return;
    const verdict = this.#log.accept(read.event, !isPastWatermark);
    const { serviceId } = read.event;
    if (verdict.kind === "put") {
      this.#gate.pass({ put: [{ key: serviceId, instance: verdict.instance }], remove: [] });
    } else if (verdict.kind === "remove") {
      this.#gate.pass({ put: [], remove: [serviceId], suppress: verdict.suppress ? [serviceId] : [] });
    }
  }

  /** Everything that Consul has, as its source tells it: service by service. */
  look({ state, era }: ConsulReading): void {
    this.learnt.push({ ...this.#moment, kind: "consul", state });
    if (era !== this.#era) this.#consul.startEra();
    this.#era = era;
    const changes = [this.#consul.putContracts(keysOf(state, (key) => key.startsWith("onex/")))];
    const [own] = keysOf(state, (key) => !key.startsWith("onex/"));
    const found = new Map([["own/contract", own]]);
    changes.push(this.#consul.putContract("own/contract", own));
    const names = new Set([
      ...this.#consul.serviceNames(),
      ...state.registrations.map(({ service }) => service),
    ]);
    for (const name of names) {
      const rows = state.registrations.filter(({ service }) => service === name).map(rowOf);
      changes.push(this.#consul.putService(name, rows, this.#consul.beginRead(), found));
    }
    this.#pending.push(...changes.map((change) => ({ source: "consul", change })));
  }

  /** Consul has spoken for the first time, or is known to be out of reach. */
  openGate(): void {
    this.#gate.open();
    if (this.#held === undefined) return;
    // Learnt now, in the order in which it came.
    for (const learnt of this.#held) this.learnt.push({ ...learnt, ...this.#moment });
    this.#held = undefined;
  }

  write(tools: readonly WholeTool[]): void {
    const keys = new Map(tools.map((whole) => [`${whole.source} ${whole.owner}`, whole]));
    const remove = [...this.#tools.keys()].filter((key) => !keys.has(key));
    const put = [...keys].filter(([key, whole]) => this.#tools.get(key)?.whole !== whole);
    for (const key of remove) this.#tools.delete(key);
    const records = put.map(([key, whole]) => {
      const tool = toolOf(whole);
      this.#tools.set(key, { whole, tool });
      return { key, tool };
    });
    this.#pending.push({ source: "contracts", change: { put: records, remove } });
  }

  /** What was told becomes one change. */
  settle(): void {
    this.catalog.applyAll(this.#pending);
    this.#pending = [];
    this.#batch += 1;
  }

  /** What a timer would do that was set to when the catalog asked for it. */
  wake(): void {
    if ((this.catalog.nextExpiry ?? 1) <= 0) this.catalog.expire();
  }

  get #moment(): { readonly at: number; readonly batch: number } {
    return { at: this.#time.now, batch: this.#batch };
  }
}

type Item = { readonly say: () => void; readonly isOptional?: boolean };

/** Plays the feeds; the value is what there is to see at the end of each epoch, and once a minute later. */
export function play(
  parts: Modules,
  options: SystemOptions,
  feeds: readonly Feed[],
  schedule: readonly number[],
): readonly Quiet[] {
  const choose = chooser(schedule);
  const time = { now: 0 };
  const seen: Quiet[] = [];
  let tools: readonly WholeTool[] = [];
  let process = new Process(parts, options, time);
  const see = (): void => {
    process.wake();
    const { learnt } = process;
    const truth = { ...options, excludedTags, now: time.now, learnt: [...learnt], tools };
    seen.push({ actual: seenIn(process.catalog), truth });
  };
  for (const feed of feeds) {
    if (feed.isStart) process = new Process(parts, options, time);
    tell(process, feed, choose);
    tools = feed.writes.at(-1) ?? tools;
    see();
    if (feed.pass === 0) continue;
    time.now += feed.pass;
    see();
  }
  time.now += 60_000;
  see();
  return seen;
}

/** Sources speak in any order towards each other, each in its own. */
function tell(process: Process, { isStart, lanes, consul, writes }: Feed, choose: Choose): void {
  const queues: Item[][] = [
    ...lanes.map((lane) => lane.map((delivery): Item => ({ say: () => process.hear(delivery) }))),
    consul.map((reading, at): Item => {
      const isFirst = isStart && at === 0;
      return {
        say: () => {
          process.look(reading);
          if (isFirst) process.openGate();
        },
        isOptional: !isFirst && at < consul.length - 1,
      };
    }),
    writes.map((tools): Item => ({ say: () => process.write(tools) })),
  ];
  // Consul is out of reach: that is found out at some time.
  if (isStart && consul.length === 0) queues.push([{ say: () => process.openGate() }]);
  const said: Item[][] = queues.map(() => []);
  while (queues.some(({ length }) => length > 0)) {
    const { which, batch, odd } = choose();
    const open = queues.filter(({ length }) => length > 0);
    const queue = open[which % open.length]!;
    const item = queue.shift()!;
    const before = said[queues.indexOf(queue)]!;
    if (item.isOptional === true && odd >= 5) continue;
    item.say();
    before.push(item);
    // A partition is read again from a little before.
    if (queues.indexOf(queue) < lanes.length && odd >= 8) for (const again of before.slice(-2)) again.say();
    if (batch < 6) process.settle();
  }
  process.settle();
}

function keysOf(
  { contracts }: ConsulTruth,
  isWanted: (key: string) => boolean,
): { readonly key: string; readonly value: Uint8Array; readonly modifyIndex: number }[] {
  return [...contracts]
    .filter(([key]) => isWanted(key))
    .map(([key, text]) => ({ key, value: new TextEncoder().encode(text), modifyIndex: 1 }));
}

type Row = Parameters<ConsulState["putService"]>[1][number];

const rowOf = ({
  node,
  nodeAddress,
  id,
  service,
  tags,
  meta,
  port,
  weight,
  modifyIndex,
  checks,
}: Registration): Row => ({
  Node: { Node: node, Address: nodeAddress, ModifyIndex: 1 },
  Service: {
    ID: id,
    Service: service,
    Kind: "",
    Tags: [...tags],
    Address: "",
    Port: port,
    Meta: { ...meta },
    Weights: { Passing: weight },
    ModifyIndex: modifyIndex,
  },
  Checks: checks.map(({ id: CheckID, status: Status }) => ({
    Node: node,
    CheckID,
    Name: CheckID,
    Status,
    Notes: "",
    ServiceID: id,
    ServiceName: service,
    ServiceTags: [...tags],
    ModifyIndex: modifyIndex,
  })),
});

const toolOf = ({ called, inputSchema, ...whole }: WholeTool): Tool => ({
  ...whole,
  inputSchema: inputSchema as Tool["inputSchema"],
  annotations: {},
  execution: {
    kind: "onex",
    endpoints: called.how === "itself" ? ["http://own.test"] : [],
    path: "",
    ...(called.how === "service" && called.service !== undefined && { service: called.service }),
  },
  revision: JSON.stringify([whole, called, inputSchema]),
});

/** The snapshot, as far as it is promised. */
function seenIn(catalog: Catalog): Expected {
  const { tools, withheld } = catalog.snapshot();
  return {
    served: tools.map((tool) => ({
      name: tool.name,
      source: tool.source,
      owner: tool.owner,
      version: tool.version,
      title: tool.title,
      description: tool.description,
      inputSchema: tool.inputSchema,
      tags: tool.tags,
      endpoints: tool.endpoints?.map(({ url, weight }) => `${url} x${weight}`).sort(),
    })),
    withheld: withheld.map(({ name, source, owner }) => `${name} (${source} ${owner})`).sort(),
  };
}
