import fc from "fast-check";
import { expect, test } from "vitest";
import { backoffMs } from "../../src/core/backoff.ts";

test("the wait doubles with every failure in a row, up to its limit", () => {
  const waits = [0, 1, 2, 3, 4, 5, 6, 1000].map((failures) =>
    backoffMs(failures, { firstMs: 100, maxMs: 1000, random: () => 0.5 }),
  );
  expect(waits).toEqual([100, 100, 200, 400, 800, 1000, 1000, 1000]);
});

test("chance takes up to a quarter off, or adds it, also at the limit", () => {
  const wait = (failures: number, random: number): number =>
    backoffMs(failures, { firstMs: 100, maxMs: 1000, random: () => random });
  expect([wait(1, 0), wait(1, 1), wait(9, 0), wait(9, 1)]).toEqual([75, 125, 750, 1250]);
});

test("without a source of chance of its own it takes the common one, and waits differ", () => {
  const waits = Array.from({ length: 50 }, () => backoffMs(1, { firstMs: 100, maxMs: 1000 }));
  expect(new Set(waits).size).toBeGreaterThan(1);
});

test("it is a wait whatever failed however often", () => {
  const ms = fc.double({ min: 0, max: 1e9, noNaN: true });
  fc.assert(
    fc.property(fc.integer({ min: 0 }), ms, ms, (failures, firstMs, maxMs) => {
      const wait = backoffMs(failures, { firstMs, maxMs });
      expect(wait).toBeGreaterThanOrEqual(0);
      expect(wait).toBeLessThanOrEqual(maxMs * 1.25);
    }),
  );
});
