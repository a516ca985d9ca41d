import { describe, expect, it, vi } from "vitest";
import { Catalog, type CatalogOptions } from "../../src/tools/catalog.ts";
import type { InstanceDefinition } from "../../src/tools/instance.ts";
import type { SourceRecord } from "../../src/tools/source.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { consulRecord, eventRecord } from "../support/instances.ts";
import { makeTool } from "../support/tools.ts";

class World {
  now = 0;
  readonly catalog: Catalog;
  lists = 0;
  snapshots = 0;

  constructor(options: CatalogOptions = {}) {
    this.catalog = new Catalog({ clock: { now: () => this.now }, ...options });
    this.catalog.onChange(() => (this.lists += 1));
    this.catalog.onSnapshot(() => (this.snapshots += 1));
  }

  consul(...put: SourceRecord[]): this {
    this.catalog.apply("consul", { put, remove: [] });
    return this;
  }

  events(...put: SourceRecord[]): this {
    this.catalog.apply("events", { put, remove: [] });
    return this;
  }

  gone(source: "consul" | "events", ...remove: string[]): this {
    this.catalog.apply(source, { put: [], remove });
    return this;
  }

  deregister(serviceId: string): this {
    this.catalog.apply("events", { put: [], remove: [serviceId], suppress: [serviceId] });
    return this;
  }

  tool(name = "orders"): Tool | undefined {
    return this.catalog.snapshot().byName.get(name);
  }

  get urls(): string[] | undefined {
    return this.tool()?.endpoints?.map(({ url }) => url);
  }

  get names(): string[] {
    return this.catalog.snapshot().tools.map(({ name }) => name);
  }

  reasons(name: string): string[] {
    return this.catalog
      .snapshot()
      .withheld.filter((entry) => entry.name === name)
      .map(({ reason }) => reason);
  }
}

const schema = (property: string): InstanceDefinition => ({
  inputSchema: { type: "object", properties: { [property]: {} } },
});

describe("the tool of a service", () => {
  it("is served on all live instances of the service, in the order of their ids", () => {
    const world = new World().consul(consulRecord("b", { weight: 3 }), consulRecord("a"));
    expect(world.tool()).toMatchObject({ name: "orders", source: "consul", owner: "orders" });
    expect(world.tool()?.endpoints).toEqual([
      { id: "node-1/a", url: "http://a.test:8080", weight: 1 },
      { id: "node-1/b", url: "http://b.test:8080", weight: 3 },
    ]);
  });

  it("takes each field from the event where it has it, else from Consul, whichever came first", () => {
    const event = eventRecord("a", { definition: { title: "Event", timeoutSeconds: 7 } });
    const consul = consulRecord("a", { definition: { title: "Consul", description: "From Consul." } });
    const expected = { title: "Event", timeoutSeconds: 7, description: "From Consul.", source: "event" };
    expect(new World().consul(consul).events(event).tool()).toMatchObject(expected);
    expect(new World().events(event).consul(consul).tool()).toMatchObject(expected);
  });

  it("goes where the event of an instance no longer has the tool's tag, whatever Consul says", () => {
    const world = new World().consul(consulRecord("a")).events(eventRecord("a"));
    world.events(eventRecord("a", { refused: "the tag mcp-enabled is missing" }));
    expect(world.names).toEqual([]);
    expect(world.reasons("orders")).toEqual(["the tag mcp-enabled is missing"]);
  });

  it("what claims nothing completes an event, and is nothing at all without one", () => {
    const world = new World().consul(consulRecord("a", { silent: true }));
    const { url: _address, ...withoutAddress } = eventRecord("a").instance;
    expect(world.reasons("orders")).toEqual([]);
    expect(world.catalog.explain("a")).toMatchObject({ reason: "it is no tool, and no event makes it one" });
    world.events({ key: "a", instance: withoutAddress });
    expect(world.urls).toEqual(["http://a.test:8080"]);
    world.gone("events", "a");
    expect([world.names, world.reasons("orders")]).toEqual([[], []]);
  });

  it("an event that does not name its tool or address is completed by Consul, and serves nothing without it", () => {
    const partial = eventRecord("a", { silent: true, definition: { description: "From the event." } });
    const world = new World().events(partial);
    expect(world.names).toEqual([]);
    expect(world.reasons("orders")).toEqual(["neither its event nor Consul says which tool it serves"]);
    world.consul(consulRecord("a"));
    expect(world.tool()?.description).toBe("From the event.");
    world.gone("consul", "node-1/a");
    expect(world.names).toEqual([]);
  });

  it("is called at Consul's address, with the event's path where Consul names none", () => {
    const at = (event: string, consul: string): string[] | undefined =>
      new World().events(eventRecord("a", { url: event })).consul(consulRecord("a", { url: consul })).urls;
    expect(at("http://old.test:1/run", "http://new.test:2")).toEqual(["http://new.test:2/run"]);
    expect(at("http://old.test:1/run", "http://new.test:2/base")).toEqual(["http://new.test:2/base"]);
    expect(at("http://old.test:1", "http://new.test:2")).toEqual(["http://new.test:2"]);
  });

  it("stays listed without endpoints while no instance is live, and goes when all have left", () => {
    const world = new World().consul(consulRecord("a", { live: false, down: "check c is critical" }));
    expect(world.tool()?.endpoints).toEqual([]);
    world.consul(consulRecord("a"));
    expect(world.urls).toHaveLength(1);
    world.gone("consul", "node-1/a");
    expect(world.names).toEqual([]);
  });

  it("endpoints that come and go make a new snapshot and change no list", () => {
    const world = new World().consul(consulRecord("a"), consulRecord("b"));
    const { lists, snapshots } = world;
    const { inputSchema, revision } = world.tool() ?? {};
    world.consul(consulRecord("b", { live: false }));
    expect(world.urls).toEqual(["http://a.test:8080"]);
    expect([world.lists, world.snapshots]).toEqual([lists, snapshots + 1]);
    expect(world.tool()).toMatchObject({ inputSchema, revision });
    world.consul(consulRecord("b", { live: false }));
    expect(world.snapshots).toBe(snapshots + 1);
  });

  it.each([
    ["2.0.0", "10.0.0"],
    ["1.0.0-rc.1", "1.0.0"],
    ["1.0.0-rc.2", "1.0.0-rc.10"],
    ["not a version", "0.0.1"],
    ["1.9", "2"],
  ])("of instances with different schemas the higher version defines: %s below %s", (lower, higher) => {
    const world = new World().consul(
      consulRecord("a", { definition: { ...schema("old"), version: lower } }),
      consulRecord("z", { definition: { ...schema("new"), version: higher } }),
    );
    expect(world.tool()).toMatchObject({ ...schema("new"), version: higher });
    expect(world.urls).toEqual(["http://z.test:8080"]);
  });

  it("of instances with one version and different schemas the lowest id defines", () => {
    const world = new World().consul(
      consulRecord("b", { definition: schema("b") }),
      consulRecord("a", { definition: schema("a") }),
      consulRecord("c", { definition: { ...schema("a"), description: "Another text." } }),
    );
    expect(world.tool()).toMatchObject(schema("a"));
    expect(world.urls).toEqual(["http://a.test:8080", "http://c.test:8080"]);
  });

  it("an instance that is not live defines nothing while another one is", () => {
    const newer = { ...schema("new"), version: "2.0.0" };
    const older = { ...schema("old"), version: "1.0.0" };
    const world = new World().consul(
      consulRecord("a", { definition: older }),
      consulRecord("b", { definition: newer, live: false }),
    );
    expect(world.tool()).toMatchObject(older);
    world.consul(consulRecord("b", { definition: newer }));
    expect(world.tool()).toMatchObject(newer);
    expect(world.urls).toEqual(["http://b.test:8080"]);
  });

  it("two tools under one service name are two tools", () => {
    const world = new World().consul(consulRecord("a", { tool: "one" }), consulRecord("b", { tool: "two" }));
    expect(world.names).toEqual(["one", "two"]);
    expect(world.tool("one")?.endpoints).toHaveLength(1);
  });

  it("of two services that claim one name the first by id is served, the other is withheld", () => {
    const world = new World().consul(
      consulRecord("1", { serviceName: "zoo" }),
      consulRecord("2", { serviceName: "bar" }),
    );
    expect(world.tool()?.owner).toBe("bar");
    expect(world.urls).toEqual(["http://2.test:8080"]);
    expect(world.reasons("orders")).toEqual(["the name is served by consul bar"]);
    world.events(eventRecord("1", { serviceName: "zoo" }));
    expect(world.tool()?.owner).toBe("zoo");
  });

  it("a tool that takes another name leaves the old one in the same snapshot", () => {
    const world = new World().consul(consulRecord("a", { tool: "old" }));
    const { lists } = world;
    world.consul(consulRecord("a", { tool: "new" }));
    expect(world.names).toEqual(["new"]);
    expect(world.lists).toBe(lists + 1);
  });

  it("instances with an excluded tag are no part of it; where all have one it is withheld", () => {
    const deprecated = consulRecord("a", { definition: { version: "9.0.0", tags: ["deprecated"] } });
    const world = new World().consul(deprecated, consulRecord("b"));
    expect(world.urls).toEqual(["http://b.test:8080"]);
    world.gone("consul", "node-1/b");
    expect(world.names).toEqual([]);
    expect(world.reasons("orders")).toEqual(['the tag "deprecated" is in excluded_tags']);
  });

  it("the same service id on two nodes is two instances", () => {
    const second = { ...consulRecord("a", { url: "http://other.test:8080" }), key: "node-2/a" };
    expect(new World().consul(consulRecord("a"), second).urls).toEqual([
      "http://a.test:8080",
      "http://other.test:8080",
    ]);
  });
});

describe("a contract without an address", () => {
  const contract = (service?: string): Tool =>
    makeTool("orders", {
      source: "contract",
      owner: "orders/contract.yaml",
      description: "From the contract.",
      execution: { kind: "onex", endpoints: [], path: "/run", ...(service !== undefined && { service }) },
    });
  const withContract = (world: World, tool: Tool): World => {
    world.catalog.apply("contracts", { put: [{ key: tool.owner, tool }], remove: [] });
    return world;
  };

  it("defines the tool; the live instances of the service that claims its name are called", () => {
    const world = withContract(
      new World().consul(consulRecord("a"), consulRecord("b", { live: false })),
      contract(),
    );
    expect(world.tool()).toMatchObject({ description: "From the contract.", source: "contract" });
    expect(world.urls).toEqual(["http://a.test:8080"]);
    expect(world.catalog.snapshot().withheld).toEqual([]);
  });

  it("that names its service is served by no other", () => {
    const world = withContract(
      new World().consul(consulRecord("a", { serviceName: "bar" })),
      contract("orders"),
    );
    expect(world.urls).toEqual([]);
    expect(world.reasons("orders")).toEqual(["the name is served by contract orders/contract.yaml"]);
    world.consul(consulRecord("b"));
    expect(world.urls).toEqual(["http://b.test:8080"]);
  });

  it("is listed and has no endpoint while its service has no instance", () => {
    const world = withContract(new World(), contract());
    expect(world.urls).toEqual([]);
    const { lists } = world;
    world.consul(consulRecord("a"));
    expect(world.urls).toEqual(["http://a.test:8080"]);
    expect(world.lists).toBe(lists);
  });
});

describe("an event that declares an instance gone", () => {
  it("takes it out at once, also where Consul still has it", () => {
    const world = new World().consul(consulRecord("a"), consulRecord("b")).events(eventRecord("a"));
    world.deregister("a");
    expect(world.urls).toEqual(["http://b.test:8080"]);
    world.deregister("b");
    expect(world.names).toEqual([]);
  });

  it("counts until Consul's index moves on", () => {
    const world = new World().consul(consulRecord("a")).deregister("a");
    world.consul(consulRecord("a", { weight: 2 }));
    expect(world.names).toEqual([]);
    world.consul(consulRecord("a", { index: 2 }));
    expect(world.names).toEqual(["orders"]);
  });

  it("counts for 60 s at most", () => {
    const world = new World().consul(consulRecord("a")).deregister("a");
    expect(world.catalog.nextExpiry).toBe(60_000);
    world.now = 59_999;
    world.catalog.expire();
    expect(world.names).toEqual([]);
    world.now = 60_000;
    world.catalog.expire();
    expect(world.names).toEqual(["orders"]);
    expect(world.catalog.nextExpiry).toBeUndefined();
  });

  it("counts too where it arrives before Consul has spoken of the instance", () => {
    const world = new World().deregister("a").consul(consulRecord("a"));
    expect(world.names).toEqual([]);
    world.consul(consulRecord("a", { index: 2 }));
    expect(world.names).toEqual(["orders"]);
  });

  it("is overtaken by a new registration", () => {
    const world = new World().consul(consulRecord("a")).deregister("a").events(eventRecord("a"));
    expect(world.urls).toEqual(["http://a.test:8080"]);
  });

  it("that is history takes nothing out of what Consul says", () => {
    const world = new World().consul(consulRecord("a")).events(eventRecord("a")).gone("events", "a");
    expect(world.urls).toEqual(["http://a.test:8080"]);
  });
});

describe("several changes at once", () => {
  it("are one snapshot and one change of the list", () => {
    const world = new World();
    world.catalog.applyAll([
      { source: "consul", change: { put: [consulRecord("a")], remove: [] } },
      {
        source: "events",
        change: { put: [eventRecord("a"), eventRecord("b", { tool: "two" })], remove: [] },
      },
    ]);
    expect(world.names).toEqual(["orders", "two"]);
    expect([world.lists, world.snapshots]).toEqual([1, 1]);
  });

  it("a listener of lists is not told of endpoints", () => {
    const world = new World().consul(consulRecord("a"));
    const listener = vi.fn();
    world.catalog.onChange(listener);
    world.consul(consulRecord("a", { url: "http://moved.test:8080" }));
    expect(listener).not.toHaveBeenCalled();
    world.consul(consulRecord("a", { definition: { title: "New" } }));
    expect(listener).toHaveBeenCalledTimes(1);
  });
});
