import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import { InfraUnavailableError } from "../../src/index.ts";
import { ContractSource } from "../../src/discovery/contracts.ts";
import { HandlerMCP } from "../../src/handlers/mcp.ts";
import { rawClient } from "../http/sockets.ts";
import {
  callTool,
  config,
  contractsOf,
  embed,
  gatedTool,
  heldBefore,
  heldMore,
  isFree,
  listOverHttp,
  makeHandler,
  openSession,
  openStream,
  portOf,
  post,
  recordingLogger,
  request,
  serve,
  toolNames,
} from "./mcp.ts";

const modern = { "mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen" };
const modernMeta = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientCapabilities": {},
};

/** Seconds that a work takes. */
async function secondsOf(work: Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work;
  return (performance.now() - start) / 1000;
}

it("the limits are 5 s for calls to finish and 1 s more to abort them", () => {
  expect(new HandlerMCP()).toMatchObject({ shutdownTimeout: 5, cancelTimeout: 1 });
});

describe("a graceful shutdown", () => {
  it("lets a call under way finish, and its client gets the answer", async () => {
    const handler = await serve();
    const { state, open, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const answer = request(handler, "tools/call", { name: "gated" });
    await vi.waitFor(() => expect(state.begun).toBe(1));
    const stopping = handler.shutdown();
    expect(await handler.healthCheck()).toMatchObject({
      healthy: false,
      reason: "draining",
      initialized: true,
    });
    open("finished");
    expect(await answer).toMatchObject({ content: [{ type: "text", text: "finished" }] });
    await stopping;
    expect(state.aborted).toBe(0);
    expect(await handler.healthCheck()).toMatchObject({ healthy: false, reason: "not_initialized" });
  });

  it("lets a call in a session, with progress, finish", async () => {
    const handler = await serve();
    const { state, open, definition, fn } = gatedTool();
    handler.registerTool<object>(definition, async (input, context) => {
      context.progress(1, 2);
      return fn(input, context);
    });
    const session = { "mcp-session-id": await openSession(handler) };
    const response = await post(
      handler,
      "tools/call",
      { name: "gated", _meta: { progressToken: 1 } },
      session,
    );
    await vi.waitFor(() => expect(state.begun).toBe(1));
    const stopping = handler.shutdown();
    open("finished");
    expect(await response.text()).toContain("finished");
    await stopping;
  });

  it("lets a call by envelope finish and refuses a new one", async () => {
    const handler = await embed();
    const { state, open, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const answer = callTool(handler, "gated");
    await vi.waitFor(() => expect(state.begun).toBe(1));
    const stopping = handler.shutdown();
    const refusal: unknown = await callTool(handler, "gated").catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(InfraUnavailableError);
    expect(refusal).toMatchObject({
      message: "HandlerMCP is shutting down and takes no new operations",
      retryable: true,
    });
    open("finished");
    expect(await answer).toMatchObject({ success: true });
    await stopping;
    expect(state.begun).toBe(1);
  });

  it("accepts no new connection while a call finishes", async () => {
    const handler = await serve();
    const { state, open, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const port = portOf(handler);
    const answer = request(handler, "tools/call", { name: "gated" });
    await vi.waitFor(() => expect(state.begun).toBe(1));
    const stopping = handler.shutdown();
    await expect(rawClient({ host: "127.0.0.1", port })).rejects.toThrow("ECONNREFUSED");
    open("finished");
    await Promise.all([answer, stopping]);
  });

  it("refuses a request that is still coming in on a connection of before", async () => {
    const handler = await serve();
    const { state, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "gated" } });
    const client = await rawClient({ host: "127.0.0.1", port: portOf(handler) });
    client.socket.write(
      `POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nExpect: 100-continue\r\n\r\n`,
    );
    await vi.waitFor(() => expect(client.text()).toContain("100 Continue"));
    const stopping = handler.shutdown();
    client.socket.write(body);
    expect(await client.ended).toMatch(/HTTP\/1\.1 503 Service Unavailable[^]*retry-after: 1/i);
    await stopping;
    expect(state.begun).toBe(0);
  });

  it("ends GET streams and subscriptions", async () => {
    const handler = await serve();
    const stream = await openStream(handler, await openSession(handler));
    const subscription = await post(
      handler,
      "subscriptions/listen",
      { notifications: { toolsListChanged: true }, _meta: modernMeta },
      modern,
    );
    expect([stream.status, subscription.status]).toEqual([200, 200]);
    const ended = Promise.all([stream.text(), subscription.text()]);
    await handler.shutdown();
    await ended;
    expect(await handler.healthCheck()).toMatchObject({ reason: "not_initialized" });
  });

  it("ends streams and subscriptions before the calls have finished", async () => {
    const handler = await serve();
    const { state, open, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const stream = await openStream(handler, await openSession(handler));
    const answer = request(handler, "tools/call", { name: "gated" });
    await vi.waitFor(() => expect(state.begun).toBe(1));
    const stopping = handler.shutdown();
    await stream.text();
    open("finished");
    expect(await answer).toMatchObject({ content: [{ text: "finished" }] });
    await stopping;
  });

  it("frees the port, and nothing of the handler keeps the process alive", async () => {
    const before = await heldBefore();
    const folder = await contractsOf({ a: [] });
    const handler = await serve({ contracts_dir: folder.path });
    const port = portOf(handler);
    await listOverHttp(handler);
    await handler.shutdown();
    expect(await isFree("127.0.0.1", port)).toBe(true);
    expect(await heldMore(before)).toEqual({});
    expect([handler.url, handler.endpoint, handler.gateway]).toEqual([undefined, undefined, undefined]);
  });

  it("closes the sources: a contract that changes later is not read", async () => {
    const folder = await contractsOf({ a: [] });
    const handler = await embed({ contracts_dir: folder.path });
    const { catalog } = handler.gateway!;
    let changes = 0;
    await handler.shutdown();
    catalog.onChange(() => (changes += 1));
    await folder.write("a/contract.yaml", "name: b");
    // Nothing is to happen, so there is nothing to wait for: this is several times what a watched file takes to settle.
    await sleep(200);
    expect(changes).toBe(0);
  });
});

describe("a forced shutdown", () => {
  it("aborts a call that does not finish, and its client is told", async () => {
    const log = recordingLogger();
    const handler = await serve({}, { log });
    handler.shutdownTimeout = 0.1;
    const { state, definition, fn } = gatedTool({ heedsSignal: true });
    handler.registerTool(definition, fn);
    const answer = request(handler, "tools/call", { name: "gated" });
    await vi.waitFor(() => expect(state.begun).toBe(1));
    await handler.shutdown();
    expect(state.aborted).toBe(1);
    expect(await answer).toMatchObject({
      isError: true,
      content: [{ text: "The runtime is stopping and has aborted the call." }],
    });
    expect(await handler.healthCheck()).toMatchObject({ healthy: false, reason: "server_cancelled" });
    expect(log.lines).toContainEqual({
      level: "warn",
      fields: { timeout_seconds: 0.1 },
      message: "calls did not finish in time and are aborted",
    });
  });

  it("does not wait for a tool that ignores its signal", async () => {
    const before = await heldBefore();
    const handler = await serve();
    Object.assign(handler, { shutdownTimeout: 0.1, cancelTimeout: 0.1 });
    const { state, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const port = portOf(handler);
    const calls = [request(handler, "tools/call", { name: "gated" }), callTool(handler, "gated")];
    const settled = Promise.allSettled(calls);
    await vi.waitFor(() => expect(state.begun).toBe(2));
    expect(await secondsOf(handler.shutdown())).toBeLessThan(0.1 + 0.1 + 2);
    await settled;
    expect(await isFree("127.0.0.1", port)).toBe(true);
    expect(await heldMore(before)).toEqual({});
    expect(await handler.healthCheck()).toMatchObject({ reason: "server_cancelled" });
  });

  it("tells a call by envelope that it was aborted, not that it may be tried again", async () => {
    const handler = await embed();
    handler.shutdownTimeout = 0.05;
    const { state, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const answer = callTool(handler, "gated").catch((error: unknown) => error);
    await vi.waitFor(() => expect(state.begun).toBe(1));
    await handler.shutdown();
    expect(await answer).toBeInstanceOf(InfraUnavailableError);
    expect(await answer).toMatchObject({ retryable: false });
  });

  it("cuts off a client that does not read its answer", async () => {
    const handler = await serve();
    Object.assign(handler, { shutdownTimeout: 0.1, cancelTimeout: 0.1 });
    const { state, open, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const port = portOf(handler);
    const client = await rawClient({ host: "127.0.0.1", port });
    client.socket.pause();
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "gated" } });
    client.socket.write(
      `POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await vi.waitFor(() => expect(state.begun).toBe(1));
    // More than any socket buffers.
    open("x".repeat(9_000_000));
    expect(await secondsOf(handler.shutdown())).toBeLessThan(0.1 + 0.1 + 2);
    client.socket.resume();
    expect((await client.ended).length).toBeLessThan(9_000_000);
    expect(await isFree("127.0.0.1", port)).toBe(true);
    expect(await handler.healthCheck()).toMatchObject({ reason: "server_cancelled" });
  });

  it("ends within its limits where a source never closes", async () => {
    const log = recordingLogger();
    const folder = await contractsOf({ a: [] });
    const handler = await serve({ contracts_dir: folder.path }, { log });
    const close = vi.spyOn(ContractSource.prototype, "close").mockReturnValue(new Promise(() => undefined));
    try {
      expect(await secondsOf(handler.shutdown())).toBeLessThan(5 + 1 + 2);
    } finally {
      const source = close.mock.contexts[0] as ContractSource | undefined;
      close.mockRestore();
      await source?.close();
    }
    await handler.initialize(config());
  });

  it("ends where a source fails to close, and says so in the log", async () => {
    const log = recordingLogger();
    const folder = await contractsOf({ a: [] });
    const handler = await serve({ contracts_dir: folder.path }, { log });
    const port = portOf(handler);
    const close = vi.spyOn(ContractSource.prototype, "close").mockRejectedValue(new Error("disk on fire"));
    await handler.shutdown();
    const source = close.mock.contexts[0] as ContractSource | undefined;
    close.mockRestore();
    await source?.close();
    expect(log.lines.map((line) => line.message)).toContain("Stopping the MCP server: disk on fire");
    expect(await isFree("127.0.0.1", port)).toBe(true);
    await handler.initialize(config());
  });

  it("has limits that a subclass can override", async () => {
    class Hasty extends HandlerMCP {
      override shutdownTimeout = 0.05;
      override cancelTimeout = 0.05;
    }
    const handler = new Hasty();
    const { state, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    await handler.initialize(config());
    const call = request(handler, "tools/call", { name: "gated" });
    await vi.waitFor(() => expect(state.begun).toBe(1));
    expect(await secondsOf(handler.shutdown())).toBeLessThan(0.05 + 0.05 + 2);
    await call;
  });
});

describe("shutdown is safe", () => {
  it("on a handler that was never initialized", async () => {
    const handler = new HandlerMCP();
    await handler.shutdown();
    await handler.shutdown();
    await expect(handler.execute({ operation: "mcp.list_tools" })).rejects.toThrow("is not initialized");
  });

  it("on a handler whose start failed half-way", async () => {
    const folder = await contractsOf({ a: [] });
    const handler = makeHandler();
    const changes = { contracts_dir: folder.path, host: "192.0.2.1", allow_unauthenticated: true };
    await expect(handler.initialize(config(changes))).rejects.toThrow("MCP server startup failed");
    await handler.shutdown();
    await handler.initialize(config({ contracts_dir: folder.path }));
    expect(await listOverHttp(handler)).toEqual(["a"]);
  });

  it("again and at the same time: all wait for the one stop", async () => {
    const handler = await serve();
    const { state, open, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const answer = request(handler, "tools/call", { name: "gated" });
    await vi.waitFor(() => expect(state.begun).toBe(1));
    const ends: number[] = [];
    const stops = [1, 2, 3].map((number) => handler.shutdown().then(() => ends.push(number)));
    expect(await handler.healthCheck()).toMatchObject({ reason: "draining" });
    expect(ends).toEqual([]);
    open("finished");
    await Promise.all([answer, ...stops]);
    await handler.shutdown();
    expect(ends).toHaveLength(3);
  });

  it("at any step of a start: nothing is left running", async () => {
    for (let turns = 0; turns < 50; turns++) {
      const handler = makeHandler();
      const starting = handler.initialize({ skip_server: true }).catch(() => undefined);
      for (let turn = 0; turn < turns; turn++) await Promise.resolve();
      await handler.shutdown();
      await starting;
      expect(await handler.healthCheck(), `after ${turns} turns`).toMatchObject({ initialized: false });
    }
  });

  it("while shutting down, initialize is refused", async () => {
    const handler = await serve();
    const stopping = handler.shutdown();
    await expect(handler.initialize(config())).rejects.toThrow("HandlerMCP is shutting down");
    await stopping;
  });
});

describe("restart", () => {
  it("after a graceful stop serves again, with the tools of contracts and of code", async () => {
    const folder = await contractsOf({ from_file: [] });
    const handler = await serve({ contracts_dir: folder.path });
    handler.registerTool({ name: "from_code", description: "d" }, () => "here");
    await handler.shutdown();
    await handler.initialize(config({ contracts_dir: folder.path }));
    expect(await listOverHttp(handler)).toEqual(["from_code", "from_file"]);
    expect(await request(handler, "tools/call", { name: "from_code" })).toMatchObject({
      content: [{ text: "here" }],
    });
    expect(await handler.healthCheck()).toMatchObject({ healthy: true });
  });

  it("after a forced stop serves again and is healthy", async () => {
    const handler = await serve();
    handler.shutdownTimeout = 0.05;
    const { state, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const call = request(handler, "tools/call", { name: "gated" });
    await vi.waitFor(() => expect(state.begun).toBe(1));
    await handler.shutdown();
    await call;
    await handler.initialize(config());
    expect(await handler.healthCheck()).toMatchObject({ healthy: true });
    expect(await listOverHttp(handler)).toEqual(["gated"]);
  });

  it("on the same port is possible at once", async () => {
    const handler = await serve();
    const port = portOf(handler);
    await listOverHttp(handler);
    await handler.shutdown();
    await handler.initialize(config({ port }));
    expect(portOf(handler)).toBe(port);
    expect(await listOverHttp(handler)).toEqual([]);
  });

  it("may be with another configuration", async () => {
    const handler = await serve();
    await handler.shutdown();
    await handler.initialize({ skip_server: true });
    expect(handler.url).toBeUndefined();
    expect(await toolNames(handler)).toEqual([]);
  });
});

it("100 starts and stops leave no handle, timer or listener behind", async () => {
  const folder = await contractsOf({ a: [] });
  const log = recordingLogger();
  const handler = makeHandler({ log });
  const { definition, fn } = gatedTool({ heedsSignal: true });
  handler.registerTool(definition, fn);
  const cycle = async (): Promise<void> => {
    await handler.initialize(config({ contracts_dir: folder.path }));
    const stream = await openStream(handler, await openSession(handler));
    const ended = stream.text();
    expect(await listOverHttp(handler)).toEqual(["a", "gated"]);
    await handler.shutdown();
    await ended;
  };
  await cycle();
  const before = await heldBefore();
  const timers: (NodeJS.Timeout & { readonly _destroyed?: boolean })[] = [];
  for (const name of ["setTimeout", "setInterval"] as const) {
    const start = globalThis[name];
    vi.spyOn(globalThis, name).mockImplementation((...args: Parameters<typeof setTimeout>) => {
      const timer = start(...args);
      // The test's own client, Node's fetch, has timers too.
      if (new Error().stack?.includes("/undici") !== true) timers.push(timer);
      return timer;
    });
  }
  for (let count = 0; count < 100; count++) await cycle();
  vi.restoreAllMocks();
  expect(await heldMore(before)).toEqual({});
  expect(timers.length).toBeGreaterThan(100);
  // Also those that would not keep the process alive.
  expect(timers.filter((timer) => timer._destroyed !== true)).toEqual([]);
  expect(log.lines.filter(({ level }) => level === "warn" || level === "error")).toEqual([]);
}, 120_000);
