/**
 * From what sources state about the instances of a service to the tool that the service serves. Pure.
 *
 * 1. Statements about one service id are about one instance: an event's fields go before Consul's.
 * 2. Whether an instance is called is Consul's to say where Consul knows it; its address is Consul's too, since that is
 *    what was checked. The path is the event's where Consul names none.
 * 3. Of instances that mean different things by one tool the highest version defines it, then the lowest id, among those
 *    that are live if any is. Only instances that mean the same are called.
 */
import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { byteOrder } from "./name-order.ts";
import type { Instance, InstanceDefinition, ServiceExecution } from "./instance.ts";
import type { Endpoint, SourceKind, Tool } from "./tool.ts";
import { compareVersions } from "./version-order.ts";

/** One instance, after all statements about it were laid over one another. */
export interface MergedInstance {
  /** The key of its record: Consul's where Consul knows it. */
  readonly id: string;
  readonly serviceId: string;
  readonly serviceName: string;
  /** The first in precedence of the sources that speak of it. */
  readonly source: Extract<SourceKind, "event" | "consul">;
  readonly toolName?: string;
  /** Why it serves no tool. */
  readonly refused?: string;
  readonly definition: InstanceDefinition;
  readonly url?: string;
  readonly weight: number;
  readonly live: boolean;
  readonly down?: string;
}

interface Statement {
  readonly key: string;
  readonly instance: Instance;
}

/**
 * The instances that the statements about one service id speak of: one, or one for each node that Consul has it on. What
 * claims nothing, not even that it is no tool, only completes an event. (1)
 */
export function mergeStatements(
  event: Statement | undefined,
  consul: readonly Statement[],
): readonly MergedInstance[] {
  const speaking =
    event === undefined ? consul.filter(({ instance }) => instance.claim !== undefined) : consul;
  if (speaking.length > 0)
    return speaking.map((statement) => merge(statement.key, event?.instance, statement.instance));
  return event === undefined ? [] : [merge(event.key, event.instance, undefined)];
}

function merge(id: string, event: Instance | undefined, consul: Instance | undefined): MergedInstance {
  const first = event ?? consul;
  if (first === undefined) throw new TypeError("an instance without a statement");
  const claim = event?.claim ?? consul?.claim;
  const url = addressOf(event?.url, consul?.url);
  const { live, down } = consul ?? first;
  return {
    id,
    serviceId: first.serviceId,
    serviceName: event?.serviceName ?? consul?.serviceName ?? first.serviceId,
    source: first.source,
    definition: { ...consul?.definition, ...event?.definition },
    weight: consul?.weight ?? event?.weight ?? 1,
    live,
    ...(down !== undefined && { down }),
    ...(url !== undefined && { url }),
    ...(claim === undefined
      ? { refused: "neither its event nor Consul says which tool it serves" }
      : "toolName" in claim
        ? url === undefined
          ? { refused: `nothing says at which address the tool ${claim.toolName} is called` }
          : { toolName: claim.toolName }
        : { refused: claim.refused }),
  };
}

/** (2) */
function addressOf(event: string | undefined, consul: string | undefined): string | undefined {
  if (event === undefined || consul === undefined) return consul ?? event;
  const { pathname } = new URL(consul);
  return pathname === "/"
    ? `${new URL(consul).origin}${new URL(event).pathname}`.replace(/\/+$/, "")
    : consul;
}

/** Whether instances mean the same by the tool: only then can they stand in for one another. The order of keys is none. */
export const sameMeaning = (a: InstanceDefinition, b: InstanceDefinition): boolean =>
  isDeepStrictEqual(meaningOf(a), meaningOf(b));

const meaningOf = ({ inputSchema, outputSchema, execution }: InstanceDefinition): readonly unknown[] => [
  inputSchema ?? anyInput,
  outputSchema,
  execution ?? defaultExecution,
];

const anyInput = { type: "object", additionalProperties: true };
const defaultExecution: ServiceExecution = { kind: "onex", path: "" };

/** The instance that says what the tool is. (3) */
export function definerOf(instances: readonly MergedInstance[]): MergedInstance | undefined {
  const live = instances.filter((instance) => instance.live);
  let definer: MergedInstance | undefined;
  for (const instance of live.length > 0 ? live : instances) {
    if (definer === undefined || byRank(instance, definer) < 0) definer = instance;
  }
  return definer;
}

const byRank = (a: MergedInstance, b: MergedInstance): number =>
  compareVersions(b.definition.version ?? "", a.definition.version ?? "") ||
  byteOrder(a.serviceId, b.serviceId) ||
  byteOrder(a.id, b.id);

/** The live ones of `instances`, in the order of their ids. */
export function endpointsOf(instances: readonly MergedInstance[]): readonly Endpoint[] {
  return instances
    .flatMap(({ live, url, id, weight }) => (live && url !== undefined ? [{ id, url, weight }] : []))
    .sort((a, b) => byteOrder(a.id, b.id));
}

/**
 * The tool that these instances of one service serve under one name; undefined where there is none.
 *
 * @param before what it was: kept where nothing changed
 */
export function serviceTool(
  name: string,
  instances: readonly MergedInstance[],
  before: Tool | undefined,
): Tool | undefined {
  const definer = definerOf(instances);
  if (definer === undefined) return undefined;
  const { serviceName, definition } = definer;
  const endpoints = endpointsOf(instances.filter((instance) => sameMeaning(instance.definition, definition)));
  const { title, description, version, inputSchema, outputSchema, annotations, icons, tags, timeoutSeconds } =
    definition;
  const execution = definition.execution ?? defaultExecution;
  const tool = {
    name,
    ...(title !== undefined && { title }),
    description: description ?? `The tool ${name} of the service ${serviceName}.`,
    version: version ?? "1.0.0",
    inputSchema: inputSchema ?? anyInput,
    ...(outputSchema !== undefined && { outputSchema }),
    annotations: annotations ?? {},
    ...(icons !== undefined && { icons }),
    tags: tags ?? [],
    ...(timeoutSeconds !== undefined && { timeoutSeconds }),
    execution: execution.kind === "onex" ? { ...execution, endpoints: [] } : execution,
    source: instances.some(({ source }) => source === "event") ? ("event" as const) : ("consul" as const),
    owner: serviceName,
  };
  const revision = createHash("sha256").update(JSON.stringify(tool)).digest("hex").slice(0, 16);
  return sameOr(before, { ...tool, revision, endpoints });
}

/** `tool`, with the endpoints of these instances. */
export function withEndpoints(
  tool: Tool,
  instances: readonly MergedInstance[],
  before: Tool | undefined,
): Tool {
  return sameOr(before, { ...tool, endpoints: endpointsOf(instances) });
}

/** One object as long as nothing changes: whoever holds facts by tool keeps them. */
function sameOr(before: Tool | undefined, tool: Tool): Tool {
  const isSame =
    before?.revision === tool.revision &&
    before.source === tool.source &&
    sameEndpoints(before.endpoints ?? [], tool.endpoints ?? []);
  return isSame ? before : Object.freeze(tool);
}

const sameEndpoints = (a: readonly Endpoint[], b: readonly Endpoint[]): boolean =>
  a.length === b.length &&
  a.every(({ id, url, weight }, at) => id === b[at]?.id && url === b[at].url && weight === b[at].weight);
