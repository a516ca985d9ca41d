import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { Catalog } from "../../src/tools/catalog.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { makeTool, put } from "../support/tools.ts";

const names = (catalog: Catalog): string[] => catalog.snapshot().tools.map((tool) => tool.name);
const record = (key: string, tool: Tool) => ({ key, tool });

describe("catalog", () => {
  it("replaces an immutable snapshot whole, with the next generation", () => {
    const catalog = new Catalog();
    put(catalog, makeTool("a"));
    const first = catalog.snapshot();
    put(catalog, makeTool("b"));
    const second = catalog.snapshot();
    expect(first.tools.map((tool) => tool.name)).toEqual(["a"]);
    expect(second.tools.map((tool) => tool.name)).toEqual(["a", "b"]);
    expect(second.generation).toBe(first.generation + 1);
    expect(Object.isFrozen(second)).toBe(true);
    expect(Object.isFrozen(second.tools)).toBe(true);
  });

  it("lists tools in byte order of their names", () => {
    const catalog = new Catalog();
    put(catalog, makeTool("b"), makeTool("a"), makeTool("B"), makeTool("_"));
    expect(names(catalog)).toEqual(["B", "_", "a", "b"]);
  });

  it("tells listeners once per change, and not at all when nothing changed", () => {
    const catalog = new Catalog();
    const listener = vi.fn();
    const stop = catalog.onChange(listener);
    catalog.apply("s", { put: ["a", "b", "c"].map((name) => record(name, makeTool(name))), remove: [] });
    expect(listener).toHaveBeenCalledTimes(1);
    catalog.apply("s", { put: [record("a", makeTool("a"))], remove: ["absent"] });
    expect(listener).toHaveBeenCalledTimes(1);
    catalog.apply("s", { put: [record("a", makeTool("a", { revision: "2" }))], remove: ["b"] });
    expect(listener).toHaveBeenCalledTimes(2);
    stop();
    catalog.apply("s", { put: [], remove: ["a"] });
    expect(listener).toHaveBeenCalledTimes(2);
  });

  it("a listener that throws keeps neither the others nor the change from happening", () => {
    const catalog = new Catalog();
    const second = vi.fn();
    catalog.onChange(() => {
      throw new Error("listener");
    });
    catalog.onChange(second);
    put(catalog, makeTool("a"));
    expect(second).toHaveBeenCalledTimes(1);
    expect(names(catalog)).toEqual(["a"]);
  });

  it("serves the first of several owners by source, then by owner in byte order, and reports the others", () => {
    const catalog = new Catalog();
    catalog.apply("code", {
      put: [record("x", makeTool("x", { source: "handler", owner: "x" }))],
      remove: [],
    });
    catalog.apply("contracts", {
      put: [
        record("b", makeTool("x", { source: "contract", owner: "b/contract.yaml" })),
        record("a", makeTool("x", { source: "contract", owner: "a/contract.yaml" })),
      ],
      remove: [],
    });
    expect(catalog.snapshot().byName.get("x")?.owner).toBe("a/contract.yaml");
    expect(catalog.snapshot().withheld).toEqual([
      {
        name: "x",
        source: "contract",
        owner: "b/contract.yaml",
        reason: "the name is served by contract a/contract.yaml",
      },
      { name: "x", source: "handler", owner: "x", reason: "the name is served by contract a/contract.yaml" },
    ]);
    catalog.apply("contracts", { put: [], remove: ["a"] });
    expect(catalog.snapshot().byName.get("x")?.owner).toBe("b/contract.yaml");
  });

  it("keeps at most max_tools, by the same order, and reports the rest", () => {
    const catalog = new Catalog({ maxTools: 2 });
    put(catalog, makeTool("c"), makeTool("a"), makeTool("b"));
    expect(names(catalog)).toEqual(["a", "b"]);
    expect(catalog.snapshot().withheld).toEqual([
      { name: "c", source: "handler", owner: "c", reason: "max_tools (2) is reached" },
    ]);
  });

  it("keeps out tools by excluded_tags and required_tags and says which tag", () => {
    const catalog = new Catalog({ requiredTags: ["public"] });
    put(
      catalog,
      makeTool("shown", { tags: ["public"] }),
      makeTool("untagged"),
      makeTool("unsafe", { tags: ["public", "unsafe"] }),
    );
    expect(names(catalog)).toEqual(["shown"]);
    expect(catalog.snapshot().withheld.map(({ name, reason }) => [name, reason])).toEqual([
      ["unsafe", 'the tag "unsafe" is in excluded_tags'],
      ["untagged", 'the tag "public" of required_tags is missing'],
    ]);
  });

  it("forgets a source's records at once when the source is cleared", () => {
    const catalog = new Catalog();
    put(catalog, makeTool("a"), makeTool("b"));
    const listener = vi.fn();
    catalog.onChange(listener);
    catalog.clear("test");
    expect(names(catalog)).toEqual([]);
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it("two sources that claim one name for one owner are served the same, whoever came first", () => {
    const first = makeTool("a", { revision: "1" });
    const second = makeTool("a", { revision: "2" });
    const served = [
      [first, second],
      [second, first],
    ].map((order) => {
      const catalog = new Catalog();
      for (const tool of order)
        catalog.apply(`source of ${tool.revision}`, { put: [record("a", tool)], remove: [] });
      return catalog.snapshot().tools[0]?.revision;
    });
    expect(served).toEqual(["1", "1"]);
  });

  it("a tool whose name belongs to one beyond the limit is withheld by the limit", () => {
    const catalog = new Catalog({ maxTools: 1 });
    put(catalog, makeTool("a"), makeTool("b"));
    catalog.apply("later", { put: [record("b", makeTool("b", { source: "upstream" }))], remove: [] });
    const reasons = (): string[] =>
      catalog.snapshot().withheld.map(({ source, reason }) => `${source}: ${reason}`);
    expect(reasons()).toEqual(["handler: max_tools (1) is reached", "upstream: max_tools (1) is reached"]);
    catalog.apply("test", { put: [], remove: ["a"] });
    expect(reasons()).toEqual(["upstream: the name is served by handler b"]);
  });

  it("depends on the records held now, never on the order in which they came", () => {
    const toolArbitrary = fc.record({
      source: fc.constantFrom("contract" as const, "handler" as const),
      key: fc.constantFrom("k1", "k2", "k3", "k4"),
      name: fc.constantFrom("a", "b", "c"),
      tags: fc.subarray(["internal", "x"]),
      gone: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.array(toolArbitrary, { maxLength: 20 }),
        fc.infiniteStream(fc.nat()),
        (statements, random) => {
          const last = new Map(
            statements.map((statement) => [`${statement.source}/${statement.key}`, statement]),
          );
          const applied = (order: typeof statements): Catalog => {
            const catalog = new Catalog({ maxTools: 2 });
            for (const { source, key, name, tags, gone } of order) {
              const tool = makeTool(name, { source, owner: key, tags, revision: `${name} ${tags.join()}` });
              catalog.apply(
                source,
                gone ? { put: [], remove: [key] } : { put: [record(key, tool)], remove: [] },
              );
            }
            return catalog;
          };
          const shuffled = [...last.values()]
            .filter(({ gone }) => !gone)
            .map((statement) => ({ statement, rank: random.next().value as number }))
            .sort((a, b) => a.rank - b.rank)
            .map(({ statement }) => statement);
          const one = applied(statements).snapshot();
          const other = applied(shuffled).snapshot();
          expect(other.tools).toEqual(one.tools);
          expect(other.withheld).toEqual(one.withheld);
        },
      ),
    );
  });
});
