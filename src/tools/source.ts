/** A source of tools: contract files, code, handlers, Consul, registration events, and later upstream servers. */
import type { Instance } from "./instance.ts";
import type { SourceKind, Tool } from "./tool.ts";

/** A whole tool, stated by one source: a contract file, code, a handler. */
export interface ToolRecord {
  /** Unique within the source: a contract's path, the name of a tool registered in code. */
  readonly key: string;
  readonly tool: Tool;
}

/** One source's statement about one instance of a service. */
export interface InstanceRecord {
  /** Unique within the source: a registration's service_id, Consul's node and service id. */
  readonly key: string;
  readonly instance: Instance;
  /** Which part of the source says it: an event's topic. Absent: the source has no parts. */
  readonly part?: string;
  /** When it was saved, ISO 8601: what says it has not been reached since the start. Absent: it was said in this process. */
  readonly restoredFrom?: string;
}

/** One source's statement about one key. Revisions are compared only within a source and key. */
export type SourceRecord = ToolRecord | InstanceRecord;

/** What changed at a source, as one step: it becomes one snapshot and one list_changed. */
export interface SourceChange<Of extends SourceRecord = SourceRecord> {
  readonly put: readonly Of[];
  readonly remove: readonly string[];
  /**
   * Service ids that have just been declared gone: what Consul still says of them at its present index does not count,
   * for a while. Never for what was declared gone before the source started.
   */
  readonly suppress?: readonly string[];
}

/** How a source is doing, for readiness and the operator. */
export interface SourceStatus {
  readonly name: string;
  readonly kind: SourceKind;
  readonly state: "starting" | "ready" | "degraded" | "closed";
  /** Seconds since the source last knew its data to be current. */
  readonly ageSeconds: number;
  readonly lastError?: string;
  /** What the source has counted since its start, by names as they are on the wire. */
  readonly counters?: Readonly<Record<string, number>>;
  /**
   * When what is served was saved, ISO 8601: the source, or a part of it, has not been reached since the start, and its
   * last good state is served.
   */
  readonly restoredFrom?: string;
}

/** Something a source was told that it cannot use, or not as it stands. */
export interface SourceProblem {
  /** Name of the source. */
  readonly source: string;
  /** What it is about: a contract's path or key, a service's id. */
  readonly about: string;
  /** Under which names somebody may ask for it as well: of a tool, of a node. */
  readonly names: readonly string[];
  readonly reason: string;
}

export type ApplyChange<Of extends SourceRecord = SourceRecord> = (change: SourceChange<Of>) => void;

export interface ToolSource {
  readonly name: string;
  readonly kind: SourceKind;
  /** Resolves once the first state has been applied. */
  start(apply: ApplyChange): Promise<void>;
  status(): SourceStatus;
  close(): Promise<void>;
}
