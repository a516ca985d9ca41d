/** Requests to an MCP front without a socket, for tests. */
import { onTestFinished } from "vitest";
import { ToolNotFoundError } from "../../src/core/errors.ts";
import { silentLogger } from "../../src/core/log.ts";
import { Front, type FrontOptions } from "../../src/mcp/front.ts";
import { failureResult, textResult, type CallTool, type Principal } from "../../src/tools/call.ts";
import type { Catalog } from "../../src/tools/catalog.ts";

export const me: Principal = { name: "me", role: "admin" };
export const both = "application/json, text/event-stream";

/** A front that is closed when the test ends. */
export function makeFront(catalog: Catalog, changes: Partial<FrontOptions> = {}): Front {
  const echo: CallTool = async (call) =>
    catalog.snapshot().byName.has(call.name)
      ? textResult(JSON.stringify(call.arguments))
      : failureResult(new ToolNotFoundError(call.name));
  const front = new Front({
    info: { name: "test", version: "1.0.0" },
    snapshot: () => catalog.snapshot(),
    onChange: (listener) => catalog.onChange(listener),
    call: echo,
    pageSize: 100,
    cacheScope: "private",
    log: silentLogger,
    stateless: false,
    jsonResponse: true,
    sessions: { ttlSeconds: 60, max: 100 },
    ...changes,
  });
  onTestFinished(() => front.close());
  return front;
}

interface Sent {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly principal?: Principal;
  readonly signal?: AbortSignal;
}

export async function send(front: Front, body: unknown, options: Sent = {}): Promise<Response> {
  const method = options.method ?? "POST";
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const headers = { "content-type": "application/json", accept: both, ...options.headers };
  const request = new Request("http://localhost/mcp", {
    method,
    headers,
    ...(method === "POST" && { body: text }),
    ...(options.signal !== undefined && { signal: options.signal }),
  });
  return front.fetch(request, options.principal ?? me, text);
}

export const call = (id: number | string, method: string, params: object = {}) => ({
  jsonrpc: "2.0",
  id,
  method,
  params,
});

export const initialize = (revision: string) =>
  call(1, "initialize", {
    protocolVersion: revision,
    capabilities: {},
    clientInfo: { name: "t", version: "1" },
  });

export async function openSession(front: Front, principal = me): Promise<string> {
  const response = await send(front, initialize("2025-11-25"), { principal });
  await response.text();
  const id = response.headers.get("mcp-session-id") ?? "";
  await send(
    front,
    { jsonrpc: "2.0", method: "notifications/initialized" },
    { principal, headers: { "mcp-session-id": id } },
  );
  return id;
}

export const modernHeaders = (method: string, name?: string) => ({
  "mcp-protocol-version": "2026-07-28",
  "mcp-method": method,
  ...(name !== undefined && { "mcp-name": name }),
});
export const modernMeta = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientCapabilities": {},
};
