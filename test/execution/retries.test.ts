import { describe, expect, test, vi } from "vitest";
import { InfraUnavailableError } from "../../src/core/errors.ts";
import type { ExecutorOptions } from "../../src/execution/executor.ts";
import type { ToolAnnotations } from "../../src/tools/tool.ts";
import { collectingLog } from "../support/log.ts";
import {
  callOf,
  deadOrigin,
  executorOf,
  json,
  never,
  once,
  onex,
  rest,
  served,
  service,
  showing,
  textOf,
  toolOf,
  type Reply,
} from "./helpers.ts";

const status =
  (code: number, headers: Record<string, string> = {}): Reply =>
  (_request, response) =>
    void response.writeHead(code, headers).end();
const answer: Reply = (_request, response) => json(response, "answer");
const hangUp: Reply = (_request, _response, raw) => raw.socket.destroy();
const halfAnAnswer: Reply = (_request, response, raw) => {
  response.writeHead(200, { "content-type": "text/plain", "content-length": "100" });
  response.write("part", () => raw.socket.destroy());
};

/** A tool of one instance that replies in turn, the last reply again and again; and what a call of it came to. */
async function outcomeOf(
  replies: readonly Reply[],
  annotations: ToolAnnotations,
  options: Partial<ExecutorOptions> = {},
) {
  const { log, lines } = collectingLog();
  let n = 0;
  const { origin, requests } = await service((...args) =>
    replies[Math.min(n++, replies.length - 1)]!(...args),
  );
  const executor = executorOf([onex(origin, "/run", { annotations })], { log, ...options });
  const result = await executor.call(callOf(), never);
  return { result, requests, executor, origin, waits: waitsIn(lines), last: lines.at(-1) };
}

/** Milliseconds of each wait, as logged. */
const waitsIn = (lines: ReturnType<typeof collectingLog>["lines"]) =>
  lines.flatMap(({ level, fields }) =>
    level === "debug" && "after_ms" in fields ? [Number(fields.after_ms)] : [],
  );

const readOnly = { readOnly: true };
const idempotent = { idempotent: true };

describe("a call of a tool that may be repeated", () => {
  test.each<[string, Reply]>([
    ["a 500", status(500)],
    ["a 503", status(503)],
    ["a 408", status(408)],
    ["a 429", status(429)],
    ["a connection that is lost before the answer", hangUp],
    ["half an answer", halfAnAnswer],
  ])("is repeated after %s, and its result says how many attempts it took", async (_title, reply) => {
    for (const annotations of [readOnly, idempotent]) {
      const { result, requests } = await outcomeOf([reply, reply, answer], annotations);
      expect(textOf(result)).toBe("answer");
      expect(result.meta).toEqual({ "onex-runtime/attempts": 3 });
      expect(requests).toHaveLength(3);
    }
  });

  test("has four attempts; then the failure is the answer, and says so", async () => {
    const { result, requests, executor, origin, waits, last } = await outcomeOf([status(500)], readOnly);
    expect(requests).toHaveLength(4);
    expect(textOf(result)).toContain("failed (500");
    expect(result.meta).toEqual({ "onex-runtime/attempts": 4 });
    expect(result.failure?.facts).toMatchObject({ attempts: 4, status: 500 });
    expect(waits).toHaveLength(3);
    expect(last).toMatchObject({ level: "warn", fields: { attempts: 4, correlation_id: "corr-1" } });
    expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "closed", failures: 4 });
  });

  test("is logged for each attempt that failed, with the reason and the wait", async () => {
    const { log, lines } = collectingLog();
    const { origin } = await service(status(503));
    await executorOf([onex(origin, "/run", { annotations: readOnly })], { log }).call(callOf(), never);
    expect(lines.slice(0, -1)).toMatchObject(
      [1, 2, 3].map((attempt) => ({
        level: "debug",
        fields: {
          tool: "sample",
          correlation_id: "corr-1",
          target: origin,
          status: 503,
          attempt,
          after_ms: expect.any(Number) as unknown,
        },
        message: expect.stringMatching(/^tried again: \[ONEX_CORE_090_NETWORK_ERROR\]/) as unknown,
      })),
    );
  });

  test.each<[string, Reply]>([
    ["a 400", status(400)],
    ["a 404", status(404)],
    ["a redirect", status(302, { location: "/" })],
    ["an error of its own", (_request, response) => json(response, { success: false, error: "no" })],
    [
      "an answer that is too large",
      (_request, response) => void response.writeHead(200, { "content-length": "20000000" }).end(),
    ],
    [
      "an answer that cannot be used",
      (_request, response) => void response.writeHead(200, { "content-type": "application/json" }).end("{"),
    ],
  ])("is not repeated after %s", async (_title, reply) => {
    const { result, requests } = await outcomeOf([reply, answer], readOnly);
    expect(result.isError).toBe(true);
    expect(result.meta).toBeUndefined();
    expect(requests).toHaveLength(1);
  });

  test("nor after arguments that cannot be put where they belong", async () => {
    const { origin, requests } = await service(answer);
    const tool = rest(
      { method: "GET", url: `${origin}/`, headers: { "X-A": "{a}" } },
      { annotations: readOnly },
    );
    const result = await executorOf([tool]).call(callOf({ a: "x\ny" }), never);
    expect([result.isError, requests.length, result.meta]).toEqual([true, 0, undefined]);
  });

  test("has one attempt where retries are none", async () => {
    const { result, requests } = await outcomeOf([status(500), answer], readOnly, { retry: once });
    expect([result.isError, requests.length]).toEqual([true, 1]);
  });
});

describe("a call of a tool that must not be repeated", () => {
  test.each<[string, Reply]>([
    ["a 500", status(500)],
    ["a 503 with Retry-After", status(503, { "retry-after": "0" })],
    ["a 429 with Retry-After", status(429, { "retry-after": "0" })],
    ["a connection that is lost before the answer", hangUp],
    ["half an answer", halfAnAnswer],
  ])("is never sent a second time after %s", async (_title, reply) => {
    const { result, requests } = await outcomeOf([reply, answer], { destructive: false });
    expect(result.isError).toBe(true);
    expect(requests).toHaveLength(1);
  });

  test("is tried again where nothing had been sent: the instance is back in time", async () => {
    const dead = await deadOrigin();
    const tool = onex(dead);
    const executor = executorOf([tool], { retry: { firstMs: 300 } });
    const pending = executor.call(callOf(), never);
    await vi.waitFor(() => expect(executor.circuits.circuitState(dead)).toMatchObject({ failures: 1 }));
    const { server } = await service(answer);
    await new Promise((resolve) => server.close(resolve));
    await new Promise<void>((resolve) => server.listen(Number(new URL(dead).port), "127.0.0.1", resolve));
    const result = await pending;
    expect(textOf(result)).toBe("answer");
    expect(result.meta?.["onex-runtime/attempts"]).toBeGreaterThan(1);
  });
});

describe("Retry-After", () => {
  test("is waited for", async () => {
    const { result, waits } = await outcomeOf([status(503, { "retry-after": "1" }), answer], readOnly);
    expect(textOf(result)).toBe("answer");
    expect(waits).toEqual([1000]);
  });

  test("as a date is waited for as well", async () => {
    const date = new Date(Date.now() + 1000).toUTCString();
    const { result, waits } = await outcomeOf([status(429, { "retry-after": date }), answer], readOnly);
    expect(textOf(result)).toBe("answer");
    expect(waits).toHaveLength(1);
    expect(waits[0]).toBeLessThanOrEqual(1000);
  });

  test("that is longer than what is left of the deadline ends the call at once, and the client reads it", async () => {
    for (const code of [429, 503]) {
      const { result, requests, last } = await outcomeOf([status(code, { "retry-after": "60" })], readOnly);
      expect(requests).toHaveLength(1);
      expect(result.failure?.facts).toMatchObject({ status: code, retry_after_seconds: 60, attempts: 1 });
      expect(result.meta).toEqual({ "onex-runtime/retry-after-seconds": 60 });
      expect(last?.fields.not_retried).toBe("the next attempt would come after the deadline");
    }
  });

  /** Always the first of the two at first. */
  const two = async (first: Reply) => {
    const [bad, good] = await Promise.all([service(first), service(answer)]);
    const tool = served([bad.origin, good.origin], { annotations: readOnly });
    const result = await showing(tool, { random: () => 0 }).executor.call(callOf(), never);
    return { result, requests: [bad.requests.length, good.requests.length] };
  };

  test("of a 503 is one instance's: another one is asked meanwhile", async () => {
    const { result, requests } = await two(status(503, { "retry-after": "60" }));
    expect(textOf(result)).toBe("answer");
    expect(requests).toEqual([1, 1]);
  });

  test("of a 429 is about us: no other instance is asked either", async () => {
    const { result, requests } = await two(status(429, { "retry-after": "60" }));
    expect(result.failure?.facts.retry_after_seconds).toBe(60);
    expect(requests).toEqual([1, 0]);
  });
});

describe("another instance", () => {
  test("comes first in every retry: no instance is asked twice before all were asked", async () => {
    const services = await Promise.all(Array.from({ length: 3 }, () => service(status(500))));
    const tool = served(
      services.map(({ origin }) => origin),
      { annotations: readOnly },
    );
    const { executor } = showing(tool);
    const result = await executor.call(callOf(), never);
    expect(result.meta).toEqual({ "onex-runtime/attempts": 4 });
    expect(services.map(({ requests }) => requests.length).sort()).toEqual([1, 1, 2]);
  });

  test("is found where a contract is edited while the call runs and names other endpoints", async () => {
    const spare = await service(answer);
    const dying = await service((_request, _response, raw) => {
      show(onex(spare.origin, "/run", { annotations: readOnly, revision: "2" }));
      raw.socket.destroy();
    });
    const tool = onex(dying.origin, "/run", { annotations: readOnly });
    const { executor, show } = showing(tool);
    const result = await executor.call(callOf(), never);
    expect(textOf(result)).toBe("answer");
    expect(result.meta).toEqual({ "onex-runtime/attempts": 2 });
  });

  test("is another one than the last where all were asked", async () => {
    const order: number[] = [];
    const services = await Promise.all(
      [0, 1].map((index) =>
        service((request, response, raw) => {
          order.push(index);
          status(500)(request, response, raw);
        }),
      ),
    );
    const tool = served(
      services.map(({ origin }) => origin),
      { annotations: readOnly },
    );
    // Always the first of those that may be chosen.
    await showing(tool, { random: () => 0 }).executor.call(callOf(), never);
    expect(order).toEqual([0, 1, 0, 1]);
  });

  test("takes at once what an attempt after the first one could not send", async () => {
    const { log, lines } = collectingLog();
    const [bad, good] = await Promise.all([service(status(500)), service(answer)]);
    const tool = served([bad.origin, await deadOrigin(), good.origin], { annotations: readOnly });
    const { executor } = showing(tool, { random: () => 0, log });
    const result = await executor.call(callOf(), never);
    expect(result.meta).toEqual({ "onex-runtime/attempts": 3 });
    expect(waitsIn(lines)).toEqual([expect.any(Number), 0]);
    expect(waitsIn(lines)[0]).toBeGreaterThan(0);
  });

  test("without a failure is preferred: a call finds the one that works among many that do not", async () => {
    const dead = await Promise.all(Array.from({ length: 8 }, () => deadOrigin()));
    const { origin } = await service(answer);
    const { executor } = showing(served([...dead, origin]), { breaker: { failureThreshold: 1000 } });
    // Until every dead one has failed once a call may end with the fourth of them.
    for (let n = 0; n < 10; n++) await executor.call(callOf(), never);
    for (let n = 0; n < 50; n++) expect((await executor.call(callOf(), never)).isError).toBe(false);
  });

  test("whose breaker is open is not waited for: the failure is told at once", async () => {
    const { origin, requests } = await service(status(500));
    const { executor } = showing(served([origin], { annotations: readOnly }), {
      breaker: { failureThreshold: 2 },
    });
    const result = await executor.call(callOf(), never);
    expect(requests).toHaveLength(2);
    expect(textOf(result)).toContain("failed (500");
    expect(result.failure?.facts.not_retried).toBe("the next attempt would come after the deadline");
  });

  test("or the same is tried when its breaker lets a call through within the deadline", async () => {
    const { result, requests, waits } = await outcomeOf([status(500), answer], readOnly, {
      breaker: { failureThreshold: 1, resetSeconds: 0.3 },
    });
    expect(textOf(result)).toBe("answer");
    expect(requests).toHaveLength(2);
    expect(waits[0]).toBeGreaterThan(200);
  });
});

describe("the retry budget", () => {
  test("of a tool holds retries at a fifth of its calls; without it the first failure is the answer, and the log says why", async () => {
    const { log, lines } = collectingLog();
    const { origin, requests } = await service(status(500));
    const executor = executorOf([onex(origin, "/run", { annotations: readOnly })], {
      log,
      breaker: { failureThreshold: 10_000 },
    });
    for (let n = 0; n < 100; n++) expect((await executor.call(callOf(), never)).isError).toBe(true);
    // Five to begin with.
    expect(requests).toHaveLength(100 + 20 + 5);
    const refused = lines.filter(({ fields }) => fields.not_retried === "the tool's retry budget is used up");
    expect(refused.length).toBeGreaterThan(70);
    expect(refused.find(({ fields }) => fields.attempts === 1)).toMatchObject({
      level: "warn",
      fields: { attempts: 1, status: 500 },
    });
  });

  test("is each tool's own, and outlives a change of its instances", async () => {
    const [bad, other] = await Promise.all([service(status(500)), service(status(500))]);
    const tools = (...urls: string[]) => [
      served(urls, { name: "a", annotations: readOnly }),
      served(urls, { name: "b", annotations: readOnly }),
    ];
    const { executor, show } = showing(toolOf({ kind: "onex", endpoints: [], path: "" }), {
      breaker: { failureThreshold: 10_000 },
    });
    const attempts = async (name: string) =>
      (await executor.call(callOf({}, { name }), never)).failure?.facts.attempts;
    show(...tools(bad.origin));
    for (let n = 0; n < 10; n++) await attempts("a");
    expect(await attempts("a")).toBe(1);
    show(...tools(bad.origin, other.origin));
    expect(await attempts("a")).toBe(1);
    expect(await attempts("b")).toBe(4);
  });

  test("is not touched where nothing was sent and another instance takes the call", async () => {
    const dead = await deadOrigin();
    const { origin } = await service(answer);
    const tool = served([dead, origin]);
    const { executor } = showing(tool, { random: () => 0, breaker: { failureThreshold: 10_000 } });
    for (let n = 0; n < 100; n++) {
      const result = await executor.call(callOf(), never);
      expect(result.meta).toEqual({ "onex-runtime/attempts": 2 });
    }
  });
});

describe("a call that waits for its next attempt", () => {
  const slowly = { retry: { firstMs: 60_000, maxMs: 60_000 } };

  test("ends at once when its client goes, and sends nothing more", async () => {
    const { origin, requests } = await service(status(500));
    const tool = onex(origin, "/run", { annotations: readOnly, timeoutSeconds: 300 });
    const { log, lines } = collectingLog();
    const executor = executorOf([tool], { ...slowly, log });
    const client = new AbortController();
    const pending = executor.call(callOf(), client.signal);
    await vi.waitFor(() => expect(waitsIn(lines)).toHaveLength(1));
    client.abort();
    expect((await pending).failure?.name).toBe("CancelledError");
    expect(executor.active).toBe(0);
    expect(requests).toHaveLength(1);
  });

  test("ends at once when the runtime ends", async () => {
    const { origin } = await service(status(500));
    const { log, lines } = collectingLog();
    const tool = onex(origin, "/run", { annotations: readOnly, timeoutSeconds: 300 });
    const executor = executorOf([tool], { ...slowly, log });
    const pending = executor.call(callOf(), never);
    await vi.waitFor(() => expect(waitsIn(lines)).toHaveLength(1));
    await executor.destroy(new Error("over"));
    expect((await pending).failure?.name).toBe("InfraUnavailableError");
  });

  test("or for its answer leaves the reason of the end as it was: other calls have it too", async () => {
    const { origin, requests } = await service(() => undefined);
    const executor = executorOf([onex(origin, "/run", { annotations: readOnly })]);
    const calls = [0, 1].map(() => executor.call(callOf(), never));
    await vi.waitFor(() => expect(requests).toHaveLength(2));
    const reason = new InfraUnavailableError("over");
    await executor.destroy(reason);
    expect((await Promise.all(calls)).map(({ failure }) => failure)).toEqual([reason, reason]);
    await new Promise((resolve) => setImmediate(resolve));
    expect(reason.facts).toEqual({});
  });

  test("is not begun where the deadline is nearer", async () => {
    const { origin, requests } = await service(status(500));
    const executor = executorOf([onex(origin, "/run", { annotations: readOnly })], slowly);
    const result = await executor.call(callOf(), never);
    expect(textOf(result)).toContain("failed (500");
    expect(requests).toHaveLength(1);
  });

  test("goes to the instances of then, and nowhere where the tool has gone meanwhile", async () => {
    const [bad, good] = await Promise.all([service(status(500)), service(answer)]);
    for (const goes of [false, true]) {
      const { log, lines } = collectingLog();
      const { executor, show } = showing(served([bad.origin], { annotations: readOnly }), {
        log,
        retry: { firstMs: 200, maxMs: 200 },
      });
      const pending = executor.call(callOf(), never);
      await vi.waitFor(() => expect(waitsIn(lines)).toHaveLength(1));
      if (goes) show();
      else show(served([good.origin], { annotations: readOnly }));
      expect((await pending).isError).toBe(goes);
    }
    expect([bad.requests.length, good.requests.length]).toEqual([2, 1]);
  });
});
