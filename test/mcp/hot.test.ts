import { connect } from "node:net";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { monotonicClock, type Clock } from "../../src/core/clock.ts";
import { Gateway } from "../../src/gateway.ts";
import { listen } from "../../src/http/server.ts";
import type { ToolExecutor } from "../../src/tools/call.ts";
import { Catalog } from "../../src/tools/catalog.ts";
import { service } from "../execution/helpers.ts";
import { collectingLog } from "../support/log.ts";
import { makeTool, put } from "../support/tools.ts";
import { gatewayOptions } from "./gateway-options.ts";
import { call, initialize } from "./requests.ts";

interface Changes {
  readonly clock?: Clock;
  readonly apiKey?: string;
  readonly executor?: ToolExecutor;
}

/** A gateway with one tool, whose service answers when it is told to. */
async function running(changes: Changes = {}) {
  const waiting: { readonly answer: (text: string) => void; readonly gone: Promise<void> }[] = [];
  const backend = await service((_request, response) => {
    const gone = new Promise<void>((resolve) => response.once("close", resolve));
    waiting.push({
      gone,
      answer: (text) => response.writeHead(200, { "content-type": "application/json" }).end(text),
    });
  });
  const registry = new Catalog({ maxTools: 100 });
  put(
    registry,
    makeTool("slow", { execution: { kind: "rest", method: "POST", url: `${backend.origin}/slow` } }),
  );
  const { log, lines } = collectingLog();
  const apiKeys =
    changes.apiKey === undefined ? [] : [{ name: "one", role: "user", key: changes.apiKey } as const];
  const gateway = new Gateway(
    { ...gatewayOptions, apiKeys },
    {
      registry,
      ...(changes.executor && { executor: changes.executor }),
      env: {},
      log,
      clock: changes.clock ?? monotonicClock,
    },
  );
  const surface = gateway.surface("token", { initialized: () => true, draining: () => false });
  const fetch = vi.fn(surface.fetch);
  const server = await listen({ host: "127.0.0.1", port: 0, ...surface, fetch });
  onTestFinished(async () => {
    await server.destroy(new Error("over"));
    await gateway.destroy(new Error("over"));
  });
  const post = (message: unknown, headers: Record<string, string> = {}, signal?: AbortSignal) =>
    globalThis.fetch(`${server.url}/mcp`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        ...headers,
      },
      body: JSON.stringify(message),
      ...(signal !== undefined && { signal }),
    });
  const openSession = async () => {
    const response = await post(initialize("2025-11-25"));
    await response.text();
    return { "mcp-session-id": response.headers.get("mcp-session-id") ?? "" };
  };
  const started = async (count: number) => {
    await expect.poll(() => waiting.length).toBe(count);
    const last = waiting[count - 1];
    if (last === undefined) throw new Error("no request came");
    return last;
  };
  return { server, gateway, fetch, post, openSession, started, lines };
}

const slow = (id: number | string) => call(id, "tools/call", { name: "slow", arguments: {} });

describe("a plain call", () => {
  it("is answered without the SDK", async () => {
    const { post, started, fetch } = await running();
    const answer = post(slow(1));
    (await started(1)).answer('{"a":1}');
    expect(await (await answer).json()).toEqual({
      jsonrpc: "2.0",
      id: 1,
      result: { content: [{ type: "text", text: '{"a":1}' }], structuredContent: { a: 1 } },
    });
    expect(fetch).not.toHaveBeenCalled();
  });

  it("whose client goes is ended at the service", async () => {
    const { post, started } = await running();
    const leaving = new AbortController();
    const answer = post(slow(1), {}, leaving.signal);
    const request = await started(1);
    leaving.abort();
    await expect(answer).rejects.toThrow();
    await request.gone;
  });

  it("of a session goes on when its client goes, and holds its id", async () => {
    const { post, openSession, started } = await running();
    const session = await openSession();
    const leaving = new AbortController();
    const answer = post(slow(1), session, leaving.signal);
    const request = await started(1);
    leaving.abort();
    await expect(answer).rejects.toThrow();
    expect((await post(slow(1), session)).status).toBe(400);
    request.answer("{}");
    await request.gone;
    const again = post(slow(1), session);
    (await started(2)).answer("{}");
    expect((await again).status).toBe(200);
  });

  it("of a session that is cancelled is ended at the service, and has no answer", async () => {
    const { post, openSession, started } = await running();
    const session = await openSession();
    const answer = post(slow("x"), session);
    const request = await started(1);
    const cancelled = { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: "x" } };
    expect((await post(cancelled, session)).status).toBe(202);
    await request.gone;
    const response = await answer;
    expect([response.status, await response.text()]).toEqual([200, ""]);
  });

  it("is ended with its session", async () => {
    const { server, post, openSession, started } = await running();
    const session = await openSession();
    const answer = post(slow(1), session);
    const request = await started(1);
    await globalThis.fetch(`${server.url}/mcp`, { method: "DELETE", headers: session });
    await request.gone;
    expect(await (await answer).text()).toBe("");
  });

  it("is waited for by a stop", async () => {
    const { gateway, post, started } = await running();
    const answer = post(slow(1));
    const request = await started(1);
    let isDrained = false;
    const drained = gateway.drain().then(() => (isDrained = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(isDrained).toBe(false);
    request.answer("{}");
    expect((await answer).status).toBe(200);
    await drained;
  });

  it("that takes long becomes a stream which is kept alive, in one line whatever the service wrote", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    onTestFinished(() => void vi.useRealTimers());
    let now = 0;
    const { post, started } = await running({ clock: { now: () => now } });
    const streamed = post(slow(1));
    const first = await started(1);
    const plain = post(slow(2), { accept: "application/json" });
    const second = await started(2);
    now = 14_000;
    vi.advanceTimersByTime(14_000);
    now = 20_000;
    vi.advanceTimersByTime(6_000);
    for (const request of [first, second]) request.answer('{"a":\n1}');
    const [stream, json] = await Promise.all([streamed, plain]);
    expect(stream.headers.get("content-type")).toBe("text/event-stream");
    const frames = (await stream.text()).split("\n\n");
    expect(frames[0]).toBe(": keepalive");
    expect(frames[1]).toMatch(/^event: message\ndata: \{.*"structuredContent":\{"a": ?1\}.*\}$/);
    // Its client takes no stream.
    expect(json.headers.get("content-type")).toBe("application/json");
    expect(await json.json()).toMatchObject({ result: { structuredContent: { a: 1 } } });
  });

  it("comes in pieces as well as in one", async () => {
    const { server, started } = await running();
    const socket = connect(server.port, server.host);
    onTestFinished(() => void socket.destroy());
    const body = JSON.stringify(slow(1));
    const head = `POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n`;
    socket.write(head);
    for (const piece of [body.slice(0, 10), body.slice(10, 11), body.slice(11)]) {
      await new Promise((resolve) => socket.write(piece, resolve));
      await new Promise((resolve) => setImmediate(resolve));
    }
    const received = new Promise<string>((resolve) =>
      socket.once("data", (data) => resolve(data.toString())),
    );
    (await started(1)).answer("{}");
    expect(await received).toMatch(/^HTTP\/1\.1 200 OK/);
  });

  it("with a body of unknown length is answered by the whole surface", async () => {
    const { server, started, fetch } = await running();
    const socket = connect(server.port, server.host);
    onTestFinished(() => void socket.destroy());
    const body = JSON.stringify(slow(1));
    const head =
      "POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked";
    socket.write(`${head}\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`);
    const received = new Promise<string>((resolve) =>
      socket.once("data", (data) => resolve(data.toString())),
    );
    (await started(1)).answer("{}");
    expect(await received).toMatch(/^HTTP\/1\.1 200 OK/);
    expect(fetch).toHaveBeenCalledOnce();
  });

  it("with two different keys is refused, also where Node would keep the first alone", async () => {
    const { server } = await running({ apiKey: "right" });
    const socket = connect(server.port, server.host);
    onTestFinished(() => void socket.destroy());
    const body = JSON.stringify(call(1, "tools/list"));
    const keys = "authorization: Bearer right\r\nauthorization: Bearer wrong";
    socket.write(
      `POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n${keys}\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    const received = new Promise<string>((resolve) =>
      socket.once("data", (data) => resolve(data.toString())),
    );
    expect(await received).toMatch(/^HTTP\/1\.1 401 /);
  });

  it("of an executor that keeps no promise is an internal error", async () => {
    const broken = { call: () => Promise.resolve(undefined as never) };
    const { post } = await running({ executor: broken });
    const answer = await post(slow(1));
    expect(await answer.json()).toMatchObject({ id: 1, error: { code: -32603, message: "Internal error" } });
  });

  it("without a valid key is refused, and audited once", async () => {
    const { post, lines } = await running({ apiKey: "right" });
    const response = await post(slow(1), { "x-api-key": "wrong" });
    expect(response.status).toBe(401);
    expect(lines.filter(({ fields }) => fields["event"] === "authentication_failure")).toHaveLength(1);
  });
});
