/** The envelope operations of the MCP handler, on the same catalog and executor as its HTTP front. */
import { InfraUnavailableError, ProtocolConfigurationError } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { definitionOf } from "../mcp/definition.ts";
import type { CallTool } from "../tools/call.ts";
import type { Snapshot } from "../tools/catalog.ts";
import type { Envelope, HandlerDescription } from "../runtime/handler.ts";

export const supportedOperations = ["mcp.list_tools", "mcp.call_tool", "mcp.describe"] as const;
export const handlerId = "mcp-handler";

export interface OperationDeps {
  readonly snapshot: () => Snapshot;
  readonly call: CallTool;
  readonly describe: () => HandlerDescription;
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
  envelope: Envelope,
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
        `${envelope.operation ? `Unknown operation '${envelope.operation}'` : "Missing operation"}. Supported: ${supportedOperations.join(", ")}`,
      );
  }
}

async function callTool(deps: OperationDeps, envelope: Envelope, signal: AbortSignal): Promise<unknown> {
  const { tool_name: name, arguments: args = {} } = envelope.payload;
  if (typeof name !== "string" || name === "") {
    throw new ProtocolConfigurationError(
      "Missing 'tool_name' in the payload of mcp.call_tool; it must be a non-empty string",
    );
  }
  if (!isObject(args)) {
    throw new ProtocolConfigurationError(
      `'arguments' in the payload of mcp.call_tool must be an object, got ${JSON.stringify(args)}`,
    );
  }
  const started = performance.now();
  const result = await deps.call({ name, arguments: args, correlationId: envelope.correlation_id }, signal);
  if (result.failure instanceof InfraUnavailableError) throw result.failure;
  return {
    success: !result.isError,
    content: result.content,
    is_error: result.isError,
    error_message: result.isError ? textOf(result.content) : null,
    structured_content: result.structuredContent ?? null,
    correlation_id: envelope.correlation_id,
    execution_time_ms: performance.now() - started,
    handler_id: handlerId,
  };
}

const textOf = (content: readonly { readonly type: string; readonly [key: string]: unknown }[]): string =>
  content
    .filter((block) => block.type === "text")
    .map((block) => String(block["text"]))
    .join("\n");
