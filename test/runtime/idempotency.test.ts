import { describe, expect, test, vi } from "vitest";
import { errorAnswer, successAnswer, type Answer } from "../../src/bus/envelope.ts";
import { Idempotency } from "../../src/runtime/idempotency.ts";

const facts = { handlerId: null, processingTimeMs: 0 };
const success = (payload: unknown): Answer =>
  successAnswer({ correlation_id: "c", envelope_id: "e" }, payload, facts);
const failure = (): Answer => errorAnswer({ correlation_id: "c", envelope_id: "e" }, new Error("no"), facts);
const { signal } = new AbortController();
const day = 24 * 60 * 60 * 1000;

describe("idempotency", () => {
  test("remembers a success for 24 hours", async () => {
    let now = 0;
    const remembered = new Idempotency({ now: () => now });
    const work = vi.fn(async () => success(1));
    expect(await remembered.once("k", work, signal)).toMatchObject({ duplicate: false });
    now = day - 1;
    expect(await remembered.once("k", work, signal)).toMatchObject({
      duplicate: true,
      answer: { payload: 1 },
    });
    now = day;
    expect(await remembered.once("k", work, signal)).toMatchObject({ duplicate: false });
    expect(work).toHaveBeenCalledTimes(2);
  });

  test("forgets the oldest where there are too many", async () => {
    const remembered = new Idempotency({ now: () => 0 }, { entries: 2, characters: 1000 });
    const seen = async (key: string) =>
      (await remembered.once(key, async () => success(1), signal)).duplicate;
    for (const key of ["a", "b", "c"]) await seen(key);
    expect(await seen("b")).toBe(true);
    expect(await seen("c")).toBe(true);
    expect(await seen("a")).toBe(false);
  });

  test("forgets the oldest where they are too large together, and always remembers the latest", async () => {
    const remembered = new Idempotency({ now: () => 0 }, { entries: 100, characters: 25 });
    const seen = async (key: string, length: number) =>
      (await remembered.once(key, async () => success("x".repeat(length)), signal)).duplicate;
    for (const key of ["a", "b", "c"]) await seen(key, 10);
    expect(await seen("b", 10)).toBe(true);
    expect(await seen("c", 10)).toBe(true);
    expect(await seen("a", 10)).toBe(false);
    expect(await seen("huge", 1000)).toBe(false);
    expect(await seen("huge", 1000)).toBe(true);
    expect(await seen("small", 1)).toBe(false);
    expect(await seen("small", 1)).toBe(true);
    expect(await seen("huge", 1000)).toBe(false);
  });

  test("does not remember a failure, nor work that rejects", async () => {
    const remembered = new Idempotency();
    await remembered.once("k", async () => failure(), signal);
    await expect(remembered.once("k", () => Promise.reject(new Error("x")), signal)).rejects.toThrow("x");
    expect(await remembered.once("k", async () => success(1), signal)).toMatchObject({ duplicate: false });
  });

  test("a duplicate that waits can give up alone", async () => {
    const remembered = new Idempotency();
    const gate = Promise.withResolvers<Answer>();
    const first = remembered.once("k", () => gate.promise, signal);
    const caller = new AbortController();
    const second = remembered.once("k", async () => success(2), caller.signal);
    caller.abort(new Error("gone"));
    await expect(second).rejects.toThrow("gone");
    gate.resolve(success(1));
    expect((await first).answer.payload).toBe(1);
  });
});
