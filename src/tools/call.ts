/**
 * One call of a tool and its outcome. Owns the signature that everything wraps: `(call, signal) => Promise<ToolResult>`.
 * Outcomes are values: a call resolves, with `failure` set where it was not the tool itself that answered.
 */
import type { CallSignal } from "../core/abort.ts";
import { OnexError, toOnexError } from "../core/errors.ts";
import type { JsonValue } from "../core/json.ts";
import type { Progress, Tool, ToolLogLevel } from "./tool.ts";

/** Who calls. Without authentication configured everyone on loopback is `admin`. */
export interface Principal {
  readonly name: string;
  readonly role: "user" | "admin";
}

export interface ToolCall {
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly correlationId: string;
  /** The request's `_meta` without protocol keys (trace context and the like). */
  readonly meta?: Readonly<Record<string, unknown>>;
  readonly principal?: Principal;
  readonly onProgress?: (progress: Progress) => void;
  readonly onLog?: (level: ToolLogLevel, data: JsonValue) => void;
}

/** An MCP content block: `text`, `image`, `audio`, `resource_link` or `resource`. */
export interface ContentBlock {
  readonly type: string;
  readonly [key: string]: unknown;
}

export interface ToolResult {
  readonly content: readonly ContentBlock[];
  readonly structuredContent?: JsonValue;
  /**
   * The JSON text that `structuredContent` was parsed from, where it is known: the same JSON, so that it need not be
   * written again. It is a service's own: it may hold line breaks between its tokens.
   */
  readonly structuredText?: string;
  readonly isError: boolean;
  /** What a client is told about the call beside its result, under names of the protocol's form. */
  readonly meta?: Readonly<Record<string, JsonValue>>;
  /** Set when the answer is the runtime's own (unknown tool, bad arguments, deadline, open breaker, unreachable), not the tool's. */
  readonly failure?: OnexError;
}

export type CallTool = (call: ToolCall, signal: CallSignal) => Promise<ToolResult>;

/** An executor that was handed over: it gets a whole `AbortSignal`. */
export interface ToolExecutor {
  call(call: ToolCall, signal: AbortSignal): Promise<ToolResult>;
}

/** Executes the tools of one kind. */
export interface Backend {
  /** @param deadline when the signal aborts at the latest, in milliseconds of the runtime's monotonic clock */
  call(tool: Tool, call: ToolCall, signal: CallSignal, deadline: number): Promise<ToolResult>;
  /** Ends running work now and frees what is held. Whoever wants to drain waits for its calls first. */
  destroy(reason: Error): Promise<void>;
}

export const textResult = (text: string, isError = false): ToolResult => ({
  content: [{ type: "text", text }],
  isError,
});

/** The runtime's own answer to a call: an `isError` result whose text is safe to show. */
export function failureResult(failure: OnexError, text: string = failure.message): ToolResult {
  const seconds = failure.facts.retry_after_seconds;
  return {
    content: [{ type: "text", text }],
    isError: true,
    failure,
    ...(seconds !== undefined && { meta: { "onex-runtime/retry-after-seconds": seconds } }),
  };
}

/** The same for anything thrown. What a foreign error says may hold internals: the client reads the table's text. */
export function thrownResult(thrown: unknown): ToolResult {
  const failure = toOnexError(thrown);
  return failureResult(failure, thrown instanceof OnexError ? failure.message : failure.publicMessage);
}

const contentMark = Symbol.for("onex-runtime.content");

/** Content blocks as a tool's return value, with optional structured content. */
export interface ToolContent {
  readonly [contentMark]: true;
  readonly blocks: readonly ContentBlock[];
  readonly structuredContent?: unknown;
  readonly isError?: boolean;
}

/** Return this from a tool to answer with content blocks rather than with a JSON value. */
export function content(
  blocks: readonly ContentBlock[],
  options: { readonly structuredContent?: unknown; readonly isError?: boolean } = {},
): ToolContent {
  return { [contentMark]: true, blocks, ...options };
}

export function isToolContent(value: unknown): value is ToolContent {
  return typeof value === "object" && value !== null && contentMark in value;
}
