import { describe, expect, it, onTestFinished, vi } from "vitest";
import type { CallSignal } from "../../src/core/abort.ts";
import type { Clock } from "../../src/core/clock.ts";
import { textResult, type CallTool, type Principal } from "../../src/tools/call.ts";
import { catalogOf, makeTool } from "../support/tools.ts";
import { call, initialize, makeFront, openSession, send } from "./requests.ts";

describe("sessions", () => {
  it("a session of one principal does not exist for another", async () => {
    const front = makeFront(catalogOf());
    const id = await openSession(front);
    const other: Principal = { name: "other", role: "admin" };
    const response = await send(front, call(2, "ping"), {
      principal: other,
      headers: { "mcp-session-id": id },
    });
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ id: 2, error: { code: -32001 } });
  });

  it("DELETE ends a session, whose id is unknown from then on", async () => {
    const front = makeFront(catalogOf());
    const headers = { "mcp-session-id": await openSession(front) };
    const ended = await send(front, undefined, { method: "DELETE", headers });
    expect(ended.status).toBe(200);
    expect(front.sessionCount).toBe(0);
    expect((await send(front, call(2, "ping"), { headers })).status).toBe(404);
  });

  it("a forged or foreign session id is unknown", async () => {
    const front = makeFront(catalogOf());
    const id = await openSession(makeFront(catalogOf()));
    for (const forged of [id, "x", "a.b", `${id.split(".")[0] ?? ""}.`]) {
      expect((await send(front, call(2, "ping"), { headers: { "mcp-session-id": forged } })).status).toBe(
        404,
      );
    }
  });

  it("another replica with the same secret takes over a session it has never seen, in its revision", async () => {
    const sessions = { ttlSeconds: 60, max: 10, secret: "a shared secret of enough length" };
    const catalog = catalogOf(makeTool("a"));
    const first = makeFront(catalog, { sessions });
    const second = makeFront(catalog, { sessions });
    const headers = { "mcp-session-id": await openSession(first) };
    const answers = await Promise.all(
      [2, 3, 4].map((id) => send(second, call(id, "tools/list"), { headers })),
    );
    for (const answer of answers)
      expect(await answer.json()).toMatchObject({ result: { tools: [{ name: "a" }] } });
    expect(second.sessionCount).toBe(1);
  });

  it("a session without traffic ends after its time to live, and its id is unknown", async () => {
    let now = 0;
    const clock: Clock = { now: () => now };
    const front = makeFront(catalogOf(), { clock, sessions: { ttlSeconds: 10, max: 10 } });
    const headers = { "mcp-session-id": await openSession(front) };
    now = 10_000;
    await expect.poll(() => front.sessionCount, { timeout: 5000 }).toBe(0);
    expect((await send(front, call(2, "ping"), { headers })).status).toBe(404);
  });

  it("at the limit the session idle for longest gives way and can be taken up again", async () => {
    let now = 0;
    const clock: Clock = { now: () => now++ };
    const front = makeFront(catalogOf(), { clock, sessions: { ttlSeconds: 1000, max: 2 } });
    const first = await openSession(front);
    await openSession(front);
    await openSession(front);
    expect(front.sessionCount).toBe(2);
    const again = await send(front, call(2, "ping"), { headers: { "mcp-session-id": first } });
    expect(again.status).toBe(200);
    expect(front.sessionCount).toBe(2);
  });

  it("where every session has an open stream a new one is refused with 503 and Retry-After", async () => {
    const front = makeFront(catalogOf(), { sessions: { ttlSeconds: 1000, max: 1 } });
    const headers = { "mcp-session-id": await openSession(front) };
    const stream = await send(front, undefined, { method: "GET", headers });
    const refused = await send(front, initialize("2025-11-25"));
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).toBe("5");
    await stream.body?.cancel();
    expect((await send(front, initialize("2025-11-25"))).status).toBe(200);
  });

  it("a session whose stream was closed by its client ends like any other", async () => {
    let now = 0;
    const front = makeFront(catalogOf(), {
      clock: { now: () => now },
      sessions: { ttlSeconds: 10, max: 10 },
    });
    const headers = { "mcp-session-id": await openSession(front) };
    const stream = await send(front, undefined, { method: "GET", headers });
    await stream.body?.cancel();
    now = 10_000;
    await expect.poll(() => front.sessionCount, { timeout: 5000 }).toBe(0);
  });

  it("sessions opened at the same moment stay within the limit", async () => {
    const front = makeFront(catalogOf(), { sessions: { ttlSeconds: 60, max: 3 } });
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => send(front, initialize("2025-11-25"))),
    );
    expect(front.sessionCount).toBe(3);
    expect(answers.filter(({ status }) => status === 503)).toHaveLength(7);
  });

  it("sessions taken over at the same moment stay within the limit", async () => {
    const secret = "a shared secret of enough length";
    const catalog = catalogOf();
    const first = makeFront(catalog, { sessions: { ttlSeconds: 60, max: 10, secret } });
    const second = makeFront(catalog, { sessions: { ttlSeconds: 60, max: 2, secret } });
    const ids = [await openSession(first), await openSession(first), await openSession(first)];
    const answers = await Promise.all(
      ids.map((id) => send(second, call(1, "ping"), { headers: { "mcp-session-id": id } })),
    );
    expect(second.sessionCount).toBe(2);
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 503]);
  });

  it("a refused initialize leaves no session behind", async () => {
    const front = makeFront(catalogOf());
    const refused = await send(front, initialize("2025-11-25"), {
      headers: { "content-type": "text/plain" },
    });
    expect([refused.status, ((await refused.json()) as any).id]).toEqual([415, 1]);
    expect(front.sessionCount).toBe(0);
  });

  it("an ended session does not come back under another spelling of its id", async () => {
    const front = makeFront(catalogOf());
    const id = await openSession(front);
    await send(front, undefined, { method: "DELETE", headers: { "mcp-session-id": id } });
    for (const spelling of [`${id}=`, `${id}==`, id.replace(".", "=."), `${id}!`]) {
      const answer = await send(front, call(2, "ping"), { headers: { "mcp-session-id": spelling } });
      expect(answer.status).toBe(404);
    }
  });

  it("DELETE needs no room: a session that lives elsewhere is refused here from then on", async () => {
    const secret = "a shared secret of enough length";
    const first = makeFront(catalogOf(), { sessions: { ttlSeconds: 60, max: 10, secret } });
    const second = makeFront(catalogOf(), { sessions: { ttlSeconds: 60, max: 1, secret } });
    const busy = { "mcp-session-id": await openSession(second) };
    await send(second, undefined, { method: "GET", headers: busy });
    const headers = { "mcp-session-id": await openSession(first) };
    expect((await send(second, undefined, { method: "DELETE", headers })).status).toBe(200);
    expect((await send(second, undefined, { method: "DELETE", headers })).status).toBe(404);
    expect((await send(second, call(2, "ping"), { headers })).status).toBe(404);
    const wrong = { ...busy, "mcp-protocol-version": "1.0" };
    expect((await send(second, undefined, { method: "DELETE", headers: wrong })).status).toBe(400);
    expect(second.sessionCount).toBe(1);
  });

  it("an id older than a day is not taken over", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    onTestFinished(() => void vi.useRealTimers());
    const sessions = { ttlSeconds: 60, max: 10, secret: "a shared secret of enough length" };
    const first = makeFront(catalogOf(), { sessions });
    const headers = { "mcp-session-id": await openSession(first) };
    vi.setSystemTime(Date.now() + 24 * 3600 * 1000 + 1000);
    expect((await send(makeFront(catalogOf(), { sessions }), call(2, "ping"), { headers })).status).toBe(404);
    expect((await send(first, call(2, "ping"), { headers })).status).toBe(200);
  });

  it("a front that closes while it takes a session over keeps none", async () => {
    const sessions = { ttlSeconds: 60, max: 10, secret: "a shared secret of enough length" };
    const headers = { "mcp-session-id": await openSession(makeFront(catalogOf(), { sessions })) };
    const front = makeFront(catalogOf(), { sessions });
    const answer = send(front, call(2, "ping"), { headers });
    await front.close();
    expect((await answer).ok).toBe(false);
    expect(front.sessionCount).toBe(0);
  });
});

/** A tool that waits until it is let go or aborted. */
function waitingTool() {
  const calls: { readonly signal: CallSignal; readonly answer: (text: string) => void }[] = [];
  const run: CallTool = (_, signal) =>
    new Promise((settle) => {
      const answer = (text: string): void => settle(textResult(text));
      signal.addEventListener("abort", () => answer("aborted"));
      calls.push({ signal, answer });
    });
  const started = (count: number) => expect.poll(() => calls.length).toBe(count);
  return { calls, run, started };
}

const cancelled = (requestId: unknown) => ({
  jsonrpc: "2.0",
  method: "notifications/cancelled",
  params: { requestId },
});

describe("requests of a session", () => {
  it("an id that waits for its answer is refused to a second request, and free again afterwards", async () => {
    const { calls, run, started } = waitingTool();
    const front = makeFront(catalogOf(makeTool("a")), { call: run });
    const headers = { "mcp-session-id": await openSession(front) };
    const request = call(5, "tools/call", { name: "a" });
    const first = send(front, request, { headers });
    await started(1);
    const second = await send(front, request, { headers });
    expect(second.status).toBe(400);
    expect(await second.json()).toMatchObject({ id: 5, error: { code: -32600 } });
    calls[0]?.answer("first");
    expect(await (await first).json()).toMatchObject({ id: 5, result: { content: [{ text: "first" }] } });
    expect((await send(front, call(5, "ping"), { headers })).status).toBe(200);
  });

  it("a batch cannot use one id twice", async () => {
    const front = makeFront(catalogOf());
    const headers = { "mcp-session-id": await openSession(front) };
    const refused = await send(front, [call(1, "ping"), call(1, "ping")], { headers });
    expect(await refused.json()).toMatchObject({ id: 1, error: { code: -32600 } });
    expect((await send(front, call(1, "ping"), { headers })).status).toBe(200);
  });

  it("a request that was refused leaves its id free", async () => {
    const front = makeFront(catalogOf());
    const headers = { "mcp-session-id": await openSession(front) };
    const wrong = { ...headers, "mcp-protocol-version": "2024-01-01" };
    expect((await send(front, call(1, "ping"), { headers: wrong })).status).toBe(400);
    expect((await send(front, call(1, "ping"), { headers })).status).toBe(200);
  });

  it("a cancelled call is aborted, and its answer ends without a response", async () => {
    const { calls, run, started } = waitingTool();
    const front = makeFront(catalogOf(makeTool("a")), { call: run });
    const headers = { "mcp-session-id": await openSession(front) };
    const answer = send(front, call(5, "tools/call", { name: "a" }), { headers });
    await started(1);
    expect((await send(front, cancelled(5), { headers })).status).toBe(202);
    expect(calls[0]?.signal.aborted).toBe(true);
    expect(await (await answer).text()).toBe("");
    expect((await send(front, call(5, "ping"), { headers })).status).toBe(200);
  });

  it("cancelling one request of a batch leaves the others their answers", async () => {
    const { run, started } = waitingTool();
    const front = makeFront(catalogOf(makeTool("a")), { call: run });
    const headers = { "mcp-session-id": await openSession(front) };
    const answer = send(front, [call(5, "tools/call", { name: "a" }), call(6, "ping")], { headers });
    await started(1);
    await send(front, cancelled(5), { headers });
    expect(await (await answer).json()).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ id: 6, result: {} }),
        expect.objectContaining({ id: 5, error: expect.objectContaining({ code: -32800 }) }),
      ]),
    );
  });

  it("a cancellation of an unknown or an answered request is accepted and ignored", async () => {
    const front = makeFront(catalogOf(makeTool("a")));
    const headers = { "mcp-session-id": await openSession(front) };
    await (await send(front, call(5, "ping"), { headers })).text();
    for (const id of [5, 77, "x", null, {}])
      expect((await send(front, cancelled(id), { headers })).status).toBe(202);
    expect((await send(front, call(5, "ping"), { headers })).status).toBe(200);
  });

  it("a call whose client has gone goes on, and its session does not give way meanwhile", async () => {
    const { calls, run, started } = waitingTool();
    const front = makeFront(catalogOf(makeTool("a")), {
      call: run,
      jsonResponse: false,
      sessions: { ttlSeconds: 60, max: 1 },
    });
    const headers = { "mcp-session-id": await openSession(front) };
    const answer = await send(front, call(5, "tools/call", { name: "a" }), { headers });
    await started(1);
    await answer.body?.cancel();
    expect((await send(front, initialize("2025-11-25"))).status).toBe(503);
    expect(calls[0]?.signal.aborted).toBe(false);
    calls[0]?.answer("done");
    await expect.poll(async () => (await send(front, initialize("2025-11-25"))).status).toBe(200);
  });

  it("the end of a session aborts its calls", async () => {
    const { calls, run, started } = waitingTool();
    const front = makeFront(catalogOf(makeTool("a")), { call: run });
    const headers = { "mcp-session-id": await openSession(front) };
    const answer = send(front, call(5, "tools/call", { name: "a" }), { headers });
    await started(1);
    await send(front, undefined, { method: "DELETE", headers });
    expect(calls[0]?.signal.aborted).toBe(true);
    expect(await (await answer).text()).toBe("");
  });

  it("the level of logging/setLevel is the session's own, and an unknown one is -32602", async () => {
    const logging: CallTool = async ({ onLog }) => {
      onLog?.("info", "quiet");
      onLog?.("error", "loud");
      return textResult("done");
    };
    const front = makeFront(catalogOf(makeTool("a")), { call: logging });
    const strict = { "mcp-session-id": await openSession(front) };
    const other = { "mcp-session-id": await openSession(front) };
    const refused = await send(front, call(2, "logging/setLevel", { level: "shout" }), { headers: strict });
    expect(await refused.json()).toMatchObject({ id: 2, error: { code: -32602 } });
    await send(front, call(3, "logging/setLevel", { level: "error" }), { headers: strict });
    const logged = async (headers: Record<string, string>): Promise<string> =>
      (await send(front, call(4, "tools/call", { name: "a" }), { headers })).text();
    expect(await logged(strict)).not.toContain("quiet");
    expect(await logged(strict)).toContain("loud");
    expect(await logged(other)).toContain("quiet");
  });
});
