/**
 * The SDK's low-level Server, filled from a snapshot. Owns tools/list, tools/call and how an outcome looks to an MCP
 * client. Does not own: transports, sessions, or who may connect.
 */
import {
  ProtocolError,
  ProtocolErrorCode,
  Server,
  type JSONRPCRequest,
  type Result,
  type ServerContext,
} from "@modelcontextprotocol/server";
import { randomUUID } from "node:crypto";
import { monotonicClock, type Clock } from "../core/clock.ts";
import { messageOf, ToolNotFoundError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { isObject } from "../core/json.ts";
import type { CallTool, Principal, ToolCall, ToolResult } from "../tools/call.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { Tool } from "../tools/tool.ts";
import { pageOf } from "./definition.ts";
import { mayReport, startHeartbeat } from "./heartbeat.ts";
import { Notices } from "./notices.ts";

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
  /** Default the process's own. */
  readonly clock?: Clock;
}

/** Milliseconds a client may keep a list: none, since tools come and go at any time. */
export const listTtlMs = 0;

/** A server that is not connected yet. Free of side effects: the stdio entry makes one for a probe and drops it. */
export function buildServer(deps: ServerDeps): Server {
  const clock = deps.clock ?? monotonicClock;
  const cacheHint = { ttlMs: listTtlMs, cacheScope: deps.cacheScope };
  const server = new ToolServer(deps.info, {
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
    // Of the snapshot that the call is made from: the tool may be another, or gone, when it has answered.
    const tool = deps.snapshot().byName.get(name);
    const outputSchema = tool?.outputSchema;
    const notices = new Notices(context, name, clock);
    const endHeartbeat = heartbeatOf(tool, context, notices);
    try {
      const result = await deps.call(toolCall(name, args, context, notices), context.mcpReq.signal);
      if (result.failure instanceof ToolNotFoundError) {
        throw new ProtocolError(result.failure.rpcCode, result.failure.message);
      }
      return server.projectCallToolResult(resultOnWire(result), outputSchema);
    } catch (error) {
      if (error instanceof ProtocolError) throw error;
      deps.log.error({ err: error, tool: name }, "a call failed that should have had an outcome");
      throw new ProtocolError(ProtocolErrorCode.InternalError, "Internal error");
    } finally {
      endHeartbeat?.();
      notices.end();
    }
  });
  return server;
}

/** Answers params that break a method's schema with -32602, where the SDK takes them for a fault of ours. */
class ToolServer extends Server {
  protected override _wrapHandler(
    method: string,
    handler: (request: JSONRPCRequest, context: ServerContext) => Promise<Result>,
  ): (request: JSONRPCRequest, context: ServerContext) => Promise<Result> {
    const wrapped = super._wrapHandler(method, handler);
    return async (request, context) => {
      try {
        return await wrapped(request, context);
      } catch (error) {
        // The handlers throw nothing else; so it comes from the schema's check, which deep nesting overflows.
        if (error instanceof ProtocolError) throw error;
        const problem = error instanceof RangeError ? "they are nested too deeply" : messageOf(error);
        throw new ProtocolError(ProtocolErrorCode.InvalidParams, `Invalid params of ${method}: ${problem}`);
      }
    };
  }
}

type WireResult = Parameters<Server["projectCallToolResult"]>[0];

/** The result as MCP shows it; `failure` stays inside. */
function resultOnWire(result: ToolResult): WireResult {
  return {
    content: [...result.content] as WireResult["content"],
    ...(result.structuredContent !== undefined && { structuredContent: result.structuredContent }),
    ...(result.isError && { isError: true }),
    ...(result.meta !== undefined && { _meta: result.meta }),
  };
}

/** For a client that asked for progress, where the tool itself cannot tell of any. */
function heartbeatOf(
  tool: Tool | undefined,
  context: ServerContext,
  notices: Notices,
): (() => void) | undefined {
  const token = context.mcpReq._meta?.progressToken;
  if (token === undefined || tool === undefined || mayReport(tool)) return undefined;
  return startHeartbeat(tool, (progress) => notices.progress(token, progress));
}

function toolCall(
  name: string,
  args: Record<string, unknown> | undefined,
  context: ServerContext,
  notices: Notices,
): ToolCall {
  const { progressToken, ...meta } = context.mcpReq._meta ?? {};
  const principal = principalOf(context);
  return {
    name,
    arguments: args ?? {},
    correlationId: randomUUID(),
    meta,
    ...(principal !== undefined && { principal }),
    ...(progressToken !== undefined && {
      onProgress: (progress) => notices.progress(progressToken, progress),
    }),
    onLog: (level, data) => notices.log(level, data),
  };
}

function principalOf(context: ServerContext): Principal | undefined {
  const principal = context.http?.authInfo?.extra?.["principal"];
  return isObject(principal) ? (principal as unknown as Principal) : undefined;
}
