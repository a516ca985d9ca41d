import { Client } from "@modelcontextprotocol/client";
import { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { ToolSchema } from "@modelcontextprotocol/sdk/types.js";
import { InMemoryTransport, Server } from "@modelcontextprotocol/server";
import { Ajv } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { normaliseInputSchema, normaliseOutputSchema } from "../../src/contract/input-schema.ts";

const draft07 = "http://json-schema.org/draft-07/schema#";
const draft2020 = "https://json-schema.org/draft/2020-12/schema";

function schemaOf(input: unknown): Record<string, unknown> {
  const result = normaliseInputSchema(input);
  if (!result.ok) throw new Error(result.problem);
  return result.schema;
}

function problemOf(input: unknown): string {
  const result = normaliseInputSchema(input);
  return result.ok ? "no problem" : result.problem;
}

describe("the root", () => {
  test.each([
    ["an absent schema", undefined],
    ["null", null],
    ["true", true],
    ["an empty schema", {}],
    ["a list of types with object", { type: ["object", "null"] }],
  ])("%s becomes type: object", (_, input) => {
    expect(schemaOf(input)).toEqual({ type: "object" });
  });

  test.each([
    ["false", false],
    ["a string", "object"],
    ["a list", [{ type: "object" }]],
    ["another type", { type: "string" }],
    ["a list of other types", { type: ["string", "null"] }],
  ])("%s is refused", (_, input) => {
    expect(problemOf(input)).not.toBe("no problem");
  });

  test("a good schema passes unchanged, with the order of its keys", () => {
    const schema = {
      $schema: draft2020,
      type: "object",
      $defs: { address: { $anchor: "addressDef", type: "object", properties: { city: { type: "string" } } } },
      properties: { name: { type: "string" }, address: { $ref: "#/$defs/address" } },
      allOf: [{ anyOf: [{ required: ["name"] }, { required: ["address"] }] }],
      if: { properties: { name: { const: "x" } } },
      then: { required: ["address"] },
      else: { required: ["name"] },
      additionalProperties: false,
    };
    const result = normaliseInputSchema(schema);
    expect(result).toMatchObject({ ok: true, repairs: [] });
    expect(JSON.stringify(schemaOf(schema))).toBe(JSON.stringify(schema));
  });

  test("an output schema keeps a root that is not an object, and need not exist", () => {
    expect(normaliseOutputSchema({ type: "array", items: { type: "string" } })).toEqual({
      ok: true,
      schema: { type: "array", items: { type: "string" } },
      repairs: [],
    });
    expect(normaliseOutputSchema({ type: "strin" })).toMatchObject({ ok: false });
    expect(normaliseOutputSchema("text")).toMatchObject({ ok: false });
  });
});

describe("repairs", () => {
  test("boolean sub-schemas are rewritten in every position, but not where every client takes them", () => {
    const schema = schemaOf({
      type: "object",
      properties: { a: true, b: false, c: { type: "array", prefixItems: [true], items: false } },
      patternProperties: { "^x": true },
      propertyNames: true,
      anyOf: [true, { not: false }],
      $defs: { d: true },
      dependentSchemas: { a: true },
      additionalProperties: false,
      unevaluatedProperties: true,
    });
    expect(schema).toEqual({
      type: "object",
      properties: { a: {}, b: { not: {} }, c: { type: "array", prefixItems: [{}], items: { not: {} } } },
      patternProperties: { "^x": {} },
      propertyNames: {},
      anyOf: [{}, { not: { not: {} } }],
      $defs: { d: {} },
      dependentSchemas: { a: {} },
      additionalProperties: false,
      unevaluatedProperties: true,
    });
  });

  test("draft-07 positions are known too", () => {
    expect(
      schemaOf({
        $schema: draft07,
        properties: { a: { items: [true, false], additionalItems: false } },
        definitions: { d: true },
        dependencies: { a: ["b"], c: true },
      }),
    ).toEqual({
      $schema: draft07,
      type: "object",
      properties: { a: { items: [{}, { not: {} }], additionalItems: false } },
      definitions: { d: {} },
      dependencies: { a: ["b"], c: {} },
    });
  });

  test("booleans and nulls that are data stay", () => {
    const schema = {
      type: "object",
      properties: { a: { const: true }, b: { enum: [true, null] }, c: { default: null, examples: [false] } },
    };
    expect(schemaOf(schema)).toEqual(schema);
  });

  test("keys that an author left empty are left out", () => {
    expect(
      schemaOf({ type: "object", properties: null, required: null, description: null, not: null }),
    ).toEqual({
      type: "object",
    });
    expect(schemaOf({ properties: { city: null } })).toEqual({ type: "object", properties: { city: {} } });
  });

  test("nullable is said by the type", () => {
    expect(
      schemaOf({
        type: "object",
        properties: {
          a: { type: "string", nullable: true },
          b: { enum: ["x"], type: "string", nullable: true },
          c: { nullable: true },
          d: { type: "string", nullable: false },
        },
      }).properties,
    ).toEqual({
      a: { type: ["string", "null"] },
      b: { enum: ["x", null], type: ["string", "null"] },
      c: {},
      d: { type: "string" },
    });
  });

  test("a header mark that makes clients drop the tool is left out, a good one stays", () => {
    const marked = (type: string, name: unknown) => ({ type, "x-mcp-header": name });
    const schema = {
      type: "object",
      properties: {
        region: marked("string", "Region"),
        spaced: marked("string", "my header"),
        ratio: marked("number", "Ratio"),
        again: marked("string", "REGION"),
        inner: { type: "object", properties: { zone: marked("string", "Zone") } },
        list: { type: "array", items: marked("string", "Item") },
      },
    };
    const result = normaliseInputSchema(schema);
    expect(result).toMatchObject({
      ok: true,
      repairs: [
        "/properties/spaced/x-mcp-header: it is no header's name, left out",
        "/properties/ratio/x-mcp-header: only a string, an integer or a boolean can be a header, left out",
        "/properties/again/x-mcp-header: another property has the same header, left out",
        "/properties/list/items/x-mcp-header: only what properties alone lead to can be a header, left out",
      ],
    });
    expect(JSON.stringify(result).match(/"x-mcp-header":"(Region|Zone)"/g)).toHaveLength(2);
  });

  test("each repair is told with its place", () => {
    const result = normaliseInputSchema({ properties: { "a/b": true } });
    expect(result).toMatchObject({ repairs: ["/properties/a~1b: true is written {}", expect.any(String)] });
  });
});

describe("references", () => {
  test("a reference by $id or anchor becomes a pointer, and no $id is published", () => {
    expect(
      schemaOf({
        $id: "https://example.com/tool.json",
        type: "object",
        properties: {
          a: { $ref: "tool.json#/$defs/x" },
          b: { $ref: "#named" },
          c: { $ref: "inner.json" },
          d: { $ref: "inner.json#leaf" },
        },
        $defs: {
          x: { $anchor: "named", type: "string" },
          y: { $id: "inner.json", type: "object", properties: { z: { $anchor: "leaf", type: "number" } } },
        },
      }),
    ).toEqual({
      type: "object",
      properties: {
        a: { $ref: "#/$defs/x" },
        b: { $ref: "#/$defs/x" },
        c: { $ref: "#/$defs/y" },
        d: { $ref: "#/$defs/y/properties/z" },
      },
      $defs: {
        x: { $anchor: "named", type: "string" },
        y: { type: "object", properties: { z: { type: "number" } } },
      },
    });
  });

  test("a target that stands where no schema stands is brought to one", () => {
    expect(
      schemaOf({
        type: "object",
        properties: { a: { $ref: "#/components/schemas/Node" } },
        components: { schemas: { Node: { properties: { next: { $ref: "#/components/schemas/Node" } } } } },
      }),
    ).toMatchObject({
      properties: { a: { $ref: "#/$defs/Node" } },
      $defs: { Node: { properties: { next: { $ref: "#/$defs/Node" } } } },
    });
  });

  test("a dynamic reference with one target becomes a plain one", () => {
    const schema = schemaOf({
      type: "object",
      $dynamicAnchor: "node",
      properties: { child: { $dynamicRef: "#node" } },
    });
    expect(schema).toEqual({ type: "object", properties: { child: { $ref: "#" } } });
  });

  test("names that a URI cannot hold are encoded", () => {
    const schema = schemaOf({
      type: "object",
      properties: { a: { $ref: "#/$defs/List[a b]" } },
      $defs: { "List[a b]": { type: "string" } },
    });
    expect(schema.properties).toEqual({ a: { $ref: "#/$defs/List%5Ba%20b%5D" } });
    expect(new Ajv2020().compile(schema)({ a: 1 })).toBe(false);
  });

  test.each([
    ["to nothing", { properties: { a: { $ref: "#/$defs/none" } } }, "leads to nothing"],
    ["to an unknown anchor", { properties: { a: { $ref: "#none" } } }, "leads to nothing"],
    ["to the network", { properties: { a: { $ref: "https://example.com/x.json" } } }, "never fetched"],
    ["to a file, from code", { properties: { a: { $ref: "./x.json" } } }, "not in a file"],
    [
      "to what is no schema",
      { required: ["a"], properties: { a: { $ref: "#/required" } } },
      "must be object",
    ],
    ["that is not valid", { properties: { a: { $ref: "#/%zz" } } }, "not a valid address"],
    ["to itself", { $ref: "#" }, "without end"],
    [
      "in a circle",
      { $ref: "#/$defs/a", $defs: { a: { anyOf: [{ $ref: "#/$defs/b" }] }, b: { $ref: "#/$defs/a" } } },
      "without end",
    ],
  ])("a reference %s is refused", (_, schema, reason) => {
    expect(problemOf({ type: "object", ...schema })).toContain(reason);
  });

  test("a schema may refer to itself below a property", () => {
    const tree = { type: "object", properties: { children: { type: "array", items: { $ref: "#" } } } };
    expect(schemaOf(tree)).toEqual(tree);
  });
});

describe("what cannot be mended is refused with its place and value", () => {
  test.each([
    ["an unknown type", { properties: { a: { type: "strin" } } }, "/properties/a/type must be"],
    [
      "a bad pattern",
      { properties: { a: { pattern: "[" } } },
      '/properties/a: "[" is not a regular expression',
    ],
    ["an empty enum", { properties: { a: { enum: [] } } }, "/properties/a: enum is empty"],
    [
      "required as a boolean",
      { properties: { a: { required: true } } },
      "/properties/a/required must be array, got true",
    ],
    ["a dialect of another time", { $schema: "http://json-schema.org/draft-04/schema#" }, "draft-04"],
    ["a function", { properties: { a: () => 1 } }, "a function"],
    ["a BigInt", { maxProperties: 1n }, "a bigint"],
    ["NaN", { maxProperties: Number.NaN }, "/maxProperties"],
    ["a key that sets prototypes", JSON.parse('{"properties":{"__proto__":{"type":"string"}}}'), "__proto__"],
  ])("%s", (_, schema, reason) => {
    expect(problemOf(schema)).toContain(reason);
  });

  test("a schema that contains itself, or is too deep or too large", () => {
    const cycle: Record<string, unknown> = { type: "object" };
    cycle.properties = { cycle };
    expect(problemOf(cycle)).toContain("64 levels");
    expect(problemOf({ type: "object", description: "x".repeat(256 * 1024) })).toContain("256 KiB");
    const wide = Object.fromEntries(
      Array.from({ length: 20_000 }, (_, index) => [`p${index}`, { type: "string" }]),
    );
    expect(problemOf({ properties: wide })).toContain("256 KiB");
  });

  test("a getter that throws", () => {
    const trap = {
      type: "object",
      get properties(): never {
        throw new Error("trapped");
      },
    };
    expect(problemOf(trap)).toBe("trapped");
  });
});

describe("whatever is handed in", () => {
  const keyword = fc.constantFrom(
    "$anchor",
    "$async",
    "$defs",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "default",
    "definitions",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "discriminator",
    "else",
    "enum",
    "examples",
    "format",
    "id",
    "if",
    "items",
    "maxItems",
    "minimum",
    "multipleOf",
    "not",
    "nullable",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "required",
    "then",
    "title",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "x-note",
  );
  const name = fc.oneof(
    fc.constantFrom("a", "b", "$id", "$anchor", "constructor", "toString"),
    fc.string({ maxLength: 4 }),
  );
  const word = fc.constantFrom(
    "#",
    "#/$defs/a",
    "#/definitions/a",
    "#/properties/a",
    "#a",
    "a",
    "a.json",
    "object",
    "string",
    "null",
    "array",
    "integer",
    "[",
    "^a$",
    "date-time",
    "https://example.com/a",
    draft07,
    draft2020,
    "urn:x",
    "",
  );
  const { schema } = fc.letrec<{ schema: unknown; value: unknown }>((tie) => ({
    schema: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      fc.constantFrom(true, false, null),
      fc.dictionary(keyword, tie("value"), { maxKeys: 5 }),
    ),
    value: fc.oneof(
      { depthSize: "small" },
      word,
      fc.boolean(),
      fc.integer(),
      fc.array(word, { maxLength: 3 }),
      tie("schema"),
      fc.array(tie("schema"), { maxLength: 3 }),
      fc.dictionary(name, tie("schema"), { maxKeys: 3 }),
      fc.jsonValue({ maxDepth: 2 }),
    ),
  }));
  const tool = fc.record(
    {
      type: fc.constant("object"),
      properties: fc.dictionary(name, schema, { maxKeys: 3 }),
      $defs: fc.dictionary(name, schema, { maxKeys: 2 }),
    },
    { requiredKeys: [] },
  );
  const anything = fc.oneof(
    { weight: 4, arbitrary: tool },
    { weight: 6, arbitrary: schema },
    { weight: 1, arbitrary: fc.jsonValue() },
    { weight: 1, arbitrary: fc.anything() },
  );
  const runs = { numRuns: 1000 };

  // One validator for all, as clients have it: schemas must not get into each other's way either.
  const validators = {
    [draft07]: new Ajv({ strict: false, logger: false }),
    [draft2020]: new Ajv2020({ strict: false, logger: false }),
  };
  const legacy = new Ajv({ strict: false, validateSchema: false, allErrors: true, logger: false });
  for (const ajv of [...Object.values(validators), legacy]) addFormats.default(ajv);

  const compile = (schema: Record<string, unknown>): void => {
    validators[schema.$schema === draft07 ? draft07 : draft2020].compile(schema);
  };

  test("the result compiles, passes the 1.x client's check and stays as it is, or there is a reason", () => {
    let accepted = 0;
    fc.assert(
      fc.property(anything, (input) => {
        const result = normaliseInputSchema(input);
        if (!result.ok) {
          expect(result.problem).not.toBe("");
          return;
        }
        accepted += 1;
        expect(result.schema.type).toBe("object");
        compile(result.schema);
        ToolSchema.parse({ name: "a", inputSchema: result.schema });
        expect(normaliseInputSchema(result.schema)).toEqual({ ok: true, schema: result.schema, repairs: [] });
      }),
      runs,
    );
    expect(accepted).toBeGreaterThan(100);
  });

  test("an output schema compiles in the 1.x client's validator, which knows draft-07 only", () => {
    fc.assert(
      fc.property(anything, (input) => {
        const result = normaliseOutputSchema(input);
        if (!result.ok) return;
        legacy.compile(result.schema);
        compile(result.schema);
      }),
      runs,
    );
  });

  test("a real client of each SDK takes a list of them whole", async () => {
    const tools = fc.sample(anything, { numRuns: 1000, seed: 7 }).flatMap((input, index) => {
      const inputs = normaliseInputSchema(input);
      const outputs = normaliseOutputSchema(input);
      if (!inputs.ok || !outputs.ok) return [];
      const outputSchema = outputs.schema.type === "object" ? { outputSchema: outputs.schema } : {};
      return [{ name: `t${index}`, inputSchema: inputs.schema as { type: "object" }, ...outputSchema }];
    });
    expect(tools.length).toBeGreaterThan(100);
    for (const client of [
      new Client({ name: "2.x", version: "1" }),
      new LegacyClient({ name: "1.x", version: "1" }),
    ]) {
      const server = new Server({ name: "test", version: "1" }, { capabilities: { tools: {} } });
      server.setRequestHandler("tools/list", () => ({ tools }));
      const [near, far] = InMemoryTransport.createLinkedPair();
      await server.connect(far);
      await client.connect(near);
      expect((await client.listTools()).tools).toHaveLength(tools.length);
      await client.close();
    }
  });
});
