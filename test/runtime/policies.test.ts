import { describe, expect, test, vi } from "vitest";
import type { RetryPolicy } from "../../src/contract/handler.ts";
import { InfraUnavailableError, ProtocolConfigurationError } from "../../src/core/errors.ts";
import { retryDelay } from "../../src/runtime/call.ts";
import { Contracts, descriptor, startedHost } from "./support.ts";

describe("the contract's deadline", () => {
  test("ends a call, tells the handler, and is a retryable timeout in the answer", async () => {
    await using contracts = await Contracts.make();
    const began = Promise.withResolvers<AbortSignal>();
    await contracts.handler(
      "slow",
      {
        execute: async (_envelope, { signal }) => {
          began.resolve(signal);
          await new Promise(() => undefined);
        },
      },
      descriptor({ timeout_ms: 20 }),
    );
    await using host = await startedHost(contracts);
    expect((await host.host.handle({ operation: "slow.x" })).error).toEqual({
      code: "ONEX_CORE_092_TIMEOUT_ERROR",
      message: expect.stringContaining("slow.x took longer than 0.02 s"),
      retryable: true,
    });
    expect((await began.promise).aborted).toBe(true);
  });

  test("covers all attempts: a failure that would be retried later is the answer", async () => {
    await using contracts = await Contracts.make();
    const execute = vi.fn(() => {
      throw new Error("not now");
    });
    const retry_policy = { max_retries: 3, base_delay_ms: 60_000, jitter_factor: 0 };
    await contracts.handler(
      "slow",
      { execute },
      descriptor({ timeout_ms: 30, idempotent: true, retry_policy }),
    );
    await using host = await startedHost(contracts);
    expect((await host.host.handle({ operation: "slow.x" })).error?.message).toContain("not now");
    expect(execute).toHaveBeenCalledTimes(1);
  });
});

describe("the contract's retries", () => {
  const retry_policy = { max_retries: 2, backoff_strategy: "fixed", base_delay_ms: 1, jitter_factor: 0 };
  /** Calls until the answer, where the handler fails `failures` times with `error`. */
  async function attempts(more: Record<string, unknown>, failures: number, error: Error) {
    await using contracts = await Contracts.make();
    let calls = 0;
    const execute = () => {
      calls += 1;
      if (calls <= failures) throw error;
      return "done";
    };
    await contracts.handler("work", { execute }, descriptor({ retry_policy, ...more }));
    await using host = await startedHost(contracts);
    return { status: (await host.host.handle({ operation: "work.x" })).status, calls };
  }

  test("are made for an idempotent handler, at most max_retries of them", async () => {
    const error = new Error("not now");
    expect(await attempts({ idempotent: true }, 2, error)).toEqual({ status: "success", calls: 3 });
    expect(await attempts({ idempotent: true }, 3, error)).toEqual({ status: "error", calls: 3 });
  });

  test("are never made for another one", async () => {
    expect(await attempts({}, 1, new InfraUnavailableError("later"))).toEqual({ status: "error", calls: 1 });
  });

  test("are not made where the error says that they are useless, or where they are not enabled", async () => {
    const useless = new ProtocolConfigurationError("never");
    expect(await attempts({ idempotent: true }, 1, useless)).toEqual({ status: "error", calls: 1 });
    const off = { idempotent: true, retry_policy: { ...retry_policy, enabled: false } };
    expect(await attempts(off, 1, new Error("not now"))).toEqual({ status: "error", calls: 1 });
  });

  test.each<[RetryPolicy["backoff"], number[]]>([
    ["fixed", [100, 100, 100, 100]],
    ["linear", [100, 200, 300, 350]],
    ["exponential", [100, 200, 350, 350]],
  ])("wait %s: %j ms", (backoff, delays) => {
    const policy = { maxRetries: 9, backoff, baseDelayMs: 100, maxDelayMs: 350, jitterFactor: 0.1 };
    expect([1, 2, 3, 4].map((attempt) => retryDelay(policy, attempt, 0.5))).toEqual(delays);
    expect(retryDelay(policy, 1, 0)).toBe(90);
    expect(retryDelay(policy, 1, 0.999999)).toBe(110);
  });
});

describe("the contract's circuit breaker", () => {
  const circuit_breaker = {
    enabled: true,
    failure_threshold: 2,
    success_threshold: 1,
    timeout_ms: 1000,
    half_open_requests: 1,
  };

  test("opens after its failures, refuses without calling, and lets a trial through when its time is over", async () => {
    await using contracts = await Contracts.make();
    let now = 0;
    let fail = true;
    const execute = vi.fn(() => {
      if (fail) throw new Error("down");
      return "up";
    });
    await contracts.handler("work", { execute }, descriptor({ circuit_breaker }));
    await using host = await startedHost(contracts, { clock: { now: () => now } });
    const handle = async () => await host.host.handle({ operation: "work.x" });
    await handle();
    await handle();
    expect(await handle()).toMatchObject({
      status: "error",
      error: {
        code: "ONEX_CORE_205_SERVICE_UNAVAILABLE",
        retryable: true,
        message: expect.stringContaining("handler work"),
      },
    });
    expect(execute).toHaveBeenCalledTimes(2);
    now = 1000;
    fail = false;
    expect((await handle()).payload).toBe("up");
    expect((await handle()).payload).toBe("up");
  });

  test("counts deadlines, but neither a caller's mistake nor a caller who goes away", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler(
      "work",
      {
        execute: async ({ operation }) => {
          if (operation === "work.mistake") throw new ProtocolConfigurationError("bad input");
          if (operation === "work.abort") throw new DOMException("it gave up itself", "AbortError");
          if (operation === "work.fine") return "fine";
          return await new Promise(() => undefined);
        },
      },
      descriptor({ circuit_breaker, timeout_ms: 20 }),
    );
    await using host = await startedHost(contracts);
    const handle = async (operation: string, signal?: AbortSignal) =>
      await host.host.handle({ operation }, signal === undefined ? {} : { signal });
    for (let time = 0; time < 3; time += 1) {
      await handle("work.mistake");
      await handle("work.abort");
      const caller = new AbortController();
      const gone = handle("work.hang", caller.signal);
      await Promise.resolve();
      caller.abort();
      await gone;
    }
    expect((await handle("work.fine")).payload).toBe("fine");
    await handle("work.hang");
    await handle("work.hang");
    expect((await handle("work.fine")).error?.message).toContain("circuit breaker");
  });

  test("when open it is not retried", async () => {
    await using contracts = await Contracts.make();
    const execute = vi.fn(() => {
      throw new Error("down");
    });
    const retry_policy = { max_retries: 10, base_delay_ms: 1, backoff_strategy: "fixed" };
    await contracts.handler(
      "work",
      { execute },
      descriptor({ circuit_breaker, retry_policy, idempotent: true }),
    );
    await using host = await startedHost(contracts, { clock: { now: () => 0 } });
    expect((await host.host.handle({ operation: "work.x" })).error?.message).toContain("circuit breaker");
    expect(execute).toHaveBeenCalledTimes(2);
  });
});

describe("concurrency_policy serialized", () => {
  test("never runs two calls at once, and keeps their order", async () => {
    await using contracts = await Contracts.make();
    let running = 0;
    let most = 0;
    const order: unknown[] = [];
    const execute = async ({ payload }: { payload: Readonly<Record<string, unknown>> }) => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      order.push(payload.n);
      running -= 1;
    };
    await contracts.handler("one", { execute }, descriptor({ concurrency_policy: "serialized" }));
    await using host = await startedHost(contracts);
    const numbers = [1, 2, 3, 4, 5];
    await Promise.all(
      numbers.map(async (n) => await host.host.handle({ operation: "one.x", payload: { n } })),
    );
    expect(most).toBe(1);
    expect(order).toEqual(numbers);
  });

  test("while a call that was given up still runs, others are refused; afterwards they are served", async () => {
    await using contracts = await Contracts.make();
    const gate = Promise.withResolvers<undefined>();
    const execute = async ({ operation }: { operation: string }) => {
      if (operation === "one.hang") await gate.promise;
      return "served";
    };
    await contracts.handler(
      "one",
      { execute },
      descriptor({ concurrency_policy: "serialized", timeout_ms: 30 }),
    );
    await using host = await startedHost(contracts);
    const hanging = host.host.handle({ operation: "one.hang" });
    const waiting = host.host.handle({ operation: "one.x" });
    expect((await hanging).error?.code).toBe("ONEX_CORE_092_TIMEOUT_ERROR");
    const refused = { error: { retryable: true, message: expect.stringContaining("one call at a time") } };
    expect(await waiting).toMatchObject(refused);
    expect(await host.host.handle({ operation: "one.x" })).toMatchObject(refused);
    gate.resolve(undefined);
    await vi.waitFor(async () =>
      expect((await host.host.handle({ operation: "one.x" })).payload).toBe("served"),
    );
  });
});

describe("concurrency_policy singleflight", () => {
  async function flying(contracts: Contracts) {
    const calls: { signal: AbortSignal; finish: (value: unknown) => void; fail: (error: Error) => void }[] =
      [];
    await contracts.handler(
      "one",
      {
        execute: (_envelope, { signal }) =>
          new Promise((resolve, reject) => {
            calls.push({ signal, finish: resolve, fail: reject });
          }),
      },
      descriptor({ concurrency_policy: "singleflight" }),
    );
    return calls;
  }

  test("equal calls share one execution, each with an answer of its own", async () => {
    await using contracts = await Contracts.make();
    const calls = await flying(contracts);
    await using host = await startedHost(contracts);
    const handle = async (payload: object, correlation: string, operation = "one.x") =>
      await host.host.handle({ operation, payload, correlation_id: correlation });
    const same = [handle({ a: 1, b: { c: 2, d: 3 } }, "c-1"), handle({ b: { d: 3, c: 2 }, a: 1 }, "c-2")];
    const others = [handle({ a: 2 }, "c-3"), handle({ a: 1, b: { c: 2, d: 3 } }, "c-4", "one.y")];
    await vi.waitFor(() => expect(calls).toHaveLength(3));
    calls.forEach(({ finish }, index) => finish(index));
    expect((await Promise.all(same)).map(({ payload, correlation_id: id }) => [payload, id])).toEqual([
      [0, "c-1"],
      [0, "c-2"],
    ]);
    expect((await Promise.all(others)).map(({ payload }) => payload)).toEqual([1, 2]);
  });

  test("a failure is shared too, and the next call begins anew", async () => {
    await using contracts = await Contracts.make();
    const calls = await flying(contracts);
    await using host = await startedHost(contracts);
    const handle = async () => await host.host.handle({ operation: "one.x" });
    const both = [handle(), handle()];
    await vi.waitFor(() => expect(calls).toHaveLength(1));
    calls[0]!.fail(new Error("down"));
    expect((await Promise.all(both)).map(({ status }) => status)).toEqual(["error", "error"]);
    const next = handle();
    await vi.waitFor(() => expect(calls).toHaveLength(2));
    calls[1]!.finish("up");
    expect((await next).payload).toBe("up");
  });

  test("a caller who gives up leaves it to the others; when all have, it is aborted", async () => {
    await using contracts = await Contracts.make();
    const calls = await flying(contracts);
    await using host = await startedHost(contracts);
    const callers = [new AbortController(), new AbortController()];
    const answers = callers.map(
      async ({ signal }) => await host.host.handle({ operation: "one.x" }, { signal }),
    );
    await vi.waitFor(() => expect(calls).toHaveLength(1));
    callers[0]!.abort();
    expect((await answers[0]!).status).toBe("error");
    expect(calls[0]!.signal.aborted).toBe(false);
    callers[1]!.abort();
    await answers[1];
    await vi.waitFor(() => expect(calls[0]!.signal.aborted).toBe(true));
    const next = host.host.handle({ operation: "one.x" });
    await vi.waitFor(() => expect(calls).toHaveLength(2));
    calls[1]!.finish("new");
    expect((await next).payload).toBe("new");
  });
});
