import { describe, expect, it } from "vitest";
import { Catalog } from "../../src/tools/catalog.ts";
import type { Explanation } from "../../src/tools/explain.ts";
import type { SourceRecord, SourceStatus } from "../../src/tools/source.ts";
import { consulRecord, eventRecord } from "../support/instances.ts";
import { makeTool } from "../support/tools.ts";

let now = 0;

function catalogOf(sources: Readonly<Record<string, readonly SourceRecord[]>>, maxTools = 100): Catalog {
  now = 0;
  const catalog = new Catalog({ clock: { now: () => now }, maxTools });
  for (const [source, put] of Object.entries(sources)) catalog.apply(source, { put, remove: [] });
  return catalog;
}

const outcomes = ({ records }: Explanation): Record<string, string> =>
  Object.fromEntries(records.map(({ key, reason }) => [key, reason]));

describe("why a name is served as it is", () => {
  it("names every record with its source, revision, age and what became of it", () => {
    const catalog = catalogOf({
      consul: [
        consulRecord("a", { index: 7 }),
        consulRecord("b", { live: false, down: "check c is critical" }),
      ],
      events: [eventRecord("a")],
    });
    now = 3000;
    const explanation = catalog.explain("orders");
    expect(explanation).toMatchObject({
      name: "orders",
      served: true,
      reason: "served by event orders on 1 live instance",
    });
    expect(explanation.records).toEqual([
      expect.objectContaining({
        source: "consul",
        kind: "consul",
        key: "node-1/a",
        owner: "orders",
        serviceId: "a",
        revision: "7",
        ageSeconds: 3,
        url: "http://a.test:8080",
        live: true,
        used: true,
        reason: "it is called and defines the tool",
      }),
      expect.objectContaining({
        key: "node-1/b",
        live: false,
        used: false,
        reason: "not called: check c is critical",
      }),
      expect.objectContaining({ source: "events", kind: "event", key: "a", used: true }),
    ]);
  });

  it("says which instance has other schemas than the one that defines", () => {
    const catalog = catalogOf({
      consul: [
        consulRecord("a", { definition: { version: "2.0.0", timeoutSeconds: 1 } }),
        consulRecord("b", { definition: { version: "1.0.0", outputSchema: { type: "object" } } }),
      ],
    });
    expect(outcomes(catalog.explain("orders"))).toEqual({
      "node-1/a": "it is called and defines the tool",
      "node-1/b": "not called: its schemas or its execution are not those of a, which defines the tool",
    });
  });

  it("says who has the name instead", () => {
    const catalog = catalogOf({
      consul: [consulRecord("a")],
      code: [{ key: "orders", tool: makeTool("orders") }],
    });
    expect(outcomes(catalog.explain("orders"))).toEqual({
      orders: "it is served",
      "node-1/a": "the name is served by handler orders",
    });
  });

  it("says for how long an event still goes before Consul", () => {
    const catalog = catalogOf({ consul: [consulRecord("a")] });
    catalog.apply("events", { put: [], remove: ["a"], suppress: ["a"] });
    now = 20_500;
    expect(catalog.explain("orders")).toMatchObject({ served: false });
    expect(outcomes(catalog.explain("orders"))["node-1/a"]).toBe(
      "an event declared it gone; what Consul says counts again when its index moves on, in 40 s at the latest",
    );
  });

  it("finds a tool that never came about by the service's name and id", () => {
    const catalog = catalogOf({
      consul: [consulRecord("a", { refused: "the tag mcp-tool:<name> is missing" })],
    });
    for (const name of ["orders", "a", "node-1/a"]) {
      expect(catalog.explain(name)).toMatchObject({
        served: false,
        reason: "the tag mcp-tool:<name> is missing",
      });
    }
  });

  it("names the limit and the tags that keep a tool out", () => {
    const catalog = catalogOf(
      {
        code: [{ key: "a", tool: makeTool("a") }],
        consul: [
          consulRecord("b", { tool: "b" }),
          consulRecord("c", { tool: "c", definition: { tags: ["unsafe"] } }),
        ],
      },
      1,
    );
    expect(outcomes(catalog.explain("b"))["node-1/b"]).toBe("max_tools (1) is reached");
    expect(outcomes(catalog.explain("c"))["node-1/c"]).toBe('the tag "unsafe" is in excluded_tags');
  });

  it("says so where no source speaks of the name", () => {
    expect(new Catalog().explain("nothing")).toEqual({
      name: "nothing",
      served: false,
      reason: "no source speaks of a tool or service of this name",
      records: [],
      withheld: [],
      problems: [],
    });
  });

  it("says which sources would have to be reached to know better", () => {
    const catalog = catalogOf({ consul: [consulRecord("a")] });
    const status = (name: string, facts: Partial<SourceStatus>): SourceStatus => {
      return { name, kind: "consul", state: "degraded", ageSeconds: 1, ...facts };
    };
    const reports = {
      problems: [],
      statuses: [
        status("contracts", { state: "ready", lastError: "one file is broken" }),
        status("consul", { state: "starting", lastError: "Consul cannot be reached: ECONNREFUSED" }),
        status("events", { lastError: "topic t does not exist" }),
        status("others", { restoredFrom: "2026-01-31T12:00:00.000Z" }),
      ],
    };
    expect(catalog.explain("nothing", reports).reason).toBe(
      "no source speaks of a tool or service of this name" +
        "; the source consul was never reached: Consul cannot be reached: ECONNREFUSED" +
        "; the source events is degraded: topic t does not exist" +
        "; the source others is known as it was at 2026-01-31T12:00:00.000Z",
    );
    expect(catalog.explain("orders", reports).reason).toBe("served by consul orders on 1 live instance");
  });

  it("says that a tool without a live instance is listed all the same", () => {
    const catalog = catalogOf({ consul: [consulRecord("a", { live: false })] });
    expect(catalog.explain("orders")).toMatchObject({
      served: true,
      reason: 'served by consul orders; no instance is live, so calls are answered "unavailable"',
    });
  });

  it("tells what the sources were told of it and cannot use", () => {
    const catalog = catalogOf({ consul: [consulRecord("a")] });
    const problem = (about: string, names: string[] = [], reason = `${about} is broken`) => {
      return { source: "any", about, names, reason };
    };
    const reports = {
      statuses: [],
      problems: [
        problem("orders/contract.yaml", ["orders"]),
        problem("a"),
        problem("node-1/a", [], "it is called and defines the tool"),
        problem("other", ["another"]),
      ],
    };
    const abouts = (name: string): string[] =>
      catalog.explain(name, reports).problems.map(({ about }) => about);
    // Also of its instances, unless the record says so already.
    expect(abouts("orders")).toEqual(["orders/contract.yaml", "a"]);
    expect(abouts("other")).toEqual(["other"]);
    expect(catalog.explain("another", reports)).toMatchObject({ served: false, reason: "other is broken" });
  });

  it("says which records are of the last good state, and when it was saved", () => {
    const savedAt = "2026-01-31T12:00:00.000Z";
    const catalog = catalogOf({
      consul: [{ ...consulRecord("a"), restoredFrom: savedAt }],
      events: [eventRecord("a")],
    });
    const { records } = catalog.explain("orders");
    expect(records.map(({ source, restoredFrom }) => [source, restoredFrom])).toEqual([
      ["consul", savedAt],
      ["events", undefined],
    ]);
  });
});
