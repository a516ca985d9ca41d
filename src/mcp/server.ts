/**
 * The SDK's low-level Server, filled from a snapshot. Owns tools/list, tools/call and how an outcome looks to an MCP
 * client. Does not own: transports, sessions, or who may connect.
 */
import { ProtocolError, ProtocolErrorCode, Server, type ServerContext } from "@modelcontextprotocol/server";
import { randomUUID } from "node:crypto";
import { ToolNotFoundError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { isObject } from "../core/json.ts";
import type { CallTool, Principal, ToolCall, ToolResult } from "../tools/call.ts";
import type { Snapshot } from "../tools/catalog.ts";
import { pageOf } from "./definition.ts";

export interface ServerInfo {
  readonly name: string;
  readonly title?: string;
  readonly version: string;
}

/** What a server needs from the rest of the runtime. */
export interface ServerDeps {
  readonly info: ServerInfo;
  readonly instructions?: string;
  readonly snapshot: () => Snapshot;
  readonly call: CallTool;
  /** Tools a page of tools/list; at least 1. */
  readonly pageSize: number;
  /** `public` only where every caller gets the same list. */
  readonly cacheScope: "public" | "private";
  readonly log: Logger;
}

/** Milliseconds a client may keep a list: none, since tools come and go at any time. */
const listTtlMs = 0;

/** A server that is not connected yet. Free of side effects: the stdio entry makes one for a probe and drops it. */
export function buildServer(deps: ServerDeps): Server {
  const cacheHint = { ttlMs: listTtlMs, cacheScope: deps.cacheScope };
  const server = new Server(deps.info, {
    capabilities: { tools: { listChanged: true }, logging: {} },
    ...(deps.instructions !== undefined && { instructions: deps.instructions }),
    cacheHints: { "tools/list": cacheHint, "server/discover": cacheHint },
  });
  server.onerror = (error) => deps.log.debug({ err: error.message }, "MCP protocol error");
  server.setRequestHandler("tools/list", (request) => {
    const page = pageOf(deps.snapshot(), request.params?.cursor, deps.pageSize);
    if (page === undefined) throw new ProtocolError(ProtocolErrorCode.InvalidParams, "Invalid cursor");
    return { ...page, tools: [...page.tools] };
  });
  server.setRequestHandler("tools/call", async (request, context) => {
    const { name, arguments: args } = request.params;
    const result = await deps.call(toolCall(name, args, context), context.mcpReq.signal);
    if (result.failure instanceof ToolNotFoundError) {
      throw new ProtocolError(ProtocolErrorCode.InvalidParams, result.failure.message);
    }
    const outputSchema = deps.snapshot().byName.get(name)?.outputSchema;
    return server.projectCallToolResult(resultOnWire(result), outputSchema);
  });
  return server;
}

type WireResult = Parameters<Server["projectCallToolResult"]>[0];

/** The result as MCP shows it; `failure` stays inside. */
function resultOnWire(result: ToolResult): WireResult {
  return {
    content: [...result.content] as WireResult["content"],
    ...(result.structuredContent !== undefined && { structuredContent: result.structuredContent }),
    ...(result.isError && { isError: true }),
  };
}

function toolCall(name: string, args: Record<string, unknown> | undefined, context: ServerContext): ToolCall {
  const { progressToken, ...meta } = context.mcpReq._meta ?? {};
  const principal = principalOf(context);
  return {
    name,
    arguments: args ?? {},
    correlationId: randomUUID(),
    meta,
    ...(principal !== undefined && { principal }),
    ...(progressToken !== undefined && {
      onProgress: ({ done, total, message }) => {
        const params = {
          progressToken,
          progress: done,
          ...(total !== undefined && { total }),
          ...(message !== undefined && { message }),
        };
        context.mcpReq.notify({ method: "notifications/progress", params }).catch(ignoreClosed);
      },
    }),
    onLog: (level, data) => {
      context.mcpReq.log(level, data, name).catch(ignoreClosed);
    },
  };
}

/** A notification for a client that has gone is not an error. */
const ignoreClosed = (): undefined => undefined;

function principalOf(context: ServerContext): Principal | undefined {
  const principal = context.http?.authInfo?.extra?.["principal"];
  return isObject(principal) ? (principal as unknown as Principal) : undefined;
}
