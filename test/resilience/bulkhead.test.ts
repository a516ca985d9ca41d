import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Bulkhead, type Waiting } from "../../src/resilience/bulkhead.ts";

const nothing = (): void => undefined;

describe("a bulkhead", () => {
  test("lets in as many as its limit, lets as many wait as its queue has, and refuses the next", () => {
    const bulkhead = new Bulkhead(2, 1);
    expect([bulkhead.enter(), bulkhead.enter(), bulkhead.enter()]).toEqual([true, true, false]);
    expect(bulkhead.full).toBe(false);
    expect(bulkhead.wait(nothing)).toBeDefined();
    expect(bulkhead.full).toBe(true);
    expect(bulkhead.wait(nothing)).toBeUndefined();
    expect([bulkhead.active, bulkhead.waiting, bulkhead.load]).toEqual([2, 1, 3]);
  });

  test("lets those who wait in in their order, one for each who leaves", () => {
    const bulkhead = new Bulkhead(1, 3);
    const order: number[] = [];
    bulkhead.enter();
    for (const n of [1, 2, 3]) bulkhead.wait(() => order.push(n));
    bulkhead.leave();
    expect(order).toEqual([1]);
    expect(bulkhead.enter()).toBe(false);
    bulkhead.leave();
    bulkhead.leave();
    expect(order).toEqual([1, 2, 3]);
    bulkhead.leave();
    expect(bulkhead.load).toBe(0);
  });

  test("lets who waits quit from anywhere in the queue, at once and once", () => {
    const bulkhead = new Bulkhead(1, 3);
    const order: number[] = [];
    bulkhead.enter();
    const [first, second, third] = [1, 2, 3].map((n) => bulkhead.wait(() => order.push(n))!);
    expect(bulkhead.quit(second!)).toBe(true);
    expect(bulkhead.quit(second!)).toBe(false);
    expect(bulkhead.waiting).toBe(2);
    bulkhead.leave();
    expect(bulkhead.quit(first!)).toBe(false);
    bulkhead.leave();
    expect(order).toEqual([1, 3]);
    expect(bulkhead.quit(third!)).toBe(false);
  });

  test("without a queue is full at its limit", () => {
    const bulkhead = new Bulkhead(1, 0);
    expect(bulkhead.full).toBe(false);
    bulkhead.enter();
    expect(bulkhead.full).toBe(true);
    expect(bulkhead.wait(nothing)).toBeUndefined();
  });

  test("never forgets a place or lets anybody past the others, whatever comes in which order", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 0, max: 4 }),
        fc.array(fc.record({ what: fc.constantFrom("come", "leave", "quit"), which: fc.nat(20) }), {
          maxLength: 200,
        }),
        (limit, queue, steps) => {
          const bulkhead = new Bulkhead(limit, queue);
          // The same in the simplest way: two lists.
          const inside: number[] = [];
          let waiting: { readonly id: number; readonly place: Waiting }[] = [];
          let id = 0;
          for (const { what, which } of steps) {
            if (what === "come") {
              const own = ++id;
              const isFull = inside.length === limit && waiting.length === queue;
              expect(bulkhead.full).toBe(isFull);
              if (bulkhead.enter()) {
                expect(waiting).toEqual([]);
                inside.push(own);
                continue;
              }
              const place = bulkhead.wait(() => {
                expect(waiting[0]?.id).toBe(own);
                waiting = waiting.slice(1);
                inside.push(own);
              });
              expect(place === undefined).toBe(isFull);
              if (place !== undefined) waiting.push({ id: own, place });
            } else if (what === "leave" && inside.length > 0) {
              inside.splice(which % inside.length, 1);
              bulkhead.leave();
            } else if (what === "quit" && waiting.length > 0) {
              const [gone] = waiting.splice(which % waiting.length, 1);
              expect(bulkhead.quit(gone!.place)).toBe(true);
            }
            expect([bulkhead.active, bulkhead.waiting]).toEqual([inside.length, waiting.length]);
            expect(inside.length).toBeLessThanOrEqual(limit);
          }
        },
      ),
    );
  });
});
