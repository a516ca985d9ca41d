/** The envelope operations of the MCP handler, on the same catalog and executor as its HTTP front. */
import { randomUUID } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import { InfraUnavailableError, ProtocolConfigurationError, type ErrorFacts } from "../core/errors.ts";
import { isObject, typeName } from "../core/json.ts";
import { definitionOf } from "../mcp/definition.ts";
import type { CallTool, ContentBlock } from "../tools/call.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { Envelope, HandlerDescription } from "../runtime/handler.ts";

export const supportedOperations = ["mcp.list_tools", "mcp.call_tool", "mcp.describe"] as const;
export const handlerId = "mcp-handler";

/** The part of an envelope that an operation reads; what is absent gets a default, as in an envelope from the wire. */
export type OperationEnvelope = Partial<Pick<Envelope, "operation" | "payload" | "correlation_id">>;

export interface OperationDeps {
  readonly snapshot: () => Snapshot;
  readonly call: CallTool;
  readonly describe: () => HandlerDescription;
  readonly clock: Clock;
}

/**
 * Runs one operation.
 *
 * @returns the answer's payload
 * @throws ProtocolConfigurationError for an operation that is missing or unknown, or a payload of the wrong shape
 * @throws InfraUnavailableError for an unknown tool (not retryable) or an open breaker (retryable)
 */
export async function runOperation(
  deps: OperationDeps,
  envelope: OperationEnvelope,
  signal: AbortSignal,
): Promise<unknown> {
  switch (envelope.operation) {
    case "mcp.list_tools":
      return { tools: deps.snapshot().tools.map(definitionOf), handler_id: handlerId };
    case "mcp.call_tool":
      return callTool(deps, envelope, signal);
    case "mcp.describe":
      return { ...deps.describe(), handler_id: handlerId };
    default:
      throw new ProtocolConfigurationError(
        `${isText(envelope.operation) ? `Unknown operation '${envelope.operation}'` : "Missing operation"}. Supported: ${supportedOperations.join(", ")}`,
        { facts: factsOf(envelope) },
      );
  }
}

async function callTool(
  deps: OperationDeps,
  envelope: OperationEnvelope,
  signal: AbortSignal,
): Promise<unknown> {
  const { payload = {}, correlation_id: correlationId = randomUUID() } = envelope;
  const { tool_name: name, arguments: args = {} } = payload;
  if (!isText(name)) {
    throw new ProtocolConfigurationError(
      `Missing 'tool_name' in the payload of mcp.call_tool: expected a non-empty string, got ${described(name)}`,
      { facts: factsOf(envelope) },
    );
  }
  if (!isObject(args)) {
    throw new ProtocolConfigurationError(
      `'arguments' in the payload of mcp.call_tool: expected an object, got ${described(args)}`,
      { facts: factsOf(envelope) },
    );
  }
  const startedAt = deps.clock.now();
  const result = await deps.call({ name, arguments: args, correlationId }, signal);
  if (result.failure instanceof InfraUnavailableError) throw result.failure;
  return {
    success: !result.isError,
    content: result.content,
    is_error: result.isError,
    error_message: result.isError ? textOf(result.content) : null,
    structured_content: result.structuredContent ?? null,
    correlation_id: correlationId,
    execution_time_ms: deps.clock.now() - startedAt,
    handler_id: handlerId,
  };
}

/** What an error of this handler says of the envelope it is about. */
export const factsOf = ({ operation, correlation_id }: OperationEnvelope): ErrorFacts => ({
  transport: "mcp",
  ...(operation !== undefined && { operation }),
  ...(correlation_id !== undefined && { correlation_id }),
});

const isText = (value: unknown): value is string => typeof value === "string" && value !== "";

function described(value: unknown): string {
  if (value === "") return "an empty one";
  return value === undefined ? "nothing" : typeName(value);
}

const textOf = (content: readonly ContentBlock[]): string =>
  content
    .filter((block) => block.type === "text")
    .map((block) => String(block["text"]))
    .join("\n");
