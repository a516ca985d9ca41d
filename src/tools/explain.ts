/**
 * Why a name is served as it is, or is not. Owns: the sentence for each record that has to do with a name. Pure. Does not
 * own: the decisions, which are made in `precedence.ts`, `service.ts` and `claims.ts` and are read here.
 */
import type { Claims } from "./claims.ts";
import type { Snapshot, Withheld } from "./snapshot.ts";
import type { Instance } from "./instance.ts";
import { refusedByTags, type TagFilter } from "./precedence.ts";
import { definerOf, type MergedInstance, sameMeaning } from "./service.ts";
import type { SourceProblem, SourceRecord, SourceStatus } from "./source.ts";
import type { SourceKind, Tool } from "./tool.ts";

export interface HeldRecord {
  readonly record: SourceRecord;
  /** When it was learnt, by the catalog's clock. */
  readonly at: number;
}

/** One record that has to do with the name, and what became of it. */
export interface RecordExplanation {
  /** Name under which the source's records are kept. */
  readonly source: string;
  readonly kind: SourceKind;
  readonly key: string;
  /** What claims the name: a contract's path, a service. */
  readonly owner: string;
  readonly serviceId?: string;
  readonly toolName?: string;
  readonly version?: string;
  /** Of the source: a hash of a contract, Consul's ModifyIndex. */
  readonly revision?: string;
  /** Seconds since the runtime learnt it. */
  readonly ageSeconds: number;
  readonly url?: string;
  /** When it was saved, ISO 8601: who says it has not been reached since the start. Absent: it was said since. */
  readonly restoredFrom?: string;
  /** Whether calls may go to it. Absent: it is no instance of a service. */
  readonly live?: boolean;
  /** It has a part in what is served. */
  readonly used: boolean;
  readonly reason: string;
}

export interface Explanation {
  readonly name: string;
  readonly served: boolean;
  readonly reason: string;
  readonly tool?: Tool;
  readonly records: readonly RecordExplanation[];
  readonly withheld: readonly Withheld[];
  /** What sources were told of it and cannot use. */
  readonly problems: readonly SourceProblem[];
}

/** What the catalog is not told by its sources, and a reason may lie in. */
export interface SourceReports {
  readonly problems: readonly SourceProblem[];
  /** How they are doing: what one that is away would say is not known. */
  readonly statuses: readonly SourceStatus[];
}

export interface ExplainFacts extends SourceReports {
  readonly snapshot: Snapshot;
  readonly records: readonly (HeldRecord & { readonly source: string })[];
  readonly claims: Claims;
  readonly filter: TagFilter;
  readonly now: number;
}

export function explain(name: string, facts: ExplainFacts): Explanation {
  const tool = facts.snapshot.byName.get(name);
  const records = facts.records
    .filter(({ record }) => concerns(name, record, facts.claims))
    .map((held) => explainRecord(name, held, tool, facts));
  const withheld = facts.snapshot.withheld.filter((entry) => entry.name === name);
  const problems = facts.problems.filter((problem) => isAbout(name, problem, records));
  return {
    name,
    served: tool !== undefined,
    reason:
      tool === undefined
        ? [whyNot(records, withheld, problems), ...facts.statuses.flatMap(awayText)].join("; ")
        : whyServed(tool),
    ...(tool !== undefined && { tool }),
    records,
    withheld,
    problems,
  };
}

/** Also where it is about a record that has to do with the name, unless that says the same. */
function isAbout(
  name: string,
  { about, names, reason }: SourceProblem,
  records: readonly RecordExplanation[],
): boolean {
  const others = records.filter(({ key, serviceId }) => key === about || serviceId === about);
  if (others.some((record) => record.reason === reason)) return false;
  return others.length > 0 || about === name || names.includes(name);
}

/** Also by a service's name or id: a tool that never came about has no other. */
function concerns(name: string, record: SourceRecord, claims: Claims): boolean {
  if ("tool" in record) return record.tool.name === name;
  const { serviceId, serviceName, claim } = record.instance;
  if (claim !== undefined && "toolName" in claim && claim.toolName === name) return true;
  if ([serviceId, serviceName, record.key].includes(name)) return true;
  return claims.merged(serviceId).some(({ toolName }) => toolName === name);
}

function whyServed(tool: Tool): string {
  const by = `served by ${tool.source} ${tool.owner}`;
  if (tool.endpoints === undefined) return by;
  const count = tool.endpoints.length;
  return count === 0
    ? `${by}; no instance is live, so calls are answered "unavailable"`
    : `${by} on ${count} live ${count === 1 ? "instance" : "instances"}`;
}

function whyNot(
  records: readonly RecordExplanation[],
  withheld: readonly Withheld[],
  problems: readonly SourceProblem[],
): string {
  const [first] = withheld;
  if (first !== undefined) return first.reason;
  return records[0]?.reason ?? problems[0]?.reason ?? "no source speaks of a tool or service of this name";
}

/** A source that may have more to say. */
function awayText({ name, state, restoredFrom, lastError }: SourceStatus): string[] {
  if (state === "ready" || state === "closed") return [];
  const known =
    restoredFrom !== undefined
      ? `is known as it was at ${restoredFrom}`
      : state === "starting"
        ? "was never reached"
        : "is degraded";
  return [`the source ${name} ${known}${lastError === undefined ? "" : `: ${lastError}`}`];
}

function explainRecord(
  name: string,
  { source, record, at }: HeldRecord & { readonly source: string },
  served: Tool | undefined,
  facts: ExplainFacts,
): RecordExplanation {
  const base = { source, key: record.key, ageSeconds: (facts.now - at) / 1000 };
  if (!("tool" in record)) {
    const { restoredFrom } = record;
    return {
      ...base,
      ...(restoredFrom !== undefined && { restoredFrom }),
      ...explainInstance(name, record.key, record.instance, served, facts),
    };
  }
  const { tool } = record;
  const used = served?.source === tool.source && served.owner === tool.owner;
  return {
    ...base,
    kind: tool.source,
    owner: tool.owner,
    toolName: tool.name,
    version: tool.version,
    revision: tool.revision,
    used,
    reason: used ? "it is served" : lost(name, tool.source, tool.owner, facts),
  };
}

function explainInstance(
  name: string,
  key: string,
  instance: Instance,
  served: Tool | undefined,
  facts: ExplainFacts,
): Omit<RecordExplanation, "source" | "key" | "ageSeconds"> {
  const { serviceId, serviceName, source, url, index, claim, definition } = instance;
  const { version } = definition;
  const merged = facts.claims.merged(serviceId);
  const own = merged.find(({ id }) => id === key) ?? merged[0];
  const toolName = own?.toolName ?? (claim !== undefined && "toolName" in claim ? claim.toolName : undefined);
  return {
    kind: source,
    owner: serviceName ?? serviceId,
    serviceId,
    ...(toolName !== undefined && { toolName }),
    ...(version !== undefined && { version }),
    ...(index !== undefined && { revision: String(index) }),
    ...(url !== undefined && { url }),
    live: own?.live ?? false,
    ...instanceOutcome(name, own, instance, served, facts),
  };
}

type Outcome = Pick<RecordExplanation, "used" | "reason">;

function instanceOutcome(
  name: string,
  own: MergedInstance | undefined,
  { serviceId, claim }: Instance,
  served: Tool | undefined,
  facts: ExplainFacts,
): Outcome {
  const not = (reason: string): Outcome => ({ used: false, reason });
  if (own === undefined && claim === undefined) return not("it is no tool, and no event makes it one");
  if (own === undefined) {
    const seconds = Math.ceil((facts.claims.suppressions.remaining(serviceId) ?? 0) / 1000);
    return not(
      `an event declared it gone; what Consul says counts again when its index moves on, in ${seconds} s at the latest`,
    );
  }
  const { toolName, serviceName } = own;
  if (toolName === undefined) return not(own.refused ?? "it serves no tool");
  if (toolName !== name && facts.snapshot.byName.get(toolName) !== served)
    return not(`it serves the tool ${toolName}`);
  const byTags = refusedByTags(own.definition.tags ?? [], facts.filter);
  if (byTags !== undefined) return not(byTags);
  const isCalled = served?.endpoints?.some(({ id }) => id === own.id) ?? false;
  const definer = definerOf(
    facts.claims
      .instancesOf(toolName, serviceName)
      .filter(({ definition }) => refusedByTags(definition.tags ?? [], facts.filter) === undefined),
  );
  const isServed = served?.owner === serviceName && (served.source === "event" || served.source === "consul");
  if (!isCalled && !isServed) return not(lost(name, own.source, serviceName, facts));
  if (!own.live) return { used: definer === own, reason: `not called: ${own.down ?? "it is not live"}` };
  if (isCalled)
    return {
      used: true,
      reason: definer === own && isServed ? "it is called and defines the tool" : "it is called",
    };
  const differs = definer !== undefined && !sameMeaning(definer.definition, own.definition);
  return not(
    differs
      ? `not called: its schemas or its execution are not those of ${definer.serviceId}, which defines the tool`
      : "not called",
  );
}

function lost(name: string, source: SourceKind, owner: string, { snapshot }: ExplainFacts): string {
  const entry = snapshot.withheld.find(
    (other) => other.name === name && other.owner === owner && other.source === source,
  );
  return (
    entry?.reason ??
    snapshot.withheld.find((other) => other.name === name && other.owner === owner)?.reason ??
    "it is not served"
  );
}
