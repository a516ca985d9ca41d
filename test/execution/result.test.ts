import { describe, expect, test } from "vitest";
import { jsonPart, jsonResult, maxResultBytes, toResult } from "../../src/execution/result.ts";
import type { JsonValue } from "../../src/core/json.ts";
import { content, type ContentBlock } from "../../src/tools/call.ts";
import { textOf } from "./helpers.ts";

const fault = (value: unknown): string => {
  const result = toResult(value);
  expect(result.isError).toBe(true);
  expect(result.failure).toBeUndefined();
  expect(result.structuredContent).toBeUndefined();
  return textOf(result);
};
const blocks = (...list: unknown[]) => content(list as ContentBlock[]);

describe("a returned value becomes a result", () => {
  test("text is a text block", () => {
    expect(toResult("hi")).toEqual({ content: [{ type: "text", text: "hi" }], isError: false });
  });

  test.each([undefined, null])("%s is an empty result", (value) => {
    expect(toResult(value)).toEqual({ content: [], isError: false });
  });

  test.each<[string, unknown, unknown]>([
    ["an object", { a: [1, { b: null }] }, { a: [1, { b: null }] }],
    ["an array", [1, "2"], [1, "2"]],
    ["a number", 4.5, 4.5],
    ["a boolean", false, false],
    ["a date in an object", { at: new Date(0) }, { at: "1970-01-01T00:00:00.000Z" }],
    ["undefined members", { a: undefined, b: 1 }, { b: 1 }],
  ])("%s is structured content and its JSON as text", (_what, value, expected) => {
    expect(toResult(value)).toEqual({
      content: [{ type: "text", text: JSON.stringify(expected) }],
      structuredContent: expected,
      isError: false,
    });
  });

  test("with an output schema text and null are structured too", () => {
    expect(toResult("hi", { structured: true })).toMatchObject({ structuredContent: "hi" });
    expect(toResult(null, { structured: true })).toMatchObject({ structuredContent: null });
    expect(toResult(undefined, { structured: true })).not.toHaveProperty("structuredContent");
  });
});

describe("JSON that came as text", () => {
  test("is the text block and the structured content as it came, not written again", () => {
    const text = '{ "a" : 1.0 }';
    expect(jsonResult({ a: 1 }, text, false)).toEqual({
      content: [{ type: "text", text }],
      structuredContent: { a: 1 },
      structuredText: text,
      isError: false,
    });
  });

  test("a string is plain text and null is empty, unless there is an output schema", () => {
    expect(jsonResult("hi", '"hi"', false)).toEqual({
      content: [{ type: "text", text: "hi" }],
      isError: false,
    });
    expect(jsonResult("hi", '"hi"', true)).toMatchObject({ structuredContent: "hi", structuredText: '"hi"' });
    expect(jsonResult(null, "null", false)).toEqual({ content: [], isError: false });
    expect(jsonResult(null, "null", true)).toMatchObject({ structuredContent: null, structuredText: "null" });
  });

  test("a part of it is written anew, within the limit", () => {
    expect(jsonPart([1], '{ "a": [ 1 ] }', false)).toMatchObject({
      content: [{ type: "text", text: "[1]" }],
      structuredContent: [1],
      structuredText: "[1]",
    });
    const numbers = Array.from({ length: 1_000_000 }, () => 1e20);
    expect(textOf(jsonPart(numbers, `[${"1e20,".repeat(999_999)}1e20]`, false))).toContain("the limit is");
    const deep = `${"[".repeat(2000)}${"]".repeat(2000)}`;
    expect(textOf(jsonPart(1, deep, false))).toContain("nested more than 1000 levels deep");
  });
});

describe("content blocks", () => {
  const good: readonly ContentBlock[] = [
    {
      type: "text",
      text: "t",
      annotations: { audience: ["user"], priority: 0.5, lastModified: "2026-01-01" },
    },
    { type: "image", data: "aGk=", mimeType: "image/png" },
    { type: "audio", data: "aGk=", mimeType: "audio/wav" },
    { type: "resource_link", uri: "file:///a", name: "a" },
    { type: "resource", resource: { uri: "a://b", text: "x" } },
    { type: "resource", resource: { uri: "a://b", blob: "aGk=" } },
  ];

  test("of every known shape pass as they are, with structured content and the error mark", () => {
    expect(toResult(content(good, { structuredContent: { a: 1 }, isError: true }))).toEqual({
      content: good,
      structuredContent: { a: 1 },
      isError: true,
    });
  });

  test("of an unknown type become their JSON as text, which clients accept", () => {
    expect(toResult(blocks({ type: "video", src: "x" })).content).toEqual([
      { type: "text", text: '{"type":"video","src":"x"}' },
    ]);
  });

  test.each<[string, unknown, string]>([
    ["not an object", "text", "content block 0 is not an object"],
    ["without type", {}, 'content block 0 has no "type"'],
    ["text without text", { type: "text" }, 'content block 0 (text) needs "text", a string'],
    ["image with raw bytes", { type: "image", data: Buffer.from("x"), mimeType: "a/b" }, "base64 text"],
    ["image that is not base64", { type: "image", data: "no!", mimeType: "a/b" }, "base64 text"],
    ["audio without mimeType", { type: "audio", data: "aGk=" }, 'needs "mimeType"'],
    ["link without name", { type: "resource_link", uri: "a://b" }, 'needs "name"'],
    ["resource without uri", { type: "resource", resource: {} }, 'an object with a "uri"'],
    ["resource without body", { type: "resource", resource: { uri: "a://b" } }, '"text", or "blob"'],
    ["bad audience", { type: "text", text: "", annotations: { audience: ["me"] } }, '"audience"'],
    ["bad priority", { type: "text", text: "", annotations: { priority: 2 } }, '"priority"'],
  ])("%s is the tool's fault, with the block and the reason", (_what, block, reason) => {
    expect(fault(blocks(block))).toContain(reason);
  });

  test("that are no list are the tool's fault", () => {
    expect(fault(content("x" as never))).toContain("takes an array of blocks");
  });
});

describe("what cannot be a result is the tool's fault, with the reason", () => {
  test("a cycle, with its path", () => {
    const cycle: { a: { b?: unknown } } = { a: {} };
    cycle.a.b = cycle;
    expect(fault(cycle)).toContain("a cycle at $.a.b");
  });

  test("a BigInt, at the top and inside", () => {
    expect(fault(1n)).toContain("a BigInt at $ has no JSON form");
    expect(fault({ n: [1n] })).toContain("a BigInt at $.n[0]");
  });

  test("a function or a symbol", () => {
    expect(fault(() => 1)).toContain("a function at $");
    expect(fault(Symbol("x"))).toContain("a symbol at $");
  });

  test("bytes, with the remedy", () => {
    for (const bytes of [Buffer.from("x"), new Uint8Array(3), new ArrayBuffer(3)])
      expect(fault(bytes)).toContain("return them as base64 text, or as an image with content([...])");
  });

  test("a value whose getter throws", () => {
    const value = {
      get secret(): never {
        throw new Error("no access");
      },
    };
    expect(fault(value)).toContain("no access");
  });

  test("a value nested so deeply that no client could read it", () => {
    let local: unknown = 1;
    for (let level = 0; level < 100_000; level++) local = [local];
    expect(fault(local)).toContain("nested more than 1000 levels deep");
    const json = "[".repeat(100_000) + "]".repeat(100_000);
    const received = jsonResult(JSON.parse(json) as JsonValue, json, false);
    expect(received.isError).toBe(true);
    expect(textOf(received)).toContain("nested more than 1000 levels deep");
    const wide = JSON.stringify({
      text: '\\"[[[{'.repeat(2000),
      list: Array.from({ length: 3000 }, () => [{}]),
    });
    expect(jsonResult(JSON.parse(wide) as JsonValue, wide, false)).toMatchObject({ isError: false });
  });
});

describe("over 10 MiB is an error that says so, never a shortened answer", () => {
  test.each<[string, unknown]>([
    ["text", "x".repeat(50_000_000)],
    ["text of wide characters", "€".repeat(maxResultBytes / 3 + 1)],
    ["a JSON value", { x: "x".repeat(maxResultBytes) }],
    ["content blocks", blocks({ type: "text", text: "x".repeat(maxResultBytes) })],
  ])("%s", (_what, value) => {
    expect(fault(value)).toMatch(/^The result has \d{8} bytes; the limit is 10485760 bytes \(10 MiB\)\.$/);
  });

  test("exactly 10 MiB pass", () => {
    expect(toResult("x".repeat(maxResultBytes)).isError).toBe(false);
  });
});
