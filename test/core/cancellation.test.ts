import { describe, expect, it, vi } from "vitest";
import { abortSignalOf, Cancellation, type CallSignal } from "../../src/core/abort.ts";

describe("a cancellation", () => {
  it("tells every listener once, with its reason", () => {
    const cancellation = new Cancellation();
    const [first, second, third] = [vi.fn(), vi.fn(), vi.fn()];
    for (const listener of [first, second, third]) cancellation.addEventListener("abort", listener);
    cancellation.removeEventListener("abort", second);
    cancellation.abort("over");
    cancellation.abort("again");
    expect(cancellation).toMatchObject({ aborted: true, reason: "over" });
    expect(first).toHaveBeenCalledOnce();
    expect(second).not.toHaveBeenCalled();
    expect(third).toHaveBeenCalledOnce();
  });

  it("tells a listener that was its only one and has been taken away nothing", () => {
    const cancellation = new Cancellation();
    const listener = vi.fn();
    cancellation.addEventListener("abort", listener);
    cancellation.removeEventListener("abort", listener);
    cancellation.abort("over");
    expect(listener).not.toHaveBeenCalled();
  });

  it("does not call a listener that comes after it", () => {
    const cancellation = new Cancellation();
    cancellation.abort("over");
    const listener = vi.fn();
    cancellation.addEventListener("abort", listener);
    expect(listener).not.toHaveBeenCalled();
  });

  it("is an AbortSignal for code that wants one, asked for before or after", () => {
    const cancellation = new Cancellation();
    const before = cancellation.signal;
    expect(before.aborted).toBe(false);
    cancellation.abort("over");
    expect(before).toMatchObject({ aborted: true, reason: "over" });
    expect(cancellation.signal).toBe(before);
    const late = new Cancellation();
    late.abort("over");
    expect(late.signal).toMatchObject({ aborted: true, reason: "over" });
  });
});

describe("the AbortSignal of a signal", () => {
  it("is itself where it is one", () => {
    const { signal } = new AbortController();
    expect(abortSignalOf(signal)).toBe(signal);
  });

  it("aborts with it where it is neither that nor a cancellation", () => {
    const cancellation = new Cancellation();
    const foreign: CallSignal = {
      get aborted() {
        return cancellation.aborted;
      },
      get reason() {
        return cancellation.reason;
      },
      addEventListener: (type, listener) => cancellation.addEventListener(type, listener),
      removeEventListener: (type, listener) => cancellation.removeEventListener(type, listener),
    };
    const signal = abortSignalOf(foreign);
    cancellation.abort("over");
    expect(signal).toMatchObject({ aborted: true, reason: "over" });
    expect(abortSignalOf(foreign)).toMatchObject({ aborted: true, reason: "over" });
  });
});
