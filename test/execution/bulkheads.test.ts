import type { ServerResponse } from "node:http";
import { describe, expect, test, vi } from "vitest";
import { ProtocolConfigurationError } from "../../src/core/errors.ts";
import type { BusRequester } from "../../src/execution/bus.ts";
import { resolveCallLimits } from "../../src/execution/call-limits.ts";
import type { ToolResult } from "../../src/tools/call.ts";
import type { Endpoint } from "../../src/tools/tool.ts";
import {
  callOf,
  endpoint,
  executorOf,
  functionTool,
  json,
  never,
  once,
  onex,
  served,
  service,
  showing,
  textOf,
  toolOf,
} from "./helpers.ts";

/** A service that answers when it is told to, in the order of its requests. */
async function holding() {
  const held: ServerResponse[] = [];
  const own = await service((_request, response) => void held.push(response));
  return {
    ...own,
    held,
    release: () => {
      for (const response of held.splice(0)) json(response, "done");
    },
  };
}

const names = (prefix: string, count: number) => Array.from({ length: count }, (_, n) => `${prefix}${n}`);

describe("a tool", () => {
  test("has so many calls under way, so many that wait, and no more: one more is overloaded, for a second", async () => {
    const { origin, requests, held, release } = await holding();
    const executor = executorOf([onex(origin)], { limits: { toolConcurrency: 3, toolQueue: 2 } });
    const calls = Array.from({ length: 5 }, () => executor.call(callOf(), never));
    await vi.waitFor(() => expect(held).toHaveLength(3));
    const refused = await executor.call(callOf(), never);
    expect(textOf(refused)).toBe(
      'Too many calls of the tool "sample" are under way or wait: it is overloaded; try again in 1 s.',
    );
    expect(refused.failure).toMatchObject({
      name: "InfraUnavailableError",
      retryable: true,
      countsForBreaker: false,
      facts: { reason: "overloaded", retry_after_seconds: 1, tool_name: "sample" },
    });
    expect(refused.meta).toEqual({ "onex-runtime/retry-after-seconds": 1 });
    expect(requests).toHaveLength(3);
    release();
    await vi.waitFor(() => expect(held).toHaveLength(2));
    release();
    expect((await Promise.all(calls)).map(textOf)).toEqual(names("done", 5).map(() => "done"));
  });

  test("takes waiting calls in the order in which they came", async () => {
    const order: unknown[] = [];
    const gate = Promise.withResolvers<undefined>();
    const tool = functionTool(async ({ n }: { n: number }) => {
      order.push(n);
      await gate.promise;
    });
    const executor = executorOf([tool], { limits: { toolConcurrency: 1, toolQueue: 10 } });
    const calls = [1, 2, 3, 4].map((n) => executor.call(callOf({ n }), never));
    await vi.waitFor(() => expect(order).toEqual([1]));
    gate.resolve(undefined);
    await Promise.all(calls);
    expect(order).toEqual([1, 2, 3, 4]);
  });

  test("loses a waiting call at once when its client goes, and never runs it", async () => {
    const { origin, held, release, requests } = await holding();
    const executor = executorOf([onex(origin)], { limits: { toolConcurrency: 1, toolQueue: 1 } });
    const running = executor.call(callOf(), never);
    await vi.waitFor(() => expect(held).toHaveLength(1));
    const client = new AbortController();
    const waiting = executor.call(callOf(), client.signal);
    client.abort();
    expect((await waiting).failure?.name).toBe("CancelledError");
    // Its place in the queue is free.
    const next = executor.call(callOf(), never);
    release();
    await running;
    await vi.waitFor(() => expect(held).toHaveLength(1));
    release();
    expect(textOf(await next)).toBe("done");
    expect(requests).toHaveLength(2);
  });

  test("counts the wait as part of the call's time", async () => {
    const { origin, held, requests } = await holding();
    const tool = onex(origin, "/run", { timeoutSeconds: 0.2 });
    const executor = executorOf([tool], { limits: { toolConcurrency: 1 } });
    const calls = [executor.call(callOf(), never), executor.call(callOf(), never)];
    const results = await Promise.all(calls);
    expect(results.map(({ failure }) => failure?.name)).toEqual(["InfraTimeoutError", "InfraTimeoutError"]);
    await vi.waitFor(() => expect(held.length).toBeGreaterThan(0));
    expect(executor.active).toBe(0);
    expect(requests.length).toBeLessThanOrEqual(2);
  });

  test("that is slow takes nothing from another one at the same instance", async () => {
    const { origin, held, release } = await holding();
    const quick = await service((_request, response) => json(response, "quick"));
    const limits = { toolConcurrency: 3, toolQueue: 5, instanceConcurrency: 4, instanceQueue: 0 };
    const executor = executorOf(
      [
        onex(origin, "/slow", { name: "slow" }),
        onex(origin, "/other", { name: "other" }),
        onex(quick.origin),
      ],
      { limits },
    );
    const slow = Array.from({ length: 8 }, () => executor.call(callOf({}, { name: "slow" }), never));
    await vi.waitFor(() => expect(held).toHaveLength(3));
    expect(textOf(await executor.call(callOf(), never))).toBe("quick");
    const other = executor.call(callOf({}, { name: "other" }), never);
    await vi.waitFor(() => expect(held).toHaveLength(4));
    json(held.pop()!, "other");
    expect(textOf(await other)).toBe("other");
    while (executor.active > 0) {
      release();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    expect((await Promise.all(slow)).every(({ isError }) => !isError)).toBe(true);
  });

  test("keeps its limit through snapshots", async () => {
    const { origin, held, release } = await holding();
    const limits = { toolConcurrency: 1, toolQueue: 0 };
    const { executor, show } = showing(onex(origin), { limits });
    const call = executor.call(callOf(), never);
    await vi.waitFor(() => expect(held).toHaveLength(1));
    show(onex(origin, "/other"));
    expect(textOf(await executor.call(callOf(), never))).toContain("it is overloaded");
    release();
    expect(textOf(await call)).toBe("done");
  });

  test("keeps its limit also where it goes and comes back while its calls run", async () => {
    const { origin, held, release } = await holding();
    const { executor, show } = showing(onex(origin), { limits: { toolConcurrency: 1, toolQueue: 0 } });
    const call = executor.call(callOf(), never);
    await vi.waitFor(() => expect(held).toHaveLength(1));
    show();
    show(onex(origin));
    expect(textOf(await executor.call(callOf(), never))).toContain("it is overloaded");
    release();
    expect(textOf(await call)).toBe("done");
  });

  test("whose calls spend their time in its queue speaks against no instance", async () => {
    const { origin, held } = await holding();
    const tool = onex(origin, "/run", { timeoutSeconds: 0.1 });
    const limits = { toolConcurrency: 1, toolQueue: 10 };
    const executor = executorOf([tool], { limits, breaker: { failureThreshold: 2 } });
    const calls = [executor.call(callOf(), never), executor.call(callOf(), never)];
    await vi.waitFor(() => expect(held).toHaveLength(1));
    await Promise.all(calls);
    expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "closed", failures: 1 });
  });

  test("is drained with its waiting calls, and ended with none of them started", async () => {
    const { origin, held, release, requests } = await holding();
    const limits = { toolConcurrency: 1, toolQueue: 5 };
    const drained = executorOf([onex(origin)], { limits });
    const calls = [0, 1].map(() => drained.call(callOf(), never));
    const closed = drained.close();
    for (let n = 0; n < 2; n++) {
      await vi.waitFor(() => expect(held).toHaveLength(1));
      release();
    }
    await closed;
    expect((await Promise.all(calls)).map(textOf)).toEqual(["done", "done"]);
    const ended = executorOf([onex(origin)], { limits });
    const others = [0, 1, 2].map(() => ended.call(callOf(), never));
    await vi.waitFor(() => expect(held).toHaveLength(1));
    await ended.destroy(new Error("over"));
    expect((await Promise.all(others)).every(({ isError }) => isError)).toBe(true);
    expect(requests).toHaveLength(3);
  });
});

test("the end of the runtime starts none of the calls that wait", async () => {
  const asked: string[] = [];
  const bus: BusRequester = {
    request: (request, signal) => {
      asked.push(request.topic);
      return new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason as Error));
      });
    },
    close: async () => undefined,
  };
  const tool = toolOf({ kind: "bus", topic: "t", replyTopic: "r" });
  const executor = executorOf([tool], { bus, limits: { toolConcurrency: 1 } });
  const calls = [0, 1, 2].map(() => executor.call(callOf(), never));
  await vi.waitFor(() => expect(asked).toHaveLength(1));
  await executor.destroy(new Error("over"));
  expect((await Promise.all(calls)).map(({ isError }) => isError)).toEqual([true, true, true]);
  expect(asked).toHaveLength(1);
});

describe("an instance", () => {
  const limits = { toolConcurrency: 2, instanceConcurrency: 3, instanceQueue: 1 };
  const tools = names("tool", 3);

  /** Three calls of three tools at the instance, one that waits for it. */
  async function filled() {
    const full = await holding();
    const { executor, show } = showing(onex(full.origin), { limits, retry: once });
    const showThree = (endpoints: readonly Endpoint[]) =>
      show(...tools.map((name) => served([], { name, endpoints })));
    showThree([endpoint(full.origin)]);
    const call = (name: string, signal = never) => executor.call(callOf({}, { name }), signal);
    const calls: Promise<ToolResult>[] = ["tool0", "tool0", "tool1"].map((name) => call(name));
    await vi.waitFor(() => expect(full.held).toHaveLength(3));
    calls.push(call("tool1"));
    return { ...full, executor, show: showThree, call, calls };
  }

  test("has so many calls of all tools under way and so many that wait; one more is overloaded and no breaker counts it", async () => {
    const { origin, executor, call, calls, requests, connections, held, release } = await filled();
    const refused = await call("tool2");
    expect(textOf(refused)).toBe(
      'Too many calls wait for the service behind "tool2": it is overloaded; try again in 1 s.',
    );
    expect(refused.failure?.facts).toMatchObject({ reason: "overloaded", retry_after_seconds: 1 });
    expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "closed", failures: 0 });
    expect([requests.length, connections()]).toEqual([3, 3]);
    release();
    await vi.waitFor(() => expect(held).toHaveLength(1));
    release();
    expect((await Promise.all(calls)).map(textOf)).toEqual(calls.map(() => "done"));
    expect(connections()).toBeLessThanOrEqual(4);
  });

  test("that is full is passed over where another one is there", async () => {
    const { origin, show, call, calls, held, release } = await filled();
    const waiting: ServerResponse[] = [];
    const spare = await service((_request, response) => {
      if (waiting.length === 0) waiting.push(response);
      else json(response, "spare");
    });
    // By their loads for their weights alone the full one would be chosen.
    show([endpoint(origin, 10_000), endpoint(spare.origin)]);
    const first = call("tool2");
    await vi.waitFor(() => expect(waiting).toHaveLength(1));
    for (let n = 0; n < 20; n++) {
      const result = await call("tool2");
      expect([textOf(result), result.meta]).toEqual(["spare", undefined]);
    }
    json(waiting[0]!, "spare");
    expect(textOf(await first)).toBe("spare");
    release();
    await vi.waitFor(() => expect(held).toHaveLength(1));
    release();
    await Promise.all(calls);
  });

  test("that goes still gets the call that waits for it", async () => {
    const { show, calls, held, release, executor } = await filled();
    show([]);
    release();
    await vi.waitFor(() => expect(held).toHaveLength(1));
    release();
    expect((await Promise.all(calls)).map(textOf)).toEqual(calls.map(() => "done"));
    expect(executor.circuits.circuitStates().size).toBe(0);
  });

  test("loses a call that waits for it at once, without a word to its breaker, also when the deadline passes", async () => {
    const full = await holding();
    const waiting = served([full.origin], { name: "tool2", timeoutSeconds: 0.1 });
    const others = ["tool0", "tool1"].map((name) => served([full.origin], { name }));
    const executor = executorOf([...others, waiting], { limits: { ...limits, instanceQueue: 5 } });
    const calls = ["tool0", "tool0", "tool1"].map((name) => executor.call(callOf({}, { name }), never));
    await vi.waitFor(() => expect(full.held).toHaveLength(3));
    const late = await executor.call(callOf({}, { name: "tool2" }), never);
    expect(late.failure?.name).toBe("InfraTimeoutError");
    const client = new AbortController();
    const cancelled = executor.call(callOf({}, { name: "tool1" }), client.signal);
    client.abort();
    expect((await cancelled).failure?.name).toBe("CancelledError");
    expect(executor.circuits.circuitState(full.origin)).toMatchObject({ kind: "closed", failures: 0 });
    full.release();
    expect((await Promise.all(calls)).map(textOf)).toEqual(["done", "done", "done"]);
    expect(full.requests).toHaveLength(3);
  });
});

test("after a thousand calls with random ends every place is free again, and no trial is held", async () => {
  let seed = 7;
  const random = (): number => (seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
  let isOrderly = false;
  const held: ServerResponse[] = [];
  const { origin } = await service((_request, response, raw) => {
    if (isOrderly) held.push(response);
    else {
      const dice = random();
      if (dice < 0.2) json(response, {}, 500);
      else if (dice < 0.4) raw.socket.destroy();
      else if (dice < 0.5) response.writeHead(429, { "retry-after": "0" }).end();
      else if (dice < 0.6) response.writeHead(200, { "content-length": "50" }).write("half");
      else if (dice < 0.8) json(response, 1);
      // else: never
    }
  });
  const limits = { toolConcurrency: 8, toolQueue: 4, instanceConcurrency: 10, instanceQueue: 2 };
  const tools = ["a", "b"].map((name) =>
    served([origin], { name, timeoutSeconds: 0.1, annotations: { idempotent: name === "a" } }),
  );
  const { executor, show } = showing(tools[0]!, { limits, breaker: { resetSeconds: 0.01 } });
  show(...tools);
  let left = 1000;
  const outcomes = new Set<string | undefined>();
  // So many at a time that some find room, some wait and some are refused.
  const caller = async (_: unknown, n: number): Promise<void> => {
    while (left-- > 0) {
      const client = new AbortController();
      const timer = random() < 0.3 ? setTimeout(() => client.abort(), random() * 30) : undefined;
      const name = n % 2 === 0 ? "a" : "b";
      const outcome = (await executor.call(callOf({}, { name }), client.signal)).failure?.name;
      clearTimeout(timer);
      outcomes.add(outcome);
      if (outcome !== "InfraUnavailableError") continue;
      // Refused at once: it is not one of the thousand.
      left++;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  await Promise.all(Array.from({ length: 30 }, caller));
  expect([...outcomes].sort()).toEqual([
    "CancelledError",
    "InfraConnectionError",
    "InfraTimeoutError",
    "InfraUnavailableError",
    undefined,
  ]);
  expect(executor.active).toBe(0);

  isOrderly = true;
  executor.circuits.resetCircuit(origin);
  const patient = tools.map((tool) => ({ ...tool, timeoutSeconds: 60, annotations: {} }));
  show(...patient);
  // As many as before all that: 8 of one tool, 2 of the other, and of that one two more wait for the instance.
  const all = [...names("a", 8).map(() => "a"), ...names("b", 4).map(() => "b")].map((name) =>
    executor.call(callOf({}, { name }), never),
  );
  await vi.waitFor(() => expect(held).toHaveLength(10));
  const refused = await executor.call(callOf({}, { name: "b" }), AbortSignal.timeout(100));
  expect(refused.isError).toBe(true);
  while (executor.active > 0) {
    for (const response of held.splice(0)) json(response, "done");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  expect((await Promise.all(all)).map(textOf)).toEqual(all.map(() => "done"));
  expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "closed", failures: 0 });
}, 60_000);

describe("the limits", () => {
  test("of a tool must be below that of an instance, or one slow tool could use it up", () => {
    for (const limits of [{ toolConcurrency: 256 }, { instanceConcurrency: 128 }])
      expect(() => executorOf([], { limits })).toThrow(
        new ProtocolConfigurationError(
          limits.toolConcurrency === undefined
            ? "tool_concurrency (128) must be below instance_concurrency (128), or one slow tool could use up an instance that other tools share"
            : "tool_concurrency (256) must be below instance_concurrency (256), or one slow tool could use up an instance that other tools share",
        ),
      );
  });

  test.each([
    [{ toolConcurrency: 0 }, "tool_concurrency must be an integer from 1 to 10000, got 0"],
    [{ toolQueue: -1 }, "tool_queue must be an integer from 0 to 100000, got -1"],
    [{ instanceConcurrency: 10_001 }, "instance_concurrency must be an integer from 2 to 10000, got 10001"],
    [{ instanceQueue: 0.5 }, "instance_queue must be an integer from 0 to 100000, got 0.5"],
  ])("%j are refused", (limits, message) => {
    expect(() => resolveCallLimits(limits)).toThrow(new ProtocolConfigurationError(message));
  });
});
