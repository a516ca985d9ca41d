/** The one `Tool` type that every part of the runtime speaks of. Data only. */
import type { JsonObject, JsonValue } from "../core/json.ts";

export type JsonSchema = JsonObject;

/** Where a tool's statement comes from; also the order of precedence, first wins. */
export const sourceKinds = ["contract", "handler", "event", "consul", "upstream"] as const;
export type SourceKind = (typeof sourceKinds)[number];

/** Hints to clients; defaults when absent: read_only false, destructive true, idempotent false, open_world true. */
export interface ToolAnnotations {
  readonly readOnly?: boolean;
  readonly destructive?: boolean;
  readonly idempotent?: boolean;
  readonly openWorld?: boolean;
}

export interface ToolIcon {
  /** `https:` or `data:` only. */
  readonly src: string;
  readonly mimeType?: string;
  readonly sizes?: readonly string[];
}

/** A function in this process, from a module file. */
export interface LocalExecution {
  readonly kind: "local";
  /** Absolute path of the module. */
  readonly module: string;
  readonly export: string;
}

/** A function in this process, handed over in code with `registerTool`. */
export interface FunctionExecution {
  readonly kind: "function";
  readonly fn: ToolFunction;
}

/** POST of the runtime's envelope to a service. */
export interface OnexExecution {
  readonly kind: "onex";
  /** Absolute base URLs; the first is used until instances are balanced. */
  readonly endpoints: readonly string[];
  readonly path: string;
}

/** Any HTTP API. */
export interface RestExecution {
  readonly kind: "rest";
  readonly method: string;
  /** Absolute URL with `{placeholders}` taken from the arguments. */
  readonly url: string;
  readonly query?: Readonly<Record<string, JsonValue>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Template of the JSON body: a string that is exactly `{name}` is replaced by that argument. */
  readonly body?: JsonValue;
  /** JSON pointer (RFC 6901) to the part of the answer that is the result. */
  readonly result?: string;
}

export type Execution = LocalExecution | FunctionExecution | OnexExecution | RestExecution;

export interface Tool {
  /** 1..64 of `[A-Za-z0-9_.-]`. */
  readonly name: string;
  readonly title?: string;
  /** Never empty. */
  readonly description: string;
  readonly version: string;
  /** Root `type: object`, safe for every client. */
  readonly inputSchema: JsonSchema;
  readonly outputSchema?: JsonSchema;
  readonly annotations: ToolAnnotations;
  readonly icons?: readonly ToolIcon[];
  readonly tags: readonly string[];
  /** Absent: the runtime's `timeout_seconds`. */
  readonly timeoutSeconds?: number;
  readonly execution: Execution;
  readonly source: SourceKind;
  /** What claims the name within its source: a contract's path, a service, an upstream. */
  readonly owner: string;
  readonly revision: string;
}

export interface Progress {
  readonly done: number;
  readonly total?: number;
  readonly message?: string;
}

export type ToolLogLevel =
  "debug" | "info" | "notice" | "warning" | "error" | "critical" | "alert" | "emergency";

/** What a tool's function receives beside its input. */
export interface ToolContext {
  /** Aborts when the client cancels, the deadline passes or the runtime stops. */
  readonly signal: AbortSignal;
  readonly correlationId: string;
  /** These two are bound: they may be taken out of the context. */
  readonly progress: (done: number, total?: number, message?: string) => void;
  readonly log: (level: ToolLogLevel, data: unknown) => void;
  /** The request's `_meta` without protocol keys. */
  readonly meta: Readonly<Record<string, unknown>>;
}

/** A tool written in code. Returns any JSON value, or `content([...])` for content blocks. */
export type ToolFunction = (input: never, context: ToolContext) => unknown;

/** What `registerTool` and `defineTool` take. */
export interface ToolDefinition {
  readonly name: string;
  readonly description: string;
  readonly title?: string;
  readonly version?: string;
  readonly inputSchema?: JsonSchema;
  readonly outputSchema?: JsonSchema;
  readonly annotations?: ToolAnnotations;
  readonly icons?: readonly ToolIcon[];
  readonly tags?: readonly string[];
  readonly timeoutSeconds?: number;
}
