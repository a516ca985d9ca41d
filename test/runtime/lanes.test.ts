import { describe, expect, test } from "vitest";
import { Flights, Slots } from "../../src/runtime/lanes.ts";

const { signal } = new AbortController();

describe("slots", () => {
  test("a slot given to a caller who gives up in the same moment goes to the next", async () => {
    const slots = new Slots(1);
    await slots.take(signal);
    const caller = new AbortController();
    const first = slots.take(caller.signal);
    const second = slots.take(signal);
    caller.abort(new Error("gone"));
    slots.give();
    await expect(first).rejects.toThrow("gone");
    await second;

    const late = new AbortController();
    const third = slots.take(late.signal);
    const fourth = slots.take(signal);
    slots.give();
    late.abort(new Error("gone"));
    await third.then(
      () => slots.give(),
      () => undefined,
    );
    await fourth;
  });

  test("nothing is waited for with a signal that is aborted already", async () => {
    const slots = new Slots(1);
    await expect(slots.take(AbortSignal.abort(new Error("gone")))).rejects.toThrow("gone");
    await slots.take(signal);
  });
});

describe("flights", () => {
  test("a caller who comes right after the last one gave up begins anew", async () => {
    const flights = new Flights<number>();
    let begun = 0;
    const work = async (own: AbortSignal): Promise<number> => {
      begun += 1;
      if (begun === 2) return 2;
      return await new Promise((_resolve, reject) => {
        own.addEventListener("abort", () => setImmediate(() => reject(new Error("aborted"))));
      });
    };
    const caller = new AbortController();
    const first = flights.share("k", work, caller.signal);
    caller.abort(new Error("gone"));
    await expect(first).rejects.toThrow("gone");
    expect(await flights.share("k", work, signal)).toBe(2);
  });
});
