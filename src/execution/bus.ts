/**
 * Tools that are called over the event bus: kind `bus`. Owns: what is asked, and what an answer means for the call. Does
 * not own: the bus, the envelope's ids and how an answer finds its call (whoever implements `BusRequester`).
 */
import { abortSignalOf, type CallSignal } from "../core/abort.ts";
import {
  InfraUnavailableError,
  ProtocolConfigurationError,
  toOnexError,
  type OnexError,
} from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { failureResult, textResult, type Backend, type ToolCall, type ToolResult } from "../tools/call.ts";
import type { BusExecution, Tool } from "../tools/tool.ts";
import { messageIn } from "./message.ts";
import { traceHeaders } from "./request.ts";
import { toResult } from "./result.ts";
import { fillText, parseTemplate, PlaceholderError } from "./template.ts";
import { invalidArguments } from "./validate.ts";

/** One question over the bus. */
export interface BusRequest {
  readonly topic: string;
  readonly replyTopic: string;
  /** Questions with one key are handled in order. Absent: no order. */
  readonly key?: string;
  /** The envelope's, where it has one. */
  readonly operation?: string;
  readonly payload: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Of the message: correlation and trace of the call. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface BusRequester {
  /**
   * Sends an envelope and waits for its answer: the JSON value that came, whatever it is.
   *
   * Rejects with an `InfraUnavailableError` where the question could not be sent, and with the signal's reason.
   */
  request(request: BusRequest, signal: AbortSignal): Promise<unknown>;
  /** Ends subscriptions and requests. Idempotent. */
  close(reason: Error): Promise<void>;
}

export class BusBackend implements Backend {
  readonly #bus: BusRequester | undefined;

  constructor(bus: BusRequester | undefined) {
    this.#bus = bus;
  }

  /** False where there is no bus. */
  get available(): boolean {
    return this.#bus !== undefined;
  }

  async call(tool: Tool, call: ToolCall, signal: CallSignal): Promise<ToolResult> {
    const { execution } = tool;
    if (this.#bus === undefined || execution.kind !== "bus")
      return failureResult(
        new ProtocolConfigurationError(
          `"${tool.name}" is called over the event bus (kind bus), and there is none here; serve it from a runtime host`,
        ),
      );
    let request: BusRequest;
    try {
      request = requestOf(tool, execution, call);
    } catch (error) {
      if (!(error instanceof PlaceholderError)) throw error;
      return invalidArguments(tool, { text: error.message, paths: [`/${error.argument}`] });
    }
    try {
      return readReply(await this.#bus.request(request, abortSignalOf(signal)), tool);
    } catch (error) {
      return failureResult(unsent(error, tool));
    }
  }

  async destroy(reason: Error): Promise<void> {
    await this.#bus?.close(reason);
  }
}

function requestOf(tool: Tool, execution: BusExecution, call: ToolCall): BusRequest {
  const { topic, replyTopic, key, operation } = execution;
  const pairs = traceHeaders(call, new Set());
  const headers: Record<string, string> = {};
  for (let index = 0; index < pairs.length; index += 2) headers[pairs[index] ?? ""] = pairs[index + 1] ?? "";
  return {
    topic,
    replyTopic,
    ...(key !== undefined && { key: fillText(parseTemplate(key), call.arguments, "the message's key") }),
    ...(operation !== undefined && { operation }),
    payload: call.arguments,
    metadata: { tool_name: tool.name, tool_version: tool.version },
    headers,
  };
}

/** `{success, payload | error}` is an answer to an envelope; any other JSON is the result itself. */
function readReply(value: unknown, tool: Tool): ToolResult {
  const structured = tool.outputSchema !== undefined;
  if (!isObject(value) || typeof value.success !== "boolean") return toResult(value, { structured });
  if (!value.success)
    return textResult(messageIn(value) ?? "The service reported a failure without a message.", true);
  return toResult("payload" in value ? value.payload : value, { structured });
}

/** The bus's own words name brokers and topics; a client hears of the tool only. */
function unsent(error: unknown, tool: Tool): OnexError {
  const known = toOnexError(error);
  if (!(known instanceof InfraUnavailableError)) return known;
  return new InfraUnavailableError(
    `The event bus is not available for "${tool.name}" at the moment; try again later.`,
    { cause: error, facts: known.facts },
  );
}
