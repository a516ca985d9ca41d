import type { RequestListener } from "node:http";
import { Server } from "node:net";
import { afterEach, expect, it, vi } from "vitest";
import { InfraTimeoutError, ProtocolConfigurationError } from "../../src/index.ts";
import { ContractSource } from "../../src/discovery/contracts.ts";
import { HandlerMCP } from "../../src/handlers/mcp.ts";
import { config, contractsOf, heldBefore, heldMore, isFree, listOverHttp, makeHandler } from "./mcp.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

/** From now on a stranger answers on every port that is bound; the ports. */
function strangersAnswer(answer: RequestListener): { readonly ports: number[]; readonly requests: string[] } {
  const seen = { ports: [] as number[], requests: [] as string[] };
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with the server it is for
  const listen = Server.prototype.listen;
  vi.spyOn(Server.prototype, "listen").mockImplementation(function (this: Server, ...args: unknown[]) {
    this.removeAllListeners("request");
    this.on("request", (request, response) => {
      seen.requests.push(request.url);
      answer(request, response);
    });
    this.once("listening", () => seen.ports.push((this.address() as { port: number }).port));
    return Reflect.apply(listen, this, args) as Server;
  } as typeof Server.prototype.listen);
  return seen;
}

const strangers: readonly (readonly [string, RequestListener, RegExp])[] = [
  ["never answers", () => undefined, /no answer came$/],
  [
    "answers as ours would, without the proof",
    (_request, response) => response.end('{"status":"healthy","initialized":true}'),
    /another server answers there \(status 200, no valid proof\)$/,
  ],
  [
    "echoes what it is sent",
    (request, response) => {
      const nonce = request.headers["x-onex-readiness"] ?? "";
      response.setHeader("x-onex-readiness", nonce).end();
    },
    /another server answers there/,
  ],
  [
    "begins an answer and never ends it",
    (_request, response) => {
      response.writeHead(200);
      response.write("{");
    },
    /another server answers there/,
  ],
];

it.each(strangers)(
  "a server that %s is not taken for ours: the start fails and is undone",
  async (_what, answer, why) => {
    const folder = await contractsOf({ a: [] });
    const handler = makeHandler();
    handler.startupTimeout = 0.2;
    const before = await heldBefore();
    const { ports } = strangersAnswer(answer);
    const error: unknown = await handler
      .initialize(config({ contracts_dir: folder.path }))
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ProtocolConfigurationError);
    const { message, cause } = error as ProtocolConfigurationError;
    expect(message).toMatch(
      /^MCP server startup failed: http:\/\/127\.0\.0\.1:\d+\/health did not prove ready within 200 ms: /,
    );
    expect(message).toMatch(why);
    expect(cause).toBeInstanceOf(InfraTimeoutError);
    vi.restoreAllMocks();

    expect(await isFree("127.0.0.1", ports[0]!)).toBe(true);
    expect(await heldMore(before)).toEqual({});
    expect([handler.url, handler.gateway]).toEqual([undefined, undefined]);
    expect(await handler.healthCheck()).toMatchObject({ healthy: false, reason: "not_initialized" });

    handler.startupTimeout = 2;
    await handler.initialize(config({ contracts_dir: folder.path }));
    expect(await listOverHttp(handler)).toEqual(["a"]);
  },
);

it("readiness is asked again and again until the limit", async () => {
  const handler = makeHandler();
  handler.startupTimeout = 1;
  const { requests } = strangersAnswer((_request, response) => response.writeHead(503).end());
  await expect(handler.initialize(config())).rejects.toThrow("MCP server startup failed");
  expect(requests.length).toBeGreaterThan(3);
});

it("startupTimeout is 2 s and can be overridden by a subclass", async () => {
  expect(new HandlerMCP().startupTimeout).toBe(2);
  class Impatient extends HandlerMCP {
    override startupTimeout = 0.1;
  }
  strangersAnswer(() => undefined);
  await expect(new Impatient().initialize(config())).rejects.toThrow("did not prove ready within 100 ms");
});

it("shutdown ends a start that waits for readiness, and everything is undone", async () => {
  const before = await heldBefore();
  const handler = makeHandler();
  handler.startupTimeout = 300;
  const { ports, requests } = strangersAnswer(() => undefined);
  const start = handler.initialize(config()).catch((thrown: unknown) => thrown);
  await vi.waitFor(() => expect(requests).toHaveLength(1));
  const health = await handler.healthCheck();
  expect(health).toMatchObject({ healthy: false, reason: "server_task_missing", initialized: false });
  await handler.shutdown();
  expect(await start).toMatchObject({
    message: "MCP server startup failed: shutdown was called during the start",
  });
  vi.restoreAllMocks();
  expect(await isFree("127.0.0.1", ports[0]!)).toBe(true);
  expect(await heldMore(before)).toEqual({});
  await handler.initialize(config());
});

it("shutdown ends a start that is still reading contracts", async () => {
  const folder = await contractsOf({ a: [] });
  const handler = makeHandler();
  const start = handler.initialize(config({ contracts_dir: folder.path })).catch((thrown: unknown) => thrown);
  await handler.shutdown();
  expect(await start).toBeInstanceOf(ProtocolConfigurationError);
  expect(await handler.healthCheck()).toMatchObject({ reason: "not_initialized", tool_count: 0 });
  await handler.initialize(config({ contracts_dir: folder.path }));
  expect(await listOverHttp(handler)).toEqual(["a"]);
});

it("shutdown ends a start whose source never gets to a first state", async () => {
  const start = vi
    .spyOn(ContractSource.prototype, "start")
    .mockReturnValue(new Promise<void>(() => undefined));
  const handler = makeHandler();
  const starting = handler
    .initialize(config({ contracts_dir: "/never/read" }))
    .catch((thrown: unknown) => thrown);
  await vi.waitFor(() => expect(start).toHaveBeenCalled());
  await handler.shutdown();
  expect(await starting).toMatchObject({
    message: "MCP server startup failed: shutdown was called during the start",
  });
});

it("requests that come before the start has proved ready are told to come again", async () => {
  const { promise: release, resolve } = Promise.withResolvers<undefined>();
  const handler = makeHandler();
  const early: { status?: number; retryAfter?: string | null } = {};
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with the server it is for
  const emit = Server.prototype.emit;
  vi.spyOn(Server.prototype, "emit").mockImplementation(function (
    this: Server,
    name: string,
    ...args: any[]
  ) {
    const isProbe = name === "request" && args[0].headers["x-onex-readiness"] !== undefined;
    if (!isProbe) return Reflect.apply(emit, this, [name, ...args]) as boolean;
    void release.then(() => Reflect.apply(emit, this, [name, ...args]) as unknown);
    return true;
  });
  const start = handler.initialize(config());
  await vi.waitFor(() => expect(handler.endpoint).toBeDefined());
  const response = await fetch(handler.endpoint!, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "ping" }),
  });
  early.status = response.status;
  early.retryAfter = response.headers.get("retry-after");
  resolve(undefined);
  await start;
  expect(early).toEqual({ status: 503, retryAfter: "1" });
});
