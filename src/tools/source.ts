/** A source of tools: contract files, code, and later Consul, Kafka and upstream servers. */
import type { SourceKind, Tool } from "./tool.ts";

/** One source's statement about one key. Revisions are compared only within a source and key. */
export interface ToolRecord {
  /** Unique within the source: a contract's path, the name of a tool registered in code. */
  readonly key: string;
  readonly tool: Tool;
}

/** What changed at a source, as one step: it becomes one snapshot and one list_changed. */
export interface SourceChange {
  readonly put: readonly ToolRecord[];
  readonly remove: readonly string[];
}

/** How a source is doing, for readiness and the operator. */
export interface SourceStatus {
  readonly name: string;
  readonly kind: SourceKind;
  readonly state: "starting" | "ready" | "degraded" | "closed";
  /** Seconds since the source last knew its data to be current. */
  readonly ageSeconds: number;
  readonly lastError?: string;
}

export type ApplyChange = (change: SourceChange) => void;

export interface ToolSource {
  readonly name: string;
  readonly kind: SourceKind;
  /** Resolves once the first state has been applied. */
  start(apply: ApplyChange): Promise<void>;
  status(): SourceStatus;
  close(): Promise<void>;
}
