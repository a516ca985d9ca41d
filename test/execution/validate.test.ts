import { describe, expect, test } from "vitest";
import type { JsonSchema } from "../../src/tools/tool.ts";
import { maxArgumentBytes, Validators } from "../../src/execution/validate.ts";
import { toolOf } from "./helpers.ts";

const withSchema = (inputSchema: JsonSchema) =>
  toolOf({ kind: "local", module: "/x.ts", export: "x" }, { inputSchema });
const check = (schema: JsonSchema, args: Record<string, unknown>): string | undefined =>
  new Validators().checkArguments(withSchema(schema), args)?.text;
const property = (schema: JsonSchema): JsonSchema => ({ type: "object", properties: { x: schema } });

const weather: JsonSchema = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer", minimum: 1 } },
  required: ["city"],
  additionalProperties: false,
};

describe("messages name the path and what was expected", () => {
  test.each<[string, JsonSchema, Record<string, unknown>, string]>([
    ["type", weather, { city: 42 }, "/city: expected string, got number (42)"],
    ["required", weather, {}, 'missing required property "city"'],
    ["unknown property", weather, { city: "x", dayz: 1 }, 'unknown property "dayz"; did you mean "days"?'],
    [
      "unknown property without a near one",
      weather,
      { city: "x", wavelength: 1 },
      'unknown property "wavelength"',
    ],
    ["minimum", weather, { city: "x", days: 0 }, "/days: expected a number >= 1, got 0"],
    [
      "every problem",
      weather,
      { days: 0.5 },
      '/days: expected integer, got number (0.5); missing required property "city"; /days: expected a number >= 1, got 0.5',
    ],
    [
      "enum",
      property({ enum: ["celsius", "kelvin"] }),
      { x: "celsus" },
      '/x: expected one of "celsius", "kelvin", got string ("celsus"); did you mean "celsius"?',
    ],
    ["const", property({ const: 1 }), { x: null }, "/x: expected 1, got null"],
    ["multipleOf", property({ multipleOf: 5 }), { x: 7 }, "/x: expected a multiple of 5, got 7"],
    ["minLength", property({ minLength: 3 }), { x: "ab" }, '/x: expected at least 3 characters, got "ab"'],
    ["maxItems", property({ maxItems: 1 }), { x: [1, 2] }, "/x: expected at most 1 items, got 2"],
    ["minProperties", property({ minProperties: 1 }), { x: {} }, "/x: expected at least 1 properties, got 0"],
    ["pattern", property({ pattern: "^a" }), { x: "b" }, '/x: expected text that matches ^a, got "b"'],
    [
      "format",
      property({ format: "date" }),
      { x: "soon" },
      '/x: expected text of the format date, got "soon"',
    ],
    [
      "uniqueItems",
      property({ uniqueItems: true }),
      { x: [1, 2, 1] },
      "/x: expected items that differ, but items 0 and 2 are equal",
    ],
    [
      "anyOf",
      property({ anyOf: [{ type: "string" }, { type: "number" }] }),
      { x: true },
      "/x: expected string or number, got boolean (true)",
    ],
    [
      "oneOf",
      property({ oneOf: [{ minimum: 0 }, { minimum: 1 }] }),
      { x: 2 },
      "/x: matches more than one of the forms of which it may match only one",
    ],
    ["not", property({ not: { type: "object" } }), { x: {} }, "/x: not allowed here: object"],
    [
      "dependentRequired",
      { type: "object", dependentRequired: { a: ["b"] } },
      { a: 1 },
      'missing property "b", which "a" requires',
    ],
    [
      "unevaluatedProperties",
      { type: "object", properties: { city: {} }, unevaluatedProperties: false },
      { cty: 1 },
      'unknown property "cty"; did you mean "city"?',
    ],
    [
      "a rule without words of its own",
      property({ contains: { const: 1 } }),
      { x: [] },
      "/x: must contain at least 1 valid item(s)",
    ],
    [
      "nested paths",
      property({ type: "object", required: ["y"] }),
      { x: {} },
      '/x: missing required property "y"',
    ],
    [
      "names with slashes",
      { type: "object", properties: { "a/b": { type: "null" } } },
      { "a/b": 1 },
      "/a~1b: expected null, got number (1)",
    ],
  ])("%s", (_rule, schema, args, text) => {
    expect(check(schema, args)).toBe(text);
  });

  test("long values are shortened", () => {
    const text = check(weather, { city: ["x".repeat(5000)], days: "y".repeat(5000) }) ?? "";
    expect(text).toContain("/city: expected string, got array");
    expect(text).toContain('got string ("yyy');
    expect(text.length).toBeLessThan(250);
  });

  test("more than ten problems are counted", () => {
    const schema = property({ type: "array", items: { type: "string" } });
    const text = check(schema, { x: Array.from({ length: 30 }, (_, index) => index) }) ?? "";
    expect(text.split("; ")).toHaveLength(11);
    expect(text).toMatch(/; and 20 more$/);
  });

  test("the log gets paths only, never values", () => {
    const invalid = new Validators().checkArguments(withSchema(weather), { days: "secret" });
    expect(invalid?.paths).toEqual(["/city", "/days"]);
  });
});

test.each([
  ["2020-12", undefined],
  ["draft-07", "http://json-schema.org/draft-07/schema#"],
])("a schema that refers to itself as a whole holds at every level, in %s", (_name, dialect) => {
  const schema: JsonSchema = {
    ...(dialect !== undefined && { $schema: dialect }),
    type: "object",
    properties: { child: { $ref: "#" }, n: { type: "integer" } },
  };
  expect(check(schema, { child: { child: { n: 1 } } })).toBeUndefined();
  expect(check(schema, { child: { child: { n: "1" } } })).toContain("/child/child/n: expected integer");
});

describe("limits", () => {
  const free: JsonSchema = { type: "object" };

  test("1 MiB of arguments passes, more is refused", () => {
    expect(check(free, { x: "x".repeat(maxArgumentBytes - 100) })).toBeUndefined();
    expect(check(free, { x: "x".repeat(maxArgumentBytes) })).toBe("larger than 1048576 bytes");
    expect(check(free, { x: "é".repeat(maxArgumentBytes / 2) })).toBe("larger than 1048576 bytes");
    expect(check(free, { x: Array.from({ length: 600_000 }, () => 1) })).toBe("larger than 1048576 bytes");
  });

  test("ten levels pass, eleven are refused with the path, a cycle too", () => {
    const nest = (levels: number): Record<string, unknown> => (levels === 1 ? {} : { a: nest(levels - 1) });
    expect(check(free, nest(10))).toBeUndefined();
    expect(check(free, nest(11))).toBe("/a/a/a/a/a/a/a/a/a/a: nested deeper than 10 levels");
    const cycle: Record<string, unknown> = {};
    cycle.self = cycle;
    expect(check(free, cycle)).toContain("nested deeper than 10 levels");
  });

  test("what JSON cannot carry is refused with its path", () => {
    expect(check(free, { a: [1n] })).toBe("/a/0: a bigint is not a JSON value");
    expect(check(free, { f: () => 1 })).toBe("/f: a function is not a JSON value");
  });

  test("a megabyte of wrong items costs one problem, not one each", () => {
    const schema = property({ type: "array", items: { type: "string" } });
    const text = check(schema, { x: Array.from({ length: 300_000 }, () => 1) });
    expect(text).toBe("/x/0: expected string, got number (1)");
  });
});

describe("uniqueItems", () => {
  const unique = property({ type: "array", uniqueItems: true });
  const draft7 = { $schema: "http://json-schema.org/draft-07/schema#", ...unique };

  test.each([
    ["2020-12", unique],
    ["draft-07", draft7],
  ])("judges 100,000 objects (%s)", (_dialect, schema) => {
    const validators = new Validators();
    const x = Array.from({ length: 100_000 }, (_, n) => ({ n, text: "t" }));
    expect(validators.checkOutput(withSchema(schema), schema, { x })).toBeUndefined();
    expect(validators.checkOutput(withSchema(schema), schema, { x: [...x, { text: "t", n: 7 }] })?.text).toBe(
      "/x: expected items that differ, but items 7 and 100000 are equal",
    );
  });

  test.each<[string, unknown, unknown]>([
    [
      "objects whose members are in another order",
      { a: 1, b: [{ c: 1, d: 2 }] },
      { b: [{ d: 2, c: 1 }], a: 1 },
    ],
    ["arrays", [1, "a"], [1, "a"]],
    ["texts", "a", "a"],
    ["zeros of either sign", 0, -0],
    ["nulls", null, null],
  ])("takes %s for equal", (_what, a, b) => {
    expect(check(unique, { x: [a, b] })).toBe("/x: expected items that differ, but items 0 and 1 are equal");
    expect(check(draft7, { x: [a, b] })).toBe("/x: expected items that differ, but items 0 and 1 are equal");
  });

  test.each<[unknown, unknown]>([
    [1, "1"],
    [true, 1],
    [true, "true"],
    [null, "null"],
    [{ a: 1 }, '{"a":1}'],
    [{ a: 1 }, { a: "1" }],
    [
      [1, 2],
      [2, 1],
    ],
    [["1,2"], ["1", "2"]],
    [[], {}],
  ])("takes %j and %j for different", (a, b) => {
    expect(check(unique, { x: [a, b] })).toBeUndefined();
  });

  test("false asks for nothing", () => {
    expect(check(property({ uniqueItems: false }), { x: [1, 1] })).toBeUndefined();
  });
});

describe("patterns", () => {
  const matches = (pattern: string, x: string): boolean => check(property({ pattern }), { x }) === undefined;

  test("a pattern that backtracks without end does not stop the runtime", () => {
    const endless = "a".repeat(100_000);
    for (const pattern of ["^(a+)+$", "^(a|a)*$", "^([a-z]+)*$", "(x+x+)+y|^(a*)*b$"]) {
      expect(matches(pattern, `${endless}!`)).toBe(false);
      expect(matches(pattern, `${endless}\u{1f600}`)).toBe(false);
    }
    expect(matches("^(a+)+$", endless)).toBe(true);
  });

  test("property names that backtrack without end do not stop the runtime", () => {
    const schema: JsonSchema = { patternProperties: { "^(a+)+$": { type: "string" } } };
    expect(check(schema, { [`${"a".repeat(100)}!`]: 1 })).toBeUndefined();
    expect(check(schema, { aaa: 1 })).toBe("/aaa: expected string, got number (1)");
  });

  test("match by code points, as under the u flag", () => {
    const texts = [
      "",
      "a",
      "\u{1f600}",
      "a\u{1f600}",
      "\ud83d",
      "\ude00",
      "\uffff",
      "\u{10ffff}\u{1f600}",
      "\u017f",
      "s",
    ];
    const patterns = [
      "^.$",
      "^..$",
      "^[^a]{2}$",
      "^\\S$",
      "^\\W$",
      "^\\w$",
      "^\\D{1,2}$",
      "^[\\u0080-\\uffff]$",
      "^[\u0080-\uffff]$",
      "^\\p{Emoji}$",
      "^\\P{L}$",
      "^\\u{1f600}$",
      "^[\u{1f600}a]$",
      "^\\ud83d$",
      "^\\ud83d\\ude00$",
      "^[\\ud800-\\udfff]$",
      "^(?i:s)$",
      "^[\\s\\S]$",
      "^(?<name>.)\\k<name>?$",
      "^(.)\\1?$",
      "^[\\-\\]]?$",
      "^(?:)$",
      "^[\\u00e0-\\ufffe]$",
    ];
    for (const pattern of patterns)
      for (const text of texts)
        expect([pattern, text, matches(pattern, text)]).toEqual([
          pattern,
          text,
          new RegExp(pattern, "u").test(text),
        ]);
  });

  test("two of one schema are told apart", () => {
    const schema: JsonSchema = { properties: { x: { pattern: "^a" }, y: { pattern: "^b" } } };
    expect(check(schema, { x: "a", y: "b" })).toBeUndefined();
    expect(check(schema, { x: "a", y: "a" })).toBe('/y: expected text that matches ^b, got "a"');
  });
});

describe("dialects", () => {
  const tuple = {
    draft07: { items: [{ type: "string" }], additionalItems: false },
    draft2020: { prefixItems: [{ type: "string" }], items: false },
  };

  test("2020-12 is the default", () => {
    expect(check(property(tuple.draft2020), { x: [1] })).toBe("/x/0: expected string, got number (1)");
  });

  test("draft-07 where $schema says so", () => {
    const schema = { $schema: "http://json-schema.org/draft-07/schema#", ...property(tuple.draft07) };
    expect(check(schema, { x: [1] })).toBe("/x/0: expected string, got number (1)");
    expect(check(schema, { x: ["a"] })).toBeUndefined();
  });

  test("another one is an error that names it", () => {
    expect(() => check({ $schema: "https://json-schema.org/draft/2019-09/schema" }, {})).toThrow(
      'The input schema of "sample" cannot be used: its dialect is "https://json-schema.org/draft/2019-09/schema"; supported are JSON Schema 2020-12 and draft-07',
    );
  });

  test("a reference to the network is an error, never a request", () => {
    expect(() => check({ $ref: "https://example.com/schema.json" }, {})).toThrow(
      /cannot be used: can't resolve/,
    );
  });

  test("two tools may give different schemas one $id", () => {
    const validators = new Validators();
    const id = "https://example.com/input";
    const one = withSchema({ $id: id, type: "object", required: ["a"] });
    const two = withSchema({ $id: id, type: "object", required: ["b"] });
    expect(validators.checkArguments(one, {})?.text).toBe('missing required property "a"');
    expect(validators.checkArguments(two, {})?.text).toBe('missing required property "b"');
  });
});

describe("compiled validators", () => {
  test("are shared by equal schemas and given up, the least recently used first", () => {
    const validators = new Validators(2);
    const use = (name: string): void => {
      expect(validators.checkArguments(withSchema(property({ const: name })), { x: name })).toBeUndefined();
    };
    use("a");
    use("a");
    expect(validators.size).toBe(1);
    use("b");
    use("c");
    expect(validators.size).toBe(2);
    use("a");
  });

  test("are freed with the last tool that had their schema", () => {
    const validators = new Validators();
    const [kept, gone] = [withSchema(property({ const: 1 })), withSchema(property({ const: 2 }))];
    for (const tool of [kept, gone]) validators.checkArguments(tool, {});
    expect(validators.size).toBe(2);
    validators.retain([kept]);
    expect(validators.size).toBe(1);
    validators.retain([]);
    expect(validators.size).toBe(0);
  });
});
