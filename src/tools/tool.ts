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
  /** Absolute base URLs. None: those of the service's live instances. */
  readonly endpoints: readonly string[];
  /** Below the endpoint. */
  readonly path: string;
  /** The service whose instances are called, where a contract without endpoints names one. */
  readonly service?: string;
}

/** Any HTTP API. */
export interface RestExecution {
  readonly kind: "rest";
  readonly method: string;
  /**
   * With `{placeholders}` taken from the arguments. Absolute; for the tool of a service what comes after an instance's
   * base URL: empty, or a path that begins with `/`.
   */
  readonly url: string;
  readonly query?: Readonly<Record<string, JsonValue>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Template of the JSON body: a string that is exactly `{name}` is replaced by that argument. */
  readonly body?: JsonValue;
  /** JSON pointer (RFC 6901) to the part of the answer that is the result. */
  readonly result?: string;
}

/** The runtime's envelope over the event bus. */
export interface BusExecution {
  readonly kind: "bus";
  readonly topic: string;
  /** Where the answer is awaited. */
  readonly replyTopic: string;
  /** The message's key, with `{placeholders}` taken from the arguments. Absent: no order between calls. */
  readonly key?: string;
  /** The envelope's `<type>.<verb>`, where a runtime host answers. */
  readonly operation?: string;
}

export type Execution = LocalExecution | FunctionExecution | OnexExecution | RestExecution | BusExecution;

/** One live instance of a service. */
export interface Endpoint {
  /** The instance's id within its service. */
  readonly id: string;
  /** Absolute base URL, without a slash at its end. */
  readonly url: string;
  /** Share of the calls, 1 or more. */
  readonly weight: number;
}

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
  /**
   * The instances that are called, where a service serves the tool: those that are live and mean the same by it. Empty:
   * none is, at the moment. Absent: the execution itself says where.
   */
  readonly endpoints?: readonly Endpoint[];
  readonly source: SourceKind;
  /** What claims the name within its source: a contract's path, a service, an upstream. */
  readonly owner: string;
  /** Of the definition; endpoints that come and go leave it as it is. */
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
