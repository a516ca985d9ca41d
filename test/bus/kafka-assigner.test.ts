import fc from "fast-check";
import { expect, test } from "vitest";
import { sharePartitions } from "../../src/bus/kafka-assigner.ts";

const partitions = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
const shares = (count: number, owned: Readonly<Record<string, number[]>>): Record<string, number[]> =>
  Object.fromEntries(
    sharePartitions(
      partitions(count),
      Object.entries(owned).map(([id, has]) => ({ id, owned: has })),
    ),
  );

test("a member that joins takes from the others only what is its share", () => {
  expect(shares(6, { a: [0, 1, 2], b: [3, 4, 5], c: [] })).toEqual({ a: [0, 1], b: [3, 4], c: [2, 5] });
  expect(shares(3, { a: [0, 1, 2], b: [] })).toEqual({ a: [0, 1], b: [2] });
});

test("what a member left goes to the others, who keep what they have", () => {
  expect(shares(5, { a: [4, 0], b: [3] })).toEqual({ a: [4, 0, 2], b: [3, 1] });
});

test("more members than partitions leave some with none", () => {
  expect(shares(1, { a: [], b: [0], c: [] })).toEqual({ a: [], b: [0], c: [] });
  expect(shares(3, {})).toEqual({});
});

test("whatever members claim, every partition has one member, shares differ by one at most, and nothing moves without need", () => {
  const members = fc.dictionary(
    fc.string({ minLength: 1, maxLength: 3 }),
    fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 12 }),
    { minKeys: 1, maxKeys: 6, noNullPrototype: true },
  );
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 25 }), members, (count, owned) => {
      const result = shares(count, owned);
      expect(
        Object.values(result)
          .flat()
          .toSorted((a, b) => a - b),
      ).toEqual(partitions(count));
      const sizes = Object.values(result).map((share) => share.length);
      expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
      // The same again: everyone keeps exactly what they have.
      const again = shares(count, result);
      for (const [id, share] of Object.entries(result))
        expect(again[id]?.toSorted()).toEqual(share.toSorted());
    }),
  );
});
