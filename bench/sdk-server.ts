/**
 * The other comparison: a server of the official SDK that calls the same service, as its documentation has it.
 * Requests of 2026-07-28 and those without a session go to `createMcpHandler`, each session has a transport of its own. Its low-level
 * `Server` is the fastest that the SDK has to offer. It checks no more than the SDK does by itself.
 *
 * Over IPC it is told where the service is.
 */
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import {
  createMcpHandler,
  Server,
  WebStandardStreamableHTTPServerTransport,
  type CallToolResult,
} from "@modelcontextprotocol/server";
import { Pool } from "undici";
import type { Instruction } from "./baseline.ts";

const paths = new Map([
  ["echo_rest", "/rest"],
  ["echo_onex", "/onex"],
]);
let pool: Pool;

const hex = (): string => randomUUID().replaceAll("-", "");

async function call(name: string, args: object): Promise<CallToolResult> {
  const path = paths.get(name);
  if (path === undefined) throw new Error(`unknown tool ${name}`);
  const correlation = randomUUID();
  const headers = {
    "content-type": "application/json",
    "user-agent": "sdk-server",
    accept: "application/json, text/*;q=0.9",
    "x-correlation-id": correlation,
    traceparent: `00-${hex()}-${hex().slice(16)}-01`,
  };
  const envelope = {
    envelope_id: randomUUID(),
    correlation_id: correlation,
    source: "mcp-adapter",
    payload: args,
    metadata: { tool_name: name, tool_version: "1.0.0" },
  };
  const content = JSON.stringify(path === "/onex" ? envelope : args);
  const { body } = await pool.request({ method: "POST", path, headers, body: content });
  const text = await body.text();
  return {
    content: [{ type: "text", text }],
    structuredContent: JSON.parse(text) as Record<string, unknown>,
  };
}

function build(): Server {
  const server = new Server({ name: "sdk-server", version: "1.0.0" }, { capabilities: { tools: {} } });
  server.setRequestHandler("tools/call", ({ params }) => call(params.name, params.arguments ?? {}));
  return server;
}

const handler = createMcpHandler(build);
const sessions = new Map<string, WebStandardStreamableHTTPServerTransport>();

async function open(): Promise<WebStandardStreamableHTTPServerTransport> {
  const transport = new WebStandardStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    // Cheaper than a stream for every answer.
    enableJsonResponse: true,
    onsessioninitialized: (id) => void sessions.set(id, transport),
    onsessionclosed: (id) => void sessions.delete(id),
  });
  await build().connect(transport);
  return transport;
}

async function answer(request: Request): Promise<Response> {
  const id = request.headers.get("mcp-session-id");
  if (id !== null)
    return (await sessions.get(id)?.handleRequest(request)) ?? Response.json(null, { status: 404 });
  // Only `initialize` comes without either header.
  if (request.headers.has("mcp-protocol-version")) return handler.fetch(request);
  return (await open()).handleRequest(request);
}

const listener = getRequestListener(answer);
const server = createServer((request, response) => void listener(request, response));
server.keepAliveTimeout = 0;

process.once("message", ({ service }: Instruction) => {
  pool = new Pool(service, { connections: 64 });
  server.listen(0, "127.0.0.1", () => process.send?.({ port: (server.address() as AddressInfo).port }));
});
