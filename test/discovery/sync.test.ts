import { mkdtemp, readdir, rm, writeFile, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { monotonicClock } from "../../src/core/clock.ts";
import { silentLogger } from "../../src/core/log.ts";
import { Sync } from "../../src/discovery/sync.ts";
import { Catalog } from "../../src/tools/catalog.ts";
import type {
  ApplyChange,
  SourceChange,
  SourceRecord,
  SourceStatus,
  ToolSource,
} from "../../src/tools/source.ts";
import { consulRecord, eventRecord } from "../support/instances.ts";
import { makeTool } from "../support/tools.ts";

/** A source whose words come from the test. */
class Told implements ToolSource {
  state: SourceStatus["state"] = "ready";
  #apply: ApplyChange | undefined;
  readonly started = Promise.withResolvers<undefined>();
  readonly name: string;
  readonly kind: SourceStatus["kind"];
  readonly #onStart: (source: Told) => void | Promise<void>;

  constructor(
    name: string,
    kind: SourceStatus["kind"],
    onStart: (source: Told) => void | Promise<void> = () => undefined,
  ) {
    this.name = name;
    this.kind = kind;
    this.#onStart = onStart;
  }

  async start(apply: ApplyChange): Promise<void> {
    this.#apply = apply;
    this.started.resolve(undefined);
    await this.#onStart(this);
  }

  say(change: Partial<SourceChange>): void {
    this.#apply?.({ put: [], remove: [], ...change });
  }

  put(...put: SourceRecord[]): void {
    this.say({ put });
  }

  status(): SourceStatus {
    return { name: this.name, kind: this.kind, state: this.state, ageSeconds: 0 };
  }

  async close(): Promise<void> {
    this.state = "closed";
  }
}

let directory: string;
const open: Sync[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "onex-sync-"));
});

afterEach(async () => {
  await Promise.all(open.splice(0).map((sync) => sync.close()));
  await rm(directory, { recursive: true });
});

interface Given {
  readonly local?: readonly ToolSource[];
  readonly events?: ToolSource;
  readonly consul?: ToolSource;
  readonly stateDir?: string;
  readonly readOnly?: boolean;
}

function synced({ local = [], ...given }: Given): { sync: Sync; catalog: Catalog; names: () => string[] } {
  const catalog = new Catalog();
  const sync = new Sync({
    catalog,
    recordsOf: (source) => source,
    local,
    ...given,
    clock: monotonicClock,
    log: silentLogger,
  });
  open.push(sync);
  return { sync, catalog, names: () => catalog.snapshot().tools.map(({ name }) => name) };
}

describe("the start", () => {
  it("applies the first state of all sources, once it resolves", async () => {
    const local = new Told("contracts", "contract", (source) => {
      source.put({ key: "a", tool: makeTool("a") });
    });
    const consul = new Told("consul", "consul", (source) => source.put(consulRecord("b", { tool: "b" })));
    const events = new Told("events", "event", (source) => source.put(eventRecord("c", { tool: "c" })));
    const { sync, names } = synced({ local: [local], consul, events });
    await sync.start();
    expect(names()).toEqual(["a", "b", "c"]);
  });

  it("subscribes to events before it reads Consul, and applies what came between after it", async () => {
    const order: string[] = [];
    const events = new Told("events", "event", () => {
      order.push("events");
    });
    const consul = new Told("consul", "consul", (source) => {
      order.push("consul");
      source.put(consulRecord("a"));
      // Declared gone between the subscription and Consul's answer, which still has it.
      events.say({ remove: ["a"], suppress: ["a"] });
      source.put(consulRecord("a"));
    });
    const { sync, names, catalog } = synced({ events, consul });
    await sync.start();
    expect(order).toEqual(["events", "consul"]);
    expect(names()).toEqual([]);
    expect(catalog.explain("orders").records[0]?.reason).toContain("an event declared it gone");
  });

  it("happens once", async () => {
    const { sync } = synced({ consul: new Told("consul", "consul") });
    await sync.start();
    await expect(sync.start()).rejects.toThrow("only once");
    await sync.close();
    await expect(sync.start()).rejects.toThrow("only once");
  });

  it("that a close overtakes starts no further source, and does not fail", async () => {
    const gate = Promise.withResolvers<undefined>();
    const events = new Told("events", "event", () => gate.promise);
    const consul = new Told("consul", "consul");
    let isStarted = false;
    void consul.started.promise.then(() => (isStarted = true));
    const { sync } = synced({ events, consul });
    const starting = sync.start();
    await events.started.promise;
    await sync.close();
    gate.resolve(undefined);
    await starting;
    expect(isStarted).toBe(false);
    expect(sync.statuses().map(({ state }) => state)).toEqual(["closed", "closed"]);
  });

  it("is kept up by a Consul that never answers for a few seconds only: then its last good state is served", async () => {
    const saved = synced({
      consul: new Told("consul", "consul", (source) => source.put(consulRecord("a"))),
      stateDir: directory,
    });
    await saved.sync.start();
    await saved.sync.close();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    const silent = new Told("consul", "consul", () => new Promise(() => undefined));
    silent.state = "starting";
    const { sync, names } = synced({ consul: silent, stateDir: directory });
    const starting = sync.start();
    await silent.started.promise;
    await vi.advanceTimersByTimeAsync(4_900);
    expect(names()).toEqual([]);
    await vi.advanceTimersByTimeAsync(200);
    await starting;
    expect(names()).toEqual(["orders"]);
    expect(sync.statuses()[0]).toMatchObject({
      state: "degraded",
      lastError: expect.stringContaining("5 s"),
    });
  });

  it("fails where a source in the process cannot start", async () => {
    const local = new Told("contracts", "contract", () => Promise.reject(new Error("no directory")));
    await expect(synced({ local: [local] }).sync.start()).rejects.toThrow("no directory");
  });
});

describe("what sources say at one time", () => {
  it("becomes one change of the list", async () => {
    const events = new Told("events", "event");
    const consul = new Told("consul", "consul");
    const { sync, catalog, names } = synced({ events, consul });
    await sync.start();
    const listener = vi.fn();
    catalog.onChange(listener);
    consul.put(consulRecord("a"));
    events.put(eventRecord("a", { definition: { title: "A" } }));
    consul.put(consulRecord("b", { tool: "b" }));
    await vi.waitFor(() => expect(names()).toEqual(["b", "orders"]));
    expect(listener).toHaveBeenCalledTimes(1);
    expect(catalog.snapshot().byName.get("orders")?.title).toBe("A");
  });

  it("is dropped after close", async () => {
    const consul = new Told("consul", "consul");
    const { sync, names } = synced({ consul });
    await sync.start();
    consul.put(consulRecord("a"));
    await sync.close();
    consul.put(consulRecord("b", { tool: "b" }));
    expect(names()).toEqual([]);
    expect(sync.statuses()[0]?.state).toBe("closed");
  });
});

/** A source with parts, each of which may be away. */
class Parted extends Told {
  readonly #unread: Set<string>;

  constructor(...unread: readonly string[]) {
    super("events", "event");
    this.#unread = new Set(unread);
    this.state = unread.length > 0 ? "degraded" : "ready";
  }

  unreadParts(): readonly string[] {
    return [...this.#unread];
  }

  /** A part is read, and this is all of it. */
  read(part: string, ...ids: readonly string[]): void {
    this.#unread.delete(part);
    this.put(...ids.map((id) => partRecord(part, id)));
  }
}

const partRecord = (part: string, id: string): SourceRecord => ({
  ...eventRecord(id, { tool: id, serviceName: id }),
  part,
});

describe("the last good state of a source with parts", () => {
  beforeEach(async () => {
    const events = new Parted();
    const { sync } = synced({ events, stateDir: directory });
    await sync.start();
    events.put(
      ...["a", "a_gone"].map((id) => partRecord("ta", id)),
      ...["b", "b_gone"].map((id) => partRecord("tb", id)),
    );
    await sync.close();
  });

  const onDisk = async (): Promise<string[]> => {
    const text = await readFile(join(directory, "events.json"), "utf8");
    return (JSON.parse(text) as { records: { key: string }[] }).records.map(({ key }) => key).sort();
  };

  it("is served of the part that is away, while the other one is followed, and outlives any number of starts", async () => {
    for (const added of ["c", "d"]) {
      const events = new Parted("tb");
      const { sync, names, catalog } = synced({ events, stateDir: directory });
      events.state = "degraded";
      await sync.start();
      events.put(partRecord("ta", "a"));
      await vi.waitFor(() => expect(names()).toEqual(["a", "b", "b_gone"]));
      events.put(partRecord("ta", added));
      events.say({ remove: ["a"] });
      await vi.waitFor(() => expect(names()).toEqual(["b", "b_gone", added]));
      expect(sync.statuses()[0]).toMatchObject({ state: "degraded", restoredFrom: expect.any(String) });
      const restored = (id: string): boolean => catalog.explain(id).records[0]?.restoredFrom !== undefined;
      expect([restored("b"), restored(added)]).toEqual([true, false]);
      await sync.close();
      expect(await onDisk()).toEqual(["b", "b_gone", added]);
    }
  });

  it("tells for each part when it was saved", async () => {
    const first = JSON.parse(await readFile(join(directory, "events.json"), "utf8")) as { saved_at: string };
    const one = new Parted("tb");
    const before = synced({ events: one, stateDir: directory });
    await before.sync.start();
    one.put(partRecord("ta", "a"));
    await before.sync.close();
    const { sync } = synced({ events: new Parted("ta", "tb"), stateDir: directory });
    await sync.start();
    expect(sync.statuses()[0]?.restoredFrom).toBe(first.saved_at);
  });

  it("is replaced part by part, as each of them is read", async () => {
    const events = new Parted("ta", "tb");
    const { sync, names } = synced({ events, stateDir: directory });
    await sync.start();
    expect(names()).toEqual(["a", "a_gone", "b", "b_gone"]);
    events.read("tb", "b");
    await vi.waitFor(() => expect(names()).toEqual(["a", "a_gone", "b"]));
    events.read("ta", "a");
    await vi.waitFor(() => expect(names()).toEqual(["a", "b"]));
    expect(sync.statuses()[0]).not.toHaveProperty("restoredFrom");
    await sync.close();
    expect(await onDisk()).toEqual(["a", "b"]);
  });

  it("gives way to what is declared gone now on another part, and not to what was before the start", async () => {
    const events = new Parted("tb");
    const { sync, names } = synced({ events, stateDir: directory });
    await sync.start();
    events.say({ remove: ["b", "b_gone"], suppress: ["b_gone"] });
    await vi.waitFor(() => expect(names()).toEqual(["b"]));
  });
});

describe("the last good state", () => {
  const down = (name: "consul" | "events"): Told => {
    const source = new Told(name, name === "consul" ? "consul" : "event");
    source.state = "starting";
    return source;
  };

  async function saved(...records: SourceRecord[]): Promise<void> {
    const consul = new Told("consul", "consul", (source) => source.put(...records));
    const { sync } = synced({ consul, stateDir: directory });
    await sync.start();
    await sync.close();
  }

  it("is served from the start while its source cannot be reached, and reported as such", async () => {
    await saved(consulRecord("a"), consulRecord("b"));
    const consul = down("consul");
    const { sync, names, catalog } = synced({ consul, stateDir: directory });
    await sync.start();
    expect(names()).toEqual(["orders"]);
    expect(catalog.snapshot().tools[0]?.endpoints).toHaveLength(2);
    expect(sync.statuses()[0]).toMatchObject({
      state: "degraded",
      restoredFrom: expect.stringMatching(/^\d{4}-\d\d-\d\dT/) as string,
    });
  });

  it("is replaced whole, in one change, once the source knows the present state", async () => {
    await saved(consulRecord("a", { tool: "gone" }), consulRecord("b", { tool: "kept" }));
    const consul = down("consul");
    const { sync, names, catalog } = synced({ consul, stateDir: directory });
    await sync.start();
    expect(names()).toEqual(["gone", "kept"]);
    const listener = vi.fn();
    catalog.onChange(listener);
    consul.put(consulRecord("b", { tool: "kept" }));
    consul.put(consulRecord("c", { tool: "new" }));
    expect(names()).toEqual(["gone", "kept"]);
    consul.state = "ready";
    await vi.waitFor(() => expect(names()).toEqual(["kept", "new"]));
    expect(listener).toHaveBeenCalledTimes(1);
    expect(sync.statuses()[0]).not.toHaveProperty("restoredFrom");
  });

  it("stays on disk when the source was never reached", async () => {
    await saved(consulRecord("a"));
    const before = await readFile(join(directory, "consul.json"), "utf8");
    const first = synced({ consul: down("consul"), stateDir: directory });
    await first.sync.start();
    await first.sync.close();
    expect(await readFile(join(directory, "consul.json"), "utf8")).toBe(before);
  });

  it("is served and left as it is by whoever only reads", async () => {
    await saved(consulRecord("a"));
    const file = join(directory, "consul.json");
    const before = await readFile(file, "utf8");
    const reading = { stateDir: directory, readOnly: true };
    const away = synced({ consul: down("consul"), ...reading });
    await away.sync.start();
    expect(away.names()).toEqual(["orders"]);
    const there = synced({
      consul: new Told("consul", "consul", (source) => source.put(consulRecord("b"))),
      ...reading,
    });
    await there.sync.start();
    await there.sync.close();
    expect(await readFile(file, "utf8")).toBe(before);
    await writeFile(file, "{");
    await synced({ consul: down("consul"), ...reading }).sync.start();
    expect(await readdir(directory)).toEqual(["consul.json"]);
  });

  it("that cannot be written is told, without making the source any worse", async () => {
    const file = join(directory, "no-folder");
    await writeFile(file, "");
    const consul = new Told("consul", "consul", (source) => source.put(consulRecord("a")));
    const { sync } = synced({ consul, stateDir: file });
    await sync.start();
    await expect
      .poll(() => sync.statuses()[0], { timeout: 5_000 })
      .toMatchObject({ state: "ready", lastError: expect.stringContaining("cannot be saved") });
  });

  it("that is broken keeps nobody from starting", async () => {
    await writeFile(join(directory, "consul.json"), "{");
    const consul = down("consul");
    const { sync, names } = synced({ consul, stateDir: directory });
    await sync.start();
    expect(names()).toEqual([]);
    expect(sync.statuses()[0]?.state).toBe("starting");
  });

  it("is kept for events too", async () => {
    const first = synced({
      events: new Told("events", "event", (source) => source.put(eventRecord("a"))),
      stateDir: directory,
    });
    await first.sync.start();
    await first.sync.close();
    const { sync, names } = synced({ events: down("events"), stateDir: directory });
    await sync.start();
    expect(names()).toEqual(["orders"]);
  });
});
