import { describe, expect, test } from "vitest";
import { Picker, type Terms } from "../../src/execution/picker.ts";

interface Item {
  readonly name: string;
  readonly weight: number;
}

const item = (name: string, weight = 1): Item => ({ name, weight });

/** The same numbers in [0, 1) each time. */
function dice(seed = 1): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const terms = (more: Partial<Terms<Item>> = {}): Terms<Item> => ({
  load: () => 0,
  allows: () => true,
  random: dice(),
  ...more,
});

/** How often each item was picked. */
function tally(picker: Picker<Item>, times: number, own: Terms<Item>): Record<string, number> {
  const counts: Record<string, number> = {};
  for (let n = 0; n < times; n++) {
    const name = picker.pick(own)?.name ?? "none";
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

describe("a pick", () => {
  test("of nothing is nothing, of one is that one, unless it is not allowed", () => {
    expect(new Picker<Item>([]).pick(terms())).toBeUndefined();
    expect(new Picker([item("a")]).pick(terms())?.name).toBe("a");
    expect(new Picker([item("a")]).pick(terms({ allows: () => false }))).toBeUndefined();
  });

  test("among idle items follows their weights", () => {
    const counts = tally(new Picker([item("a"), item("b", 3), item("c", 6)]), 100_000, terms());
    expect(counts.a).toBeGreaterThan(9_000);
    expect(counts.a).toBeLessThan(11_000);
    expect(counts.b).toBeGreaterThan(28_500);
    expect(counts.b).toBeLessThan(31_500);
  });

  test("of two takes the one with fewer calls for its weight", () => {
    const load: Record<string, number> = { a: 2, b: 5 };
    const own = terms({ load: ({ name }) => load[name] ?? 0 });
    expect(tally(new Picker([item("a"), item("b")]), 100, own)).toEqual({ a: 100 });
    expect(tally(new Picker([item("a"), item("b", 3)]), 100, own)).toEqual({ b: 100 });
  });

  test("never takes the busiest of many, and hardly ever leaves an idle one out", () => {
    const load: Record<string, number> = { a: 100, b: 1, c: 1, d: 0 };
    const own = terms({ load: ({ name }) => load[name] ?? 0 });
    const counts = tally(new Picker(["a", "b", "c", "d"].map((name) => item(name))), 10_000, own);
    expect(counts.a).toBeUndefined();
    expect(counts.d).toBeGreaterThan(4_500);
  });

  test("passes over what is not allowed, and keeps to the weights of the others", () => {
    const own = terms({ allows: ({ name }) => name !== "b" });
    const counts = tally(new Picker([item("a"), item("b", 100), item("c", 3)]), 10_000, own);
    expect(counts.b).toBeUndefined();
    expect(counts.a).toBeGreaterThan(2_200);
    expect(counts.a).toBeLessThan(2_800);
    expect(
      tally(new Picker([item("a"), item("b")]), 10, terms({ allows: ({ name }) => name === "b" })),
    ).toEqual({
      b: 10,
    });
    expect(tally(new Picker([item("a"), item("b")]), 1, terms({ allows: () => false }))).toEqual({ none: 1 });
  });

  test.each([0, 0.5, 1 - 2 ** -53])("is always an item, whatever the dice say (%d)", (value) => {
    for (const weights of [
      [1, 1],
      [1, 1, 1],
      [0.1, 0.2, 0.7],
      [65_535, 1],
      [1, 65_535],
    ]) {
      const picker = new Picker(weights.map((weight, index) => item(String(index), weight)));
      expect(picker.pick(terms({ random: () => value }))).toBeDefined();
    }
  });

  test("compares two different items: with one of two busy the other one gets every call", () => {
    const own = terms({ load: ({ name }) => (name === "a" ? 1 : 0) });
    expect(tally(new Picker([item("a", 1000), item("b", 1000)]), 1000, own)).toEqual({ b: 1000 });
  });
});
