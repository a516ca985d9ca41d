import { createConnection } from "node:net";
import { once } from "node:events";
import { afterEach, beforeEach, expect, it } from "vitest";
import { startRuntime, type Runtime } from "../support/runtime.ts";
import { riskContracts, type RiskContracts } from "./contracts.ts";
import { callTool } from "./rpc.ts";

let contracts: RiskContracts;
let runtime: Runtime;

beforeEach(async () => {
  contracts = await riskContracts();
  runtime = await startRuntime({ env: { ...contracts.env, HANDLER_MCP_SESSION_TTL_SECONDS: "1" } });
});

afterEach(async () => {
  await runtime.stop();
  await contracts[Symbol.asyncDispose]();
});

const toolCount = async (): Promise<unknown> =>
  ((await (await fetch(new URL("/health", runtime.mcp))).json()) as Record<string, unknown>)["tool_count"];

it("200 clients open a session and a stream and vanish; the runtime serves on and frees them", async () => {
  const initialize = {
    jsonrpc: "2.0",
    id: 1,
    method: "initialize",
    params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "v", version: "1" } },
  };
  const headers = { "content-type": "application/json", accept: "application/json, text/event-stream" };
  const vanish = async (): Promise<string> => {
    const opened = await fetch(runtime.mcp, { method: "POST", headers, body: JSON.stringify(initialize) });
    await opened.text();
    const id = opened.headers.get("mcp-session-id") ?? "";
    const leaving = new AbortController();
    await fetch(runtime.mcp, { headers: { ...headers, "mcp-session-id": id }, signal: leaving.signal });
    leaving.abort();
    return id;
  };
  const ids = await Promise.all(Array.from({ length: 200 }, vanish));
  expect(new Set(ids).size).toBe(200);
  // A session that has ended is not found; one that is still held answers.
  const ping = async (id: string): Promise<number> => {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 2, method: "no/such" });
    const response = await fetch(runtime.mcp, {
      method: "POST",
      headers: { ...headers, "mcp-session-id": id },
      body,
    });
    await response.text();
    return response.status;
  };
  const last = ids.at(-1)!;
  await expect.poll(() => ping(ids[0]!), { timeout: 20_000, interval: 3000 }).toBe(404);
  await expect.poll(() => ping(last), { timeout: 20_000, interval: 3000 }).toBe(404);
  expect(await toolCount()).toBe(8);
});

it("a client that sends one byte a second is cut off, and others are served meanwhile", async () => {
  const socket = createConnection(Number(runtime.mcp.port), runtime.mcp.hostname);
  await once(socket, "connect");
  const request = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  let sent = 0;
  const drip = setInterval(() => socket.write(request[sent++ % request.length]!), 1000);
  socket.on("error", () => undefined);
  socket.resume();
  const cut = once(socket, "close");
  const { body } = await callTool(runtime.mcp, "echo", { a: 1 });
  expect(body.result.structuredContent).toEqual({ a: 1 });
  await cut;
  clearInterval(drip);
}, 60_000);
