import { describe, expect, test } from "vitest";
import { scanNodes } from "../../src/contract/node-scan.ts";
import { tempFolder } from "./folder.ts";
import { nodeContract } from "./nodes.ts";

describe("schemas in files", () => {
  async function schemaOf(files: Record<string, string>, input: unknown): Promise<unknown> {
    await using folder = await tempFolder();
    await folder.write("n/a/contract.yaml", nodeContract({ mcp: { input_schema: input } }));
    await folder.write("secret.json", '{"type": "object"}');
    await folder.link("../../secret.json", "n/a/link.json");
    for (const [path, text] of Object.entries(files)) await folder.write(`n/${path}`, text);
    const { contracts, entries } = await scanNodes({ directory: folder.at("n"), env: {} });
    return contracts.get("a/contract.yaml")?.inputSchema ?? entries[0]?.reason;
  }

  test("a root reference to a file becomes the file's schema", async () => {
    const files = {
      "a/s/foo.json":
        '{"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": "string"}}}',
    };
    expect(await schemaOf(files, { $ref: "./s/foo.json" })).toEqual({
      type: "object",
      properties: { x: { $ref: "#/$defs/X" } },
      $defs: { X: { type: "string" } },
    });
  });

  test("a reference into a file, relative to the file it stands in, is brought in whole", async () => {
    const files = {
      "a/s/types.yaml": "definitions:\n  X: {type: array, items: {$ref: '../../shared.yaml#/Y'}}\n",
      "shared.yaml": "Y: {type: object, properties: {z: {$ref: '#/Z'}}}\nZ: {type: number}\n",
    };
    expect(
      await schemaOf(files, { type: "object", properties: { x: { $ref: "s/types.yaml#/definitions/X" } } }),
    ).toEqual({
      type: "object",
      properties: { x: { $ref: "#/$defs/X" } },
      $defs: {
        X: { type: "array", items: { $ref: "#/$defs/Y" } },
        Y: { type: "object", properties: { z: { $ref: "#/$defs/Z" } } },
        Z: { type: "number" },
      },
    });
  });

  test("cycles between files end, and names do not clash", async () => {
    const files = {
      "a/x.json":
        '{"type": "object", "properties": {"y": {"$ref": "y.json"}, "own": {"$ref": "#/$defs/y"}}, "$defs": {"y": {"type": "null"}}}',
      "a/y.json": '{"type": "object", "properties": {"x": {"$ref": "x.json"}, "me": {"$ref": "#"}}}',
    };
    expect(await schemaOf(files, { $ref: "x.json" })).toEqual({
      type: "object",
      properties: { y: { $ref: "#/$defs/y_2" }, own: { $ref: "#/$defs/y" } },
      $defs: {
        y: { type: "null" },
        y_2: { type: "object", properties: { x: { $ref: "#" }, me: { $ref: "#/$defs/y_2" } } },
      },
    });
  });

  test("a draft-07 file stays draft-07", async () => {
    const files = {
      "a/s.json":
        '{"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"T": {"properties": {"p": {"items": [{"$ref": "#/definitions/U"}]}}}, "U": {}}}',
    };
    expect(await schemaOf(files, { $ref: "s.json#/definitions/T" })).toEqual({
      $schema: "http://json-schema.org/draft-07/schema#",
      type: "object",
      properties: { p: { items: [{ $ref: "#/definitions/U" }] } },
      definitions: { U: {} },
    });
  });

  test("the dialect that a contract declares holds for a file that declares none", async () => {
    const $schema = "http://json-schema.org/draft-07/schema#";
    const files = { "a/s.json": '{"properties": {"p": {"items": [{}]}}}' };
    expect(await schemaOf(files, { $schema, $ref: "s.json" })).toEqual({
      $schema,
      type: "object",
      properties: { p: { items: [{}] } },
    });
  });

  test.each([
    ["an absent file", { $ref: "none.json" }, "none.json does not exist"],
    ["a file outside", { $ref: "../../secret.json" }, "leads out"],
    ["a link to the outside", { $ref: "link.json" }, "leads out"],
    ["the network", { $ref: "https://example.com/s.json" }, "never fetched"],
    ["a file: address", { $ref: "file:///etc/passwd" }, "never fetched"],
    ["a part that is not there", { $ref: "ok.json#/none" }, "leads to nothing"],
    ["bad JSON", { $ref: "bad.json" }, "cannot be parsed"],
    ["a text", { properties: { a: { $ref: "text.yaml" } } }, "must be object,boolean"],
    [
      "another dialect",
      { $schema: "https://json-schema.org/draft/2020-12/schema", properties: { a: { $ref: "d7.json" } } },
      "draft-07",
    ],
    [
      "what another dialect is declared for",
      { $schema: "https://json-schema.org/draft/2020-12/schema", $ref: "d7.json" },
      "draft-07",
    ],
    ["a file that nests without end", { $ref: "deep.json" }, "nested too deeply"],
    ["a circle of nothing but references", { $ref: "loop.json" }, "itself"],
  ])("a reference to %s fails the contract with the reason", async (_, input, reason) => {
    const files = {
      "a/ok.json": "{}",
      "a/bad.json": "{",
      "a/text.yaml": "just text",
      "a/d7.json": '{"$schema": "http://json-schema.org/draft-07/schema"}',
      "a/deep.json": `${'{"not":'.repeat(50_000)}{}${"}".repeat(50_000)}`,
      "a/loop.json": '{"$ref": "loop2.json"}',
      "a/loop2.json": '{"$ref": "loop.json"}',
    };
    expect(await schemaOf(files, input)).toContain(reason);
  });
});
