import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isObject, NotJsonError, toJsonValue } from "../../src/core/json.ts";

describe("toJsonValue", () => {
  it("gives what JSON.stringify writes, for anything that JSON.stringify can write", () => {
    fc.assert(
      fc.property(
        fc.anything({ withDate: true, withNullPrototype: true, withSparseArray: true, withTypedArray: true }),
        (value) => {
          expect(JSON.stringify(toJsonValue(value))).toBe(JSON.stringify(value ?? null));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it("gives any JSON document back unchanged, `__proto__` members included", () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        const value = toJsonValue(JSON.parse(text));
        expect(JSON.stringify(value)).toBe(JSON.stringify(JSON.parse(text)));
      }),
      { numRuns: 1000 },
    );
  });

  it("keeps a `__proto__` member as data and sets no prototype", () => {
    const value = toJsonValue(JSON.parse('{"__proto__": {"admin": true}, "a": 1}'));
    expect(Object.keys(value as object)).toEqual(["__proto__", "a"]);
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
    expect((value as Record<string, unknown>).admin).toBeUndefined();
    expect(({} as Record<string, unknown>).admin).toBeUndefined();
  });

  it("writes numbers that JSON lacks as null, and undefined as null where it must stand for something", () => {
    expect(toJsonValue([Number.NaN, Number.POSITIVE_INFINITY, -1.5, undefined])).toEqual([
      null,
      null,
      -1.5,
      null,
    ]);
    expect(toJsonValue(undefined)).toBeNull();
    expect(toJsonValue({ a: undefined, b: null })).toEqual({ b: null });
  });

  it("fills the holes of a sparse array", () => {
    const sparse: unknown[] = [];
    sparse[2] = 1;
    const value = toJsonValue(sparse) as unknown[];
    expect(value).toHaveLength(3);
    expect(Object.keys(value)).toEqual(["0", "1", "2"]);
  });

  it("uses toJSON, with the object as `this`", () => {
    class Money {
      readonly cents = 1250;
      toJSON(): unknown {
        return { euros: this.cents / 100 };
      }
    }
    expect(toJsonValue({ at: new Date(0), price: new Money() })).toEqual({
      at: "1970-01-01T00:00:00.000Z",
      price: { euros: 12.5 },
    });
  });

  it("accepts one object in two places, for that is no cycle", () => {
    const shared = { a: 1 };
    expect(toJsonValue({ x: shared, y: [shared, shared] })).toEqual({ x: { a: 1 }, y: [{ a: 1 }, { a: 1 }] });
  });

  it("refuses a cycle and names the place", () => {
    const value: Record<string, unknown> = { list: [{}] };
    (value.list as Record<string, unknown>[])[0]!.back = value;
    expect(() => toJsonValue(value)).toThrow(NotJsonError);
    expect(() => toJsonValue(value)).toThrow("a cycle at $.list[0].back");
  });

  it.each<[string, unknown, string]>([
    ["a BigInt", { total: [1n] }, "a BigInt at $.total[0] has no JSON form; convert it"],
    ["a function", { run: () => 1 }, "a function at $.run has no JSON form"],
    ["a symbol", [Symbol("s")], "a symbol at $[0] has no JSON form"],
  ])("refuses %s and names the place", (_what, value, text) => {
    expect(() => toJsonValue(value)).toThrow(NotJsonError);
    expect(() => toJsonValue(value)).toThrow(text);
  });

  it("refuses endless depth rather than run out of stack", () => {
    const endless = { toJSON: (): unknown => ({ inner: endless }) };
    expect(() => toJsonValue(endless)).toThrow(NotJsonError);
    expect(() => toJsonValue(endless)).toThrow("nested more than 1000 levels deep");
    let deep: unknown = 1;
    for (let level = 0; level < 1000; level += 1) deep = [deep];
    expect(toJsonValue(deep)).toEqual(deep);
    expect(() => toJsonValue([deep])).toThrow(NotJsonError);
  });
});

describe("isObject", () => {
  it.each([
    [{}, true],
    [Object.create(null), true],
    [new Date(), true],
    [[], false],
    [null, false],
    [undefined, false],
    ["text", false],
    [() => 1, false],
  ])("of %o is %s", (value, expected) => {
    expect(isObject(value)).toBe(expected);
  });
});
