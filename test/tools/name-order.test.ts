import fc from "fast-check";
import { expect, it } from "vitest";
import { byteOrder, positionOf, withReplaced } from "../../src/tools/name-order.ts";
import { makeTool } from "../support/tools.ts";

it("names are in the order of their UTF-8 bytes, also beyond U+FFFF", () => {
  expect(["\u{1f600}", "\uffff", "b", "\ue000", "ab", "a"].sort(byteOrder)).toEqual([
    "a",
    "ab",
    "b",
    "\ue000",
    "\uffff",
    "\u{1f600}",
  ]);
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }), (a, b) => {
      expect(Math.sign(byteOrder(a, b))).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)));
    }),
  );
});

it("replacing some tools of a list is the same as sorting what is left", () => {
  const names = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d", "e", "f", "g", "h"));
  fc.assert(
    fc.property(names, names, names, (held, put, removed) => {
      const tools = held.sort(byteOrder).map((name) => makeTool(name));
      const changes = new Map([
        ...put.map((name) => [name, makeTool(name, { revision: "2" })] as const),
        ...removed.map((name) => [name, undefined] as const),
      ]);
      const result = withReplaced(tools, changes);
      const expected = new Map([...tools.map((tool) => [tool.name, tool] as const), ...changes]);
      expect(result).toEqual(
        [...expected.values()].filter((tool) => tool !== undefined).sort((a, b) => byteOrder(a.name, b.name)),
      );
      for (const [index, { name }] of result.entries()) expect(positionOf(result, name)).toBe(index);
    }),
  );
});
