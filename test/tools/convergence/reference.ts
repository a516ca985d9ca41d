/**
 * What the catalog must come to, told a second time: from everything that was learnt, by the rules as they are promised, in
 * the plainest way and at any cost. Imports nothing of the project, so that it shares no mistake with it.
 *
 * Owns the rules of the merge. Does not own: how a world comes about (`world.ts`), or in which order it is told.
 */

export interface Message {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly key: string | null;
  readonly value: string | null;
  /** Milliseconds since the epoch. */
  readonly timestamp: number;
}

/** A service instance as Consul has it. */
export interface Registration {
  readonly node: string;
  readonly nodeAddress: string;
  readonly id: string;
  readonly service: string;
  readonly tags: readonly string[];
  readonly meta: Readonly<Record<string, string>>;
  readonly port: number;
  readonly weight: number;
  readonly modifyIndex: number;
  /** Of all checks, maintenance mode among them. */
  readonly checks: readonly { readonly id: string; readonly status: string }[];
}

export interface ConsulTruth {
  readonly registrations: readonly Registration[];
  /** Text by key. */
  readonly contracts: ReadonlyMap<string, string>;
}

/** A tool of a contract file or of code: whole as it is. */
export interface WholeTool {
  readonly name: string;
  readonly source: "contract" | "handler";
  readonly owner: string;
  readonly version: string;
  readonly description: string;
  readonly inputSchema: object;
  readonly tags: readonly string[];
  /** `service`: on the instances of a service, of the named one where there is a name. */
  readonly called: { readonly how: "itself" } | { readonly how: "service"; readonly service?: string };
}

/** What was learnt, in the order in which it was; what has one batch was learnt in one go. */
export type Learnt = { readonly at: number; readonly batch: number } & (
  | { readonly kind: "message"; readonly message: Message; readonly isPastWatermark: boolean }
  | { readonly kind: "consul"; readonly state: ConsulTruth }
);

/** All that the snapshot may depend on. `learnt` begins with the process. */
export interface Truth {
  /** Milliseconds of the clock. */
  readonly now: number;
  readonly learnt: readonly Learnt[];
  readonly tools: readonly WholeTool[];
  readonly maxTools: number;
  readonly requiredTags: readonly string[];
  readonly excludedTags: readonly string[];
}

export interface Served {
  readonly name: string;
  readonly source: string;
  readonly owner: string;
  readonly version: string;
  readonly title: string | undefined;
  readonly description: string;
  readonly inputSchema: object;
  readonly tags: readonly string[];
  /** URL and weight of each; undefined: its own. */
  readonly endpoints: readonly string[] | undefined;
}

export interface Expected {
  /** In byte order of the name. */
  readonly served: readonly Served[];
  /** `name (source owner)`, sorted. */
  readonly withheld: readonly string[];
}

/** Lowest first; whatever stands in one row is equal. Any other text, and none, is below all. */
const versionOrder = [["1.0.0-rc.2"], ["1.0.0-rc.10"], ["1.0.0", "1.0.0+build"], ["2.0.0"], ["10.0.0"]];

const hour = 3_600_000;
const tombstoneMs = 24 * hour;
const suppressionMs = 60_000;
const precedence = ["contract", "handler", "event", "consul"];

const bytes = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));

// ---- Events: what they say, and which of them holds ----

type Fields = Record<string, any>;

interface Said {
  readonly place: string;
  readonly message: Message;
  readonly serviceId: string;
  readonly eventId: string;
  readonly emittedAt: number;
  readonly heardAt: number;
  readonly isPastWatermark: boolean;
  /** Undefined: the service is gone. */
  readonly fields: Fields | undefined;
}

/** Undefined: it is a bad event, which counts for nothing. */
function saidBy(message: Message, heardAt: number, isPastWatermark: boolean): Said | undefined {
  const { topic, partition, offset, key, value, timestamp } = message;
  const place = `${topic}/${partition}`;
  const base = { place, message, heardAt, isPastWatermark };
  const ownId = `${place}/${offset}`;
  if (value === null) {
    if (key === null) return undefined;
    return { ...base, serviceId: key, eventId: ownId, emittedAt: timestamp, fields: undefined };
  }
  const fields = jsonObject(value);
  const serviceId = fields?.service_id ?? key;
  if (fields === undefined || typeof serviceId !== "string") return undefined;
  const { event_type: type, event_id: eventId = ownId, emitted_at: emitted } = fields;
  const isGone = type === "deregistered" || type === "expired";
  if (!isGone && type !== "registered" && type !== "updated") return undefined;
  if (!isGone && !isSound(fields)) return undefined;
  const emittedAt = emitted === undefined ? timestamp : Date.parse(emitted);
  return { ...base, serviceId, eventId, emittedAt, fields: isGone ? undefined : fields };
}

function jsonObject(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

const isSound = ({ endpoint, timeout_seconds: timeout = 1 }: Fields): boolean =>
  (endpoint === undefined || URL.canParse(endpoint)) && timeout >= 1 && timeout <= 300;

/** What was said of one service, without what was said before under one id on one partition. */
function withoutRepeats(said: readonly Said[]): readonly Said[] {
  const seen = new Set<string>();
  return said.filter(({ place, eventId }) => {
    const id = `${place} ${eventId}`;
    return !seen.has(id) && seen.add(id);
  });
}

/**
 * Of what was said of one service the last on each partition, the one that holds first.
 *
 * @param said without repeats, in the order in which it was heard
 */
function standing(said: readonly Said[], forgotten: ReadonlySet<Said>): readonly Said[] {
  const last = new Map<string, Said>();
  for (const one of said) {
    const other = last.get(one.place);
    if (other === undefined || other.message.offset < one.message.offset) last.set(one.place, one);
  }
  // An event that was published twice was emitted once.
  const emitted = ({ eventId }: Said): number =>
    Math.min(...said.filter((other) => other.eventId === eventId).map(({ emittedAt }) => emittedAt));
  const byTopic = (a: Message, b: Message): number => (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : 0);
  return [...last.values()]
    .filter((one) => !forgotten.has(one))
    .sort(
      (a, b) =>
        emitted(b) - emitted(a) || byTopic(b.message, a.message) || b.message.partition - a.message.partition,
    );
}

/** What stands at a time: a tombstone is forgotten after 24 hours, and with it what it had outlived. */
function standingAt(heard: readonly Said[], now: number): readonly Said[] {
  const forgotten = new Set<Said>();
  for (const tombstone of heard.filter(({ fields }) => fields === undefined)) {
    const end = tombstone.heardAt + tombstoneMs;
    if (end > now) continue;
    const known = standing(
      heard.filter(({ heardAt }) => heardAt < end),
      forgotten,
    );
    const at = known.indexOf(tombstone);
    if (at !== -1) for (const one of known.slice(at)) forgotten.add(one);
  }
  return standing(heard, forgotten);
}

// ---- Consul: what counts of it ----

/** Only what is tagged has to do with us. */
const tagged = (state: ConsulTruth): readonly Registration[] =>
  state.registrations.filter(({ tags }) => tags.includes("mcp-enabled"));

function indexOf(state: ConsulTruth, serviceId: string): number | undefined {
  const indexes = tagged(state).filter(({ id }) => id === serviceId);
  return indexes.length === 0 ? undefined : Math.max(...indexes.map(({ modifyIndex }) => modifyIndex));
}

interface Word {
  /** What its event says; undefined: there is none, or it says that the service is gone. */
  readonly event: Fields | undefined;
  /** An event has just said that it is gone, and Consul has not looked again since. */
  readonly isConsulSilenced: boolean;
}

/** Goes through what was learnt, for one service. */
function wordOn(serviceId: string, { learnt, now }: Truth): Word {
  const heard: Said[] = [];
  let consul: ConsulTruth = { registrations: [], contracts: new Map() };
  let silence: { index: number | undefined; readonly until: number } | undefined;
  /** Tombstones that speak of what was declared gone while we looked on. */
  const declared = new Set<Said>();
  for (const [position, item] of learnt.entries()) {
    if (item.kind === "consul") consul = item.state;
    else hear(saidBy(item.message, item.at, item.isPastWatermark), item.at);
    if (learnt[position + 1]?.batch !== item.batch) look(item.at);
  }
  const [holds] = standingAt(heard, now);
  return {
    event: holds?.fields,
    isConsulSilenced: silence !== undefined && now < silence.until,
  };

  function hear(said: Said | undefined, at: number): void {
    if (said?.serviceId !== serviceId) return;
    if (!withoutRepeats([...heard, said]).includes(said)) return;
    const [before] = standingAt(heard, at);
    heard.push(said);
    const [holds] = standingAt(heard, at);
    const wasDeclared = before !== undefined && declared.has(before);
    if (said.fields === undefined && (said.isPastWatermark || wasDeclared)) declared.add(said);
    if (holds?.fields !== undefined) silence = undefined;
    // A null value behind a deregistration only lets the topic forget.
    const isMarker = said.message.value === null && wasDeclared;
    if (holds === said && said.fields === undefined && said.isPastWatermark && !isMarker)
      silence = { index: indexOf(consul, serviceId), until: at + suppressionMs };
  }

  /** Consul wins as soon as its index is another one. Where it had not spoken of the service, its first one is the one. */
  function look(at: number): void {
    const index = indexOf(consul, serviceId);
    if (silence === undefined || index === undefined) return;
    silence.index ??= index;
    if (silence.index !== index || at >= silence.until) silence = undefined;
  }
}

// ---- Instances: one for each registration, with its event's fields over Consul's ----

interface Instance {
  readonly id: string;
  readonly serviceId: string;
  readonly serviceName: string;
  readonly source: "event" | "consul";
  /** Undefined: it serves no tool. */
  readonly tool: string | undefined;
  readonly url: string | undefined;
  readonly weight: number;
  readonly live: boolean;
  readonly version: string | undefined;
  readonly title: string | undefined;
  readonly description: string | undefined;
  readonly inputSchema: object;
  readonly tags: readonly string[];
  /** What it means by the tool, as text. */
  readonly meaning: string;
}

function instancesOf(serviceId: string, truth: Truth, consul: ConsulTruth): readonly Instance[] {
  const { event, isConsulSilenced } = wordOn(serviceId, truth);
  const rows = tagged(consul).filter(({ id }) => id === serviceId);
  if (event === undefined && isConsulSilenced) return [];
  if (rows.length > 0) return rows.map((row) => merged(serviceId, event, row, consul));
  return event === undefined ? [] : [merged(serviceId, event, undefined, consul)];
}

function merged(
  serviceId: string,
  event: Fields | undefined,
  row: Registration | undefined,
  consul: ConsulTruth,
): Instance {
  const contract = row && contractOf(row, consul);
  const eventUrl = event?.endpoint?.replace(/\/$/, "");
  const rowUrl = row === undefined || row.port === 0 ? undefined : urlOf(row);
  const rowTool = row && contract !== "missing" ? toolNamed(row.tags, undefined) : undefined;
  const claimed = event?.tags === undefined ? rowTool : toolNamed(event.tags, event.node_type);
  const url = addressOf(eventUrl, rowUrl);
  const node = typeof contract === "object" ? contract : {};
  const rowTags = [...new Set([...(row?.tags ?? []), ...(node.mcp?.tags ?? [])])];
  const inputSchema = event?.input_schema ?? node.mcp?.input_schema ?? anyObject;
  const execution =
    event?.execution ?? (row?.meta["mcp-execution"] === "rest" ? { kind: "rest" } : undefined);
  return {
    id: row === undefined ? serviceId : `${row.node}/${row.id}`,
    serviceId,
    serviceName: event?.service_name ?? row?.service ?? serviceId,
    source: event === undefined ? "consul" : "event",
    tool: url === undefined ? undefined : claimed,
    url,
    weight: row?.weight ?? 1,
    live: row === undefined || (row.port !== 0 && row.checks.every(({ status }) => status === "passing")),
    version: event?.node_version ?? node.node_version,
    title: event?.title ?? node.mcp?.title,
    description: event?.description ?? node.description,
    inputSchema,
    tags: event?.tags ?? rowTags,
    meaning: canonical([inputSchema, execution ?? { kind: "onex" }]),
  };
}

const anyObject = { type: "object", additionalProperties: true };

/** The tool that tags name. */
function toolNamed(tags: readonly string[], nodeType: string | undefined): string | undefined {
  const isOrchestrator =
    tags.includes("node-type:orchestrator") || nodeType?.toUpperCase().includes("ORCHESTRATOR") === true;
  if (!tags.includes("mcp-enabled") || !isOrchestrator) return undefined;
  return tags.find((tag) => tag.startsWith("mcp-tool:"))?.slice("mcp-tool:".length);
}

/** The node contract in the key-value store: one that is asked for must be there. */
function contractOf(
  { tags, meta }: Registration,
  { contracts }: ConsulTruth,
): Fields | "missing" | undefined {
  const tool = toolNamed(tags, undefined);
  if (tool === undefined) return undefined;
  const key = meta["mcp-contract"];
  const text = contracts.get(key ?? `onex/contracts/nodes/${tool}`);
  if (text !== undefined) return JSON.parse(text);
  return key === undefined ? undefined : "missing";
}

const urlOf = ({ nodeAddress, port, meta }: Registration): string =>
  `http://${nodeAddress}:${port}${(meta["mcp-path"] ?? "/").replace(/\/$/, "")}`;

/** Consul's address, with the event's path where Consul names none. */
function addressOf(event: string | undefined, consul: string | undefined): string | undefined {
  if (event === undefined || consul === undefined) return consul ?? event;
  const { pathname } = new URL(consul);
  return pathname === "/" ? consul + new URL(event).pathname.replace(/\/$/, "") : consul;
}

/** JSON in which the order of keys is none. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) =>
    typeof item === "object" && item !== null && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => bytes(a, b)))
      : item,
  );
}

// ---- Tools: one for each (name, service); and who of those that claim a name is served ----

interface Claim extends Served {
  readonly isKeptOut: boolean;
}

/** What is expected of the catalog, and of nothing else, at this moment. */
export function expectedSnapshot(truth: Truth): Expected {
  const consul = presentConsul(truth);
  const serviceIds = new Set([
    ...tagged(consul).map(({ id }) => id),
    ...truth.learnt.flatMap((item) =>
      item.kind === "message" ? (saidBy(item.message, 0, false)?.serviceId ?? []) : [],
    ),
  ]);
  const instances = [...serviceIds].flatMap((serviceId) => instancesOf(serviceId, truth, consul));
  const names = new Set([
    ...truth.tools.map(({ name }) => name),
    ...instances.flatMap(({ tool }) => tool ?? []),
  ]);
  const withheld = instances
    .filter(({ tool }) => tool === undefined)
    .map(({ serviceName, source, id }) => `${serviceName} (${source} ${id})`);
  const holders: Claim[] = [];
  for (const name of names) {
    const claims = claimsOf(name, instances, truth);
    const holder = claims.find(({ isKeptOut }) => !isKeptOut);
    if (holder !== undefined) holders.push(holder);
    withheld.push(...claims.filter((claim) => claim !== holder).map(nameOf));
  }
  holders.sort(byPrecedence);
  const served = holders.slice(0, truth.maxTools).map(({ isKeptOut: _isKeptOut, ...tool }) => tool);
  withheld.push(...holders.slice(truth.maxTools).map(nameOf));
  return { served: served.sort((a, b) => bytes(a.name, b.name)), withheld: withheld.sort(bytes) };
}

const nameOf = ({ name, source, owner }: Served): string => `${name} (${source} ${owner})`;

function presentConsul({ learnt }: Truth): ConsulTruth {
  const last = learnt.findLast((item) => item.kind === "consul");
  return last?.state ?? { registrations: [], contracts: new Map() };
}

const byPrecedence = (a: Served, b: Served): number =>
  precedence.indexOf(a.source) - precedence.indexOf(b.source) ||
  bytes(a.owner, b.owner) ||
  bytes(a.name, b.name);

/** All that claim the name, by precedence. */
function claimsOf(name: string, all: readonly Instance[], truth: Truth): readonly Claim[] {
  const isKeptOut = ({ tags }: { readonly tags: readonly string[] }): boolean =>
    tags.some((tag) => truth.excludedTags.includes(tag)) ||
    truth.requiredTags.some((tag) => !tags.includes(tag));
  const instances = all.filter(({ tool }) => tool === name);
  const passing = instances.filter((instance) => !isKeptOut(instance));
  const services = [...new Set(instances.map(({ serviceName }) => serviceName))]
    .map((service): Claim => {
      const of = (list: readonly Instance[]): Instance[] =>
        list.filter(({ serviceName }) => serviceName === service);
      // Instances that are kept out are no part of it, unless there is no other: then it is kept out as a whole.
      return serviceClaim(name, service, of(passing).length > 0 ? of(passing) : of(instances), isKeptOut);
    })
    .sort(byPrecedence);
  const taken = new Set<string>();
  const whole = truth.tools
    .filter((tool) => tool.name === name)
    .map(({ called, ...tool }): Claim => {
      const claim = { ...tool, title: undefined, isKeptOut: isKeptOut(tool) };
      if (called.how === "itself") return { ...claim, endpoints: undefined };
      const open = services.filter((service) => !service.isKeptOut).map(({ owner }) => owner);
      const service = called.service === undefined ? open[0] : open.find((owner) => owner === called.service);
      if (service !== undefined) taken.add(service);
      return {
        ...claim,
        endpoints: endpointsOf(passing.filter(({ serviceName }) => serviceName === service)),
      };
    });
  return [...whole, ...services.filter(({ owner }) => !taken.has(owner))].sort(byPrecedence);
}

function serviceClaim(
  name: string,
  service: string,
  instances: readonly Instance[],
  isKeptOut: (definer: Instance) => boolean,
): Claim {
  const live = instances.filter((instance) => instance.live);
  const [definer] = (live.length > 0 ? live : [...instances]).sort(byRank);
  if (definer === undefined) throw new Error(`the service ${service} has no instance`);
  return {
    name,
    source: instances.some(({ source }) => source === "event") ? "event" : "consul",
    owner: service,
    version: definer.version ?? "1.0.0",
    title: definer.title,
    description: definer.description ?? `The tool ${name} of the service ${service}.`,
    inputSchema: definer.inputSchema,
    tags: definer.tags,
    endpoints: endpointsOf(instances.filter(({ meaning }) => meaning === definer.meaning)),
    isKeptOut: isKeptOut(definer),
  };
}

/** The highest version first, then the lowest id. */
function byRank(a: Instance, b: Instance): number {
  const rank = ({ version = "" }: Instance): number => versionOrder.findIndex((row) => row.includes(version));
  return rank(b) - rank(a) || bytes(a.serviceId, b.serviceId) || bytes(a.id, b.id);
}

const endpointsOf = (instances: readonly Instance[]): readonly string[] =>
  instances
    .filter(({ live }) => live)
    .map(({ url, weight }) => `${url} x${weight}`)
    .sort(bytes);
