import { getEventListeners } from "node:events";
import { describe, expect, it, vi } from "vitest";
import { abortable, abortReason, deadline, sleep, within } from "../../src/core/abort.ts";
import { CancelledError, InfraTimeoutError } from "../../src/core/errors.ts";

const listeners = (signal: AbortSignal): number => getEventListeners(signal, "abort").length;
const never = new Promise<never>(() => undefined);
/** Longer than any test runs. */
const hourMs = 3_600_000;

/** Runs `work`, in which no time passes, and holds it to leaving no timer behind. */
async function withoutTimers(work: () => Promise<void>): Promise<void> {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    await work();
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    vi.useRealTimers();
  }
}

describe("sleep", () => {
  it("ends after its time and leaves no listener", async () => {
    const { signal } = new AbortController();
    await sleep(1, signal);
    expect(listeners(signal)).toBe(0);
  });

  it("ends with the reason of its signal and leaves no timer or listener", () =>
    withoutTimers(async () => {
      const controller = new AbortController();
      const reason = new Error("stopping");
      const sleeping = sleep(hourMs, controller.signal);
      expect(listeners(controller.signal)).toBe(1);
      controller.abort(reason);
      await expect(sleeping).rejects.toBe(reason);
      expect(listeners(controller.signal)).toBe(0);
    }));

  it("does not begin under an aborted signal", () =>
    withoutTimers(async () => {
      const signal = AbortSignal.abort("gone");
      await expect(sleep(hourMs, signal)).rejects.toBeInstanceOf(CancelledError);
      expect(listeners(signal)).toBe(0);
    }));

  it("takes a time that is too long for a timer as very long, not as no time", async () => {
    const controller = new AbortController();
    const sleeping = sleep(2 ** 40, controller.signal);
    await expect(within(sleeping, 20)).resolves.toBe("timeout");
    controller.abort();
    await expect(sleeping).rejects.toThrow();
  });
});

describe("abortReason", () => {
  it("is the signal's reason where that is an error, else a CancelledError", () => {
    const reason = new Error("stopping");
    expect(abortReason(AbortSignal.abort(reason))).toBe(reason);
    expect(abortReason(AbortSignal.abort()).name).toBe("AbortError");
    expect(abortReason(AbortSignal.abort("text"))).toBeInstanceOf(CancelledError);
    expect(abortReason(undefined)).toBeInstanceOf(CancelledError);
  });
});

describe("abortable", () => {
  it("settles as its work does and leaves no listener", async () => {
    const { signal } = new AbortController();
    await expect(abortable(Promise.resolve(7), signal)).resolves.toBe(7);
    const error = new Error("broken");
    await expect(abortable(Promise.reject(error), signal)).rejects.toBe(error);
    await vi.waitFor(() => expect(listeners(signal)).toBe(0));
  });

  it("rejects with the signal's reason while the work still runs, and leaves no listener", async () => {
    const controller = new AbortController();
    const reason = new Error("stopping");
    const waiting = abortable(never, controller.signal);
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    expect(listeners(controller.signal)).toBe(0);
  });

  it("takes care of a rejection that comes after the abort", async () => {
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    try {
      const controller = new AbortController();
      const late = Promise.withResolvers<never>();
      const waiting = abortable(late.promise, controller.signal);
      controller.abort();
      await expect(waiting).rejects.toThrow();
      await expect(abortable(Promise.reject(new Error("late")), controller.signal)).rejects.toThrow(
        "aborted",
      );
      late.reject(new Error("late"));
      await new Promise((resolve) => setImmediate(resolve));
      expect(unhandled).not.toHaveBeenCalled();
    } finally {
      process.off("unhandledRejection", unhandled);
    }
  });
});

describe("deadline", () => {
  it("aborts with an InfraTimeoutError that names the operation and the limit", async () => {
    using limit = deadline(0.001, "the call of greet");
    await vi.waitFor(() => expect(limit.signal.aborted).toBe(true));
    const reason = abortReason(limit.signal);
    expect(reason).toBeInstanceOf(InfraTimeoutError);
    expect(reason).toMatchObject({
      message: "the call of greet took longer than 0.001 s",
      facts: { operation: "the call of greet", timeout_seconds: 0.001 },
    });
  });

  it("aborts with the reason of its parent", () => {
    const parent = new AbortController();
    using limit = deadline(3600, "the call", parent.signal);
    const reason = new Error("stopping");
    parent.abort(reason);
    expect(limit.signal.reason).toBe(reason);
  });

  it("is over at once under an aborted parent", () => {
    const parent = AbortSignal.abort(new Error("stopping"));
    using limit = deadline(3600, "the call", parent);
    expect(limit.signal.reason).toBe(parent.reason);
    expect(listeners(parent)).toBe(0);
  });

  it("leaves no timer and no listener once disposed, and no longer aborts", () =>
    withoutTimers(async () => {
      const parent = new AbortController();
      const limit = deadline(3600, "the call", parent.signal);
      expect(listeners(parent.signal)).toBe(1);
      limit[Symbol.dispose]();
      expect(listeners(parent.signal)).toBe(0);
      parent.abort();
      expect(limit.signal.aborted).toBe(false);
    }));

  it("does not end a limit of months at once", async () => {
    using limit = deadline(10_000_000, "the call");
    await sleep(20);
    expect(limit.signal.aborted).toBe(false);
  });
});

describe("within", () => {
  it("settles as its work does and leaves no timer", () =>
    withoutTimers(async () => {
      await expect(within(Promise.resolve(7), hourMs)).resolves.toBe(7);
      await expect(within(Promise.reject(new Error("broken")), hourMs)).rejects.toThrow("broken");
    }));

  it("gives up on work that takes too long, and takes care of its late rejection", async () => {
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    try {
      const late = Promise.withResolvers<never>();
      await expect(within(late.promise, 1)).resolves.toBe("timeout");
      late.reject(new Error("late"));
      await new Promise((resolve) => setImmediate(resolve));
      expect(unhandled).not.toHaveBeenCalled();
    } finally {
      process.off("unhandledRejection", unhandled);
    }
  });
});
