/**
 * A history played out: what lies on the topics, what Consul has, which tools are written, and what of it reaches a process
 * in each epoch. The same for every order in which it may be told there. Does not own: that order, or the process
 * (`system.ts`).
 */
import type { Action, Epoch, History, Lane, Saying } from "./history.ts";
import { schemas } from "./history.ts";
import type { ConsulTruth, Message, Registration, WholeTool } from "./reference.ts";

/** A message on its way to the process. */
export interface Delivery {
  readonly message: Message;
  readonly isPastWatermark: boolean;
}

export interface ConsulReading {
  readonly state: ConsulTruth;
  /** How many times Consul's indexes have begun anew. */
  readonly era: number;
}

/** What reaches the process in one epoch. Within one list the order is fixed. */
export interface Feed {
  /** A new process: it begins with nothing. */
  readonly isStart: boolean;
  readonly lanes: readonly (readonly Delivery[])[];
  /** States that Consul is in one after the other; all but the last may be missed. */
  readonly consul: readonly ConsulReading[];
  readonly writes: readonly (readonly WholeTool[])[];
  /** Milliseconds until the next epoch. */
  readonly pass: number;
}

const laneCount = 3;
const topics = [
  { topic: "a", partition: 0 },
  { topic: "a", partition: 1 },
  { topic: "b", partition: 0 },
] as const;
/** Milliseconds since the epoch at which the clock is 0. */
const beginning = Date.parse("2026-01-01T00:00:00Z");

type Of<Verb extends Action["do"]> = Extract<Action, { do: Verb }>;

export function feedsOf({ epochs }: History): readonly Feed[] {
  const world = new World();
  return epochs.map((epoch, at) => world.play(at === 0 ? { ...epoch, begins: "restart" } : epoch));
}

class World {
  #now = 0;
  readonly #published: Message[][] = [[], [], []];
  readonly #events: string[] = [];
  #consul: ConsulReading = { state: { registrations: [], contracts: new Map() }, era: 0 };
  #index = 0;
  readonly #tools = new Map<string, WholeTool>();
  /** What the process has of each. */
  #follows = false;
  #replay: "full" | "compacted" | "none" = "full";
  #delivered: number[] = [0, 0, 0];
  #told: ConsulReading | undefined;

  play({ begins, lost, actions, pass }: Epoch): Feed {
    const isStart = begins !== "on";
    if (isStart) this.#restart(begins);
    const hasKafka = lost === "nothing" || lost === "consul";
    const hasConsul = lost === "nothing" || lost === "kafka";
    const lanes = hasKafka && !this.#follows ? this.#follow() : [[], [], []];
    const writes: WholeTool[][] = isStart ? [[...this.#tools.values()]] : [];
    const consul = hasConsul && this.#told !== this.#consul ? [this.#consul] : [];
    for (const action of actions) {
      const { size } = this.#tools;
      const before = [...this.#tools.values()];
      const consulBefore = this.#consul;
      this.#do(action);
      const after = [...this.#tools.values()];
      if (after.length !== size || after.some((tool) => !before.includes(tool))) writes.push(after);
      if (hasConsul && this.#consul !== consulBefore) consul.push(this.#consul);
    }
    if (hasConsul) this.#told = this.#consul;
    if (hasKafka) this.#deliver(lanes);
    this.#now += pass;
    return { isStart, lanes, consul, writes, pass };
  }

  #restart(begins: Exclude<Epoch["begins"], "on">): void {
    this.#follows = false;
    this.#told = undefined;
    this.#replay = begins === "restart" ? "full" : begins === "restart, compacted" ? "compacted" : "none";
  }

  /** The topics' ends are the watermark; what is before them is history. */
  #follow(): Delivery[][] {
    this.#follows = true;
    this.#delivered = this.#published.map(({ length }) => length);
    if (this.#replay === "none") return [[], [], []];
    return this.#published.map((lane) => {
      const kept = lane.filter(
        ({ key }, at) =>
          this.#replay === "full" ||
          (key !== null && lane.findLastIndex((other) => other.key === key) === at),
      );
      return kept.map((message) => ({ message, isPastWatermark: false }));
    });
  }

  #deliver(lanes: Delivery[][]): void {
    if (!this.#follows) return;
    for (let lane = 0; lane < laneCount; lane += 1) {
      const messages = this.#published[lane]!.slice(this.#delivered[lane]);
      lanes[lane]!.push(...messages.map((message) => ({ message, isPastWatermark: true })));
      this.#delivered[lane] = this.#published[lane]!.length;
    }
  }

  #do(action: Action): void {
    switch (action.do) {
      case "announce":
        this.#event(action, announcement(action));
        return;
      case "leave":
        this.#event(action, { event_type: action.type });
        return;
      case "erase":
        this.#publish(action.lane, action.id, null);
        return;
      case "garble":
        this.#publish(action.lane, action.how === 0 ? null : action.id, garbled[action.how] ?? null);
        return;
      case "republish":
        this.#republish(action);
        return;
      case "register":
        this.#register(action);
        return;
      case "unregister":
        this.#keep((one) => !isOne(one, action));
        return;
      case "check":
        this.#check(action);
        return;
      case "reset":
        this.#reset();
        return;
      case "store":
        this.#store(action);
        return;
      case "write":
        this.#tools.set(action.path, contractTool(action));
        return;
      case "unlink":
        this.#tools.delete(action.path);
        return;
      case "code":
        this.#code(action);
    }
  }

  // ---- Kafka ----

  #event({ id, lane, late }: Of<"announce" | "leave">, fields: object): void {
    const emitted =
      late === undefined ? {} : { emitted_at: new Date(this.#wall - late * 1000).toISOString() };
    const head = { event_id: `e${this.#events.length}`, service_id: id, ...emitted };
    const value = JSON.stringify({ ...head, ...fields });
    this.#events.push(value);
    this.#publish(lane, id, value);
  }

  #republish({ back, lane }: Of<"republish">): void {
    const value = this.#events.at(-1 - back);
    if (value !== undefined) this.#publish(lane, JSON.parse(value).service_id, value);
  }

  #publish(lane: Lane, key: string | null, value: string | null): void {
    const messages = this.#published[lane]!;
    messages.push({ ...topics[lane], offset: messages.length, key, value, timestamp: this.#wall });
  }

  get #wall(): number {
    return beginning + this.#now;
  }

  // ---- Consul ----

  /** An index moves on when a registration is another one, and not otherwise. */
  #register(action: Of<"register">): void {
    const { registrations } = this.#consul.state;
    const before = registrations.find((one) => isOne(one, action));
    const present = {
      ...registrationOf(action, before?.checks ?? passing),
      modifyIndex: before?.modifyIndex ?? 0,
    };
    if (before !== undefined && JSON.stringify(before) === JSON.stringify(present)) return;
    this.#index += 1;
    this.#keep((one) => one !== before, { ...present, modifyIndex: this.#index });
  }

  #check({ id, node, to }: Of<"check">): void {
    const before = this.#consul.state.registrations.find((one) => isOne(one, { id, node }));
    if (before === undefined) return;
    const checks =
      to === "maintenance"
        ? [...passing, { id: `_service_maintenance:${id}`, status: "critical" }]
        : [{ id: "c", status: to }];
    this.#keep((one) => one !== before, { ...before, checks });
  }

  #reset(): void {
    const registrations = this.#consul.state.registrations.map((one, at) => ({
      ...one,
      modifyIndex: at + 1,
    }));
    this.#index = registrations.length;
    this.#consul = { state: { ...this.#consul.state, registrations }, era: this.#consul.era + 1 };
  }

  #store({ key, says }: Of<"store">): void {
    const contracts = new Map(this.#consul.state.contracts);
    if (says === undefined) contracts.delete(key);
    else contracts.set(key, nodeContract(says));
    this.#consul = { ...this.#consul, state: { ...this.#consul.state, contracts } };
  }

  #keep(isKept: (one: Registration) => boolean, ...added: readonly Registration[]): void {
    const { registrations } = this.#consul.state;
    const kept = registrations.filter(isKept);
    if (kept.length === registrations.length && added.length === 0) return;
    this.#consul = { ...this.#consul, state: { ...this.#consul.state, registrations: [...kept, ...added] } };
  }

  // ---- This process ----

  #code({ tool: name, there }: Of<"code">): void {
    if (!there) this.#tools.delete(`code ${name}`);
    else
      this.#tools.set(`code ${name}`, {
        ...wholeTool({}, name),
        source: "handler",
        owner: name,
        called: { how: "itself" },
      });
  }
}

const passing = [{ id: "c", status: "passing" }];

const isOne = (one: Registration, { id, node }: { readonly id: string; readonly node: string }): boolean =>
  one.id === id && one.node === node;

/** What no reader can take; the first is a null value without a key. */
const garbled: readonly (string | null)[] = [
  null,
  "{",
  "[]",
  '{"event_type":"gone"}',
  '{"event_type":"registered","tags":["mcp-enabled"],"endpoint":"not a url"}',
  '{"event_type":"updated","timeout_seconds":0}',
];

function tagsOf({ tool, tag }: Saying): readonly string[] {
  const own = tag === undefined ? [] : [tag];
  if (tool === "off") return ["node-type:orchestrator", "mcp-tool:orders", ...own];
  if (tool === "none") return ["mcp-enabled", "node-type:orchestrator", ...own];
  return ["mcp-enabled", "node-type:orchestrator", `mcp-tool:${tool}`, ...own];
}

const without = (fields: Record<string, unknown>): object =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));

const schemaOf = ({ schema }: Saying): object | undefined =>
  schema === undefined ? undefined : schemas[schema];

const announcement = ({ says, tags, url }: Of<"announce">): object =>
  without({
    event_type: says.version === undefined ? "updated" : "registered",
    service_name: tags ? says.service : undefined,
    tags: tags ? tagsOf(says) : undefined,
    endpoint: url,
    node_version: says.version,
    title: says.text === "One." ? "Said by an event" : undefined,
    description: says.text,
    input_schema: schemaOf(says),
    execution: says.execution && { kind: says.execution, ...(says.execution === "rest" && { url: "/x" }) },
  });

const registrationOf = (
  { id, node, says, path, port, weight, contract }: Of<"register">,
  checks: Registration["checks"],
): Omit<Registration, "modifyIndex"> => ({
  node,
  nodeAddress: `${node}.test`,
  id,
  service: says.service ?? id,
  tags: tagsOf(says),
  meta: {
    ...(path !== undefined && { "mcp-path": path }),
    ...(contract !== undefined && { "mcp-contract": contract }),
    ...(says.execution !== undefined && { "mcp-execution": says.execution }),
  },
  port,
  weight,
  checks,
});

const nodeContract = (says: Saying): string =>
  JSON.stringify({
    name: "node",
    node_type: "ORCHESTRATOR",
    ...without({ node_version: says.version, description: says.text }),
    mcp: without({
      expose: true,
      title: says.text === "Two." ? "Said by Consul" : undefined,
      input_schema: schemaOf(says),
      tags: says.tag === undefined ? undefined : [says.tag],
    }),
  });

const contractTool = ({ path, tool, says, on }: Of<"write">): WholeTool => ({
  ...wholeTool(says, tool),
  source: "contract",
  owner: path,
  called: on === "itself" ? { how: "itself" } : { how: "service", ...(on !== "any" && { service: on }) },
});

const wholeTool = (says: Saying, name: string): Omit<WholeTool, "source" | "owner" | "called"> => ({
  name,
  version: says.version ?? "1.0.0",
  description: says.text ?? `The tool ${name}.`,
  inputSchema: schemaOf(says) ?? { type: "object" },
  tags: says.tag === undefined ? [] : [says.tag],
});
