import { PassThrough } from "node:stream";
import { createInterface } from "node:readline";
import { expect, it, onTestFinished } from "vitest";
import { silentLogger } from "../../src/core/log.ts";
import { serveOverStdio, type StdioConnection } from "../../src/mcp/stdio.ts";
import { textResult, type CallTool } from "../../src/tools/call.ts";
import { catalogOf, makeTool, put } from "../support/tools.ts";

interface Client {
  readonly connection: StdioConnection;
  readonly catalog: ReturnType<typeof catalogOf>;
  readonly received: { id?: unknown; method?: string; params?: any; result?: any; error?: any }[];
  readonly stdin: PassThrough;
  readonly stdout: PassThrough;
  send(message: object): void;
  answer(id: unknown): Promise<any>;
  /** Of the catalog. */
  listeners(): number;
}

function serve(call: CallTool = async () => textResult("done")): Client {
  const catalog = catalogOf(makeTool("a"));
  let listeners = 0;
  const stdin = new PassThrough();
  const stdout = new PassThrough();
  const connection = serveOverStdio({
    info: { name: "test", version: "1.0.0" },
    snapshot: () => catalog.snapshot(),
    onChange: (listener) => {
      listeners += 1;
      const stop = catalog.onChange(listener);
      return () => {
        listeners -= 1;
        stop();
      };
    },
    call,
    pageSize: 100,
    cacheScope: "private",
    log: silentLogger,
    stdin,
    stdout,
  });
  onTestFinished(() => connection.close());
  const received: Client["received"] = [];
  createInterface({ input: stdout })
    .on("line", (line) => received.push(JSON.parse(line)))
    .on("error", () => undefined);
  const answer = async (id: unknown): Promise<any> => {
    await expect.poll(() => received.some((message) => message.id === id)).toBe(true);
    return received.find((message) => message.id === id);
  };
  const send = (message: object): void => {
    stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
  };
  return { connection, catalog, received, stdin, stdout, send, answer, listeners: () => listeners };
}

async function initialized(client: Client): Promise<void> {
  const params = { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "t", version: "1" } };
  client.send({ id: "init", method: "initialize", params });
  await client.answer("init");
  client.send({ method: "notifications/initialized" });
}

const modernMeta = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientCapabilities": {},
};
const changes = (client: Client) =>
  client.received.filter(({ method }) => method === "notifications/tools/list_changed");

it("an older client is told of changed tools once per change", async () => {
  const client = serve();
  await initialized(client);
  put(client.catalog, makeTool("b"), makeTool("c"));
  client.send({ id: 1, method: "tools/list" });
  expect((await client.answer(1)).result.tools).toHaveLength(3);
  expect(changes(client)).toHaveLength(1);
});

it("a client of 2026-07-28 is told of changed tools where it listens, and nowhere else", async () => {
  const client = serve();
  client.send({ id: 1, method: "server/discover", params: { _meta: modernMeta } });
  expect((await client.answer(1)).result.supportedVersions).toEqual(["2026-07-28"]);
  client.send({ id: 2, method: "tools/list", params: { _meta: modernMeta } });
  await client.answer(2);
  put(client.catalog, makeTool("b"));
  client.send({
    id: "sub",
    method: "subscriptions/listen",
    params: { notifications: { toolsListChanged: true }, _meta: modernMeta },
  });
  await expect.poll(() => client.received.at(-1)?.method).toBe("notifications/subscriptions/acknowledged");
  put(client.catalog, makeTool("c"));
  await expect.poll(() => changes(client).length).toBe(1);
  expect(changes(client)[0]?.params._meta["io.modelcontextprotocol/subscriptionId"]).toBe("sub");
});

it.each(["older", "2026-07-28"])(
  "%s: a cancelled call is aborted, not answered, and says nothing more",
  async (era) => {
    const { promise: aborted, resolve } = Promise.withResolvers<undefined>();
    const client = serve((call, signal) => {
      call.onProgress?.({ done: 1 });
      return new Promise((settle) => {
        signal.addEventListener("abort", () => {
          call.onProgress?.({ done: 2 });
          settle(textResult("late"));
          resolve(undefined);
        });
      });
    });
    if (era === "older") await initialized(client);
    const meta = era === "older" ? {} : modernMeta;
    client.send({
      id: 5,
      method: "tools/call",
      params: { name: "a", _meta: { ...meta, progressToken: "p" } },
    });
    await expect.poll(() => client.received.at(-1)?.params?.progress).toBe(1);
    client.send({ method: "notifications/cancelled", params: { requestId: 5, _meta: meta } });
    await aborted;
    client.send({ id: 6, method: "tools/list", params: { _meta: meta } });
    await client.answer(6);
    expect(client.received.filter(({ id }) => id === 5)).toEqual([]);
    expect(client.received.filter(({ params }) => params?.progress === 2)).toEqual([]);
  },
);

it("progress that a tool reports after its answer is not sent", async () => {
  const { promise: reported, resolve } = Promise.withResolvers<undefined>();
  const client = serve(async (call) => {
    setImmediate(() => {
      call.onProgress?.({ done: 1 });
      call.onLog?.("error", "late");
      resolve(undefined);
    });
    return textResult("done");
  });
  await initialized(client);
  client.send({ id: 5, method: "tools/call", params: { name: "a", _meta: { progressToken: 1 } } });
  await client.answer(5);
  await reported;
  client.send({ id: 6, method: "ping" });
  await client.answer(6);
  expect(client.received.map(({ id, method }) => id ?? method)).toEqual(["init", 5, 6]);
});

it("a line that is no message is passed over", async () => {
  const client = serve();
  client.stdin.write('not JSON\n{"jsonrpc":"2.0"}\n\n');
  await initialized(client);
  client.send({ id: 1, method: "ping" });
  expect((await client.answer(1)).result).toEqual({});
});

it.each([
  ["its input ends", (client: Client) => client.stdin.end()],
  ["it can no longer be written to", (client: Client) => client.stdout.destroy(new Error("EPIPE"))],
  ["it sends a line that never ends", (client: Client) => client.stdin.write("x".repeat(11 * 1024 * 1024))],
])("the connection is over when %s", async (_, end) => {
  const { promise: aborted, resolve } = Promise.withResolvers<string>();
  const { promise: running, resolve: started } = Promise.withResolvers<undefined>();
  const client = serve((_call, signal) => {
    started(undefined);
    return new Promise((settle) => {
      signal.addEventListener("abort", () => {
        resolve("aborted");
        settle(textResult("late"));
      });
    });
  });
  await initialized(client);
  client.send({ id: 5, method: "tools/call", params: { name: "a" } });
  await running;
  end(client);
  await client.connection.closed;
  expect(await aborted).toBe("aborted");
  expect(client.listeners()).toBe(0);
});

it("a line that is no message is answered over stdio as it is over HTTP, and the next one is served", async () => {
  const client = serve();
  client.stdin.write('garbage\n{"jsonrpc":"2.0","id":9,"method":5}\n\n{"jsonrpc":"2.0","id":');
  client.stdin.write('"half","method":"tools/list","params":{}}\n');
  await initialized(client);
  expect(client.received).toContainEqual({
    jsonrpc: "2.0",
    id: null,
    error: expect.objectContaining({ code: -32700 }),
  });
  expect(client.received).toContainEqual({
    jsonrpc: "2.0",
    id: 9,
    error: expect.objectContaining({ code: -32600 }),
  });
  expect(await client.answer("half")).toMatchObject({ result: { tools: [{ name: "a" }] } });
});
