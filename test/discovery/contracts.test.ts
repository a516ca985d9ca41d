import { unlinkSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { ContractSource, type ContractSourceOptions } from "../../src/discovery/contracts.ts";
import { HandlerLoadError } from "../../src/core/errors.ts";
import { silentLogger, type LogFields, type Logger } from "../../src/core/log.ts";
import { Catalog } from "../../src/tools/catalog.ts";
import type { SourceChange, ToolRecord } from "../../src/tools/source.ts";
import { type Folder, tempFolder } from "../contract/folder.ts";
import { nodeContract } from "../contract/nodes.ts";

let folder: Folder;
const open: ContractSource[] = [];

beforeEach(async () => {
  folder = await tempFolder();
});

afterEach(async () => {
  await Promise.all(open.splice(0).map((source) => source.close()));
  await folder[Symbol.asyncDispose]();
});

interface Following {
  readonly source: ContractSource;
  /** Every change applied, oldest first. */
  readonly changes: SourceChange<ToolRecord>[];
  /** Names of the tools that are served. */
  readonly names: () => string[];
  readonly description: (name: string) => string | undefined;
}

async function follow(options: Partial<ContractSourceOptions> = {}): Promise<Following> {
  const source = new ContractSource({ directory: folder.path, env: {}, ...options });
  open.push(source);
  const changes: SourceChange<ToolRecord>[] = [];
  const catalog = new Catalog({ maxTools: 10_000 });
  await source.start((change) => {
    changes.push(change);
    catalog.apply(source.name, change);
  });
  return {
    source,
    changes,
    names: () => catalog.snapshot().tools.map((tool) => tool.name),
    description: (name) => catalog.snapshot().byName.get(name)?.description,
  };
}

/** Files are looked at some time after they change; how long that takes depends on the machine alone. */
const eventually = <T>(value: () => T) => expect.poll(value, { timeout: 20_000 });

const named = (name: string, description = "d"): string => nodeContract({ name, description });

/** A change made after all others: when it is there, whatever would have come of the others is there too. */
async function settle({ names }: Following): Promise<void> {
  const name = `marker-${crypto.randomUUID()}`;
  await folder.write(`${name}/contract.yaml`, named(name));
  await eventually(names).toContain(name);
}

/** A log that keeps the message and contract of each line. */
function keptLog(): { readonly log: Logger; readonly lines: string[] } {
  const lines: string[] = [];
  const keep = (fields: LogFields, message: string): void => {
    lines.push(`${message}: ${String(fields.contract)}`);
  };
  const log: Logger = { ...silentLogger, info: keep, warn: keep, child: () => log };
  return { log, lines };
}

describe("at start", () => {
  test("the log says why a file is no tool, once, and when a broken one is mended", async () => {
    await folder.write("skipped/contract.yaml", nodeContract({ node_type: "EFFECT" }));
    await folder.write("broken/contract.yaml", "a: [");
    const { log, lines } = keptLog();
    const following = await follow({ log });
    const outcomes = [
      "a contract cannot be served: broken/contract.yaml",
      "a contract is no tool: skipped/contract.yaml",
    ];
    expect(lines).toEqual(outcomes);
    await settle(following);
    await folder.write("broken/contract.yaml", named("mended"));
    await eventually(following.names).toContain("mended");
    expect(lines.filter((line) => line.startsWith("a contract"))).toEqual([
      ...outcomes,
      "a contract is mended: broken/contract.yaml",
    ]);
  });

  test("all contracts are one change, and every file is in the report", async () => {
    await folder.write("a/contract.yaml", named("a"));
    await folder.write("b/contract.yaml", named("b"));
    await folder.write("c/contract.yaml", nodeContract({ node_type: "EFFECT" }));
    await folder.write("d/contract.yaml", "a: [");
    const { source, changes, names } = await follow();
    expect(changes).toHaveLength(1);
    expect(names()).toEqual(["a", "b"]);
    expect(source.report()).toMatchObject({
      directory: folder.path,
      entries: [
        { path: "a/contract.yaml", outcome: "loaded" },
        { path: "b/contract.yaml", outcome: "loaded" },
        { path: "c/contract.yaml", outcome: "skipped" },
        { path: "d/contract.yaml", outcome: "failed", code: "HANDLER_LOADER_002" },
      ],
    });
    expect(source.status()).toMatchObject({
      name: "contracts",
      kind: "contract",
      state: "ready",
      ageSeconds: 0,
      lastError: expect.stringContaining("d/contract.yaml"),
    });
  });

  test("the tool says where it is from", async () => {
    await folder.write("deep/er/contract.yaml", named("a"));
    const { changes } = await follow();
    expect(changes[0]?.put[0]).toMatchObject({
      key: "deep/er/contract.yaml",
      tool: { name: "a", source: "contract", owner: "deep/er/contract.yaml", revision: expect.any(String) },
    });
  });

  test("a missing directory is an error that names it and `onex init`", async () => {
    const source = new ContractSource({ directory: folder.at("none"), env: {} });
    open.push(source);
    const error = await source.start(() => undefined).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(HandlerLoadError);
    expect((error as Error).message).toMatch(/none.*onex init/);
    expect(source.status().state).toBe("closed");
  });

  test("an empty directory is no error, and tools may come later", async () => {
    const following = await follow();
    expect(following.names()).toEqual([]);
    await settle(following);
  });
});

describe("while running", () => {
  test("adding, changing, breaking, mending and removing a contract takes effect", async () => {
    const { source, names, description, changes } = await follow();
    await folder.write("a/contract.yaml", named("a", "one"));
    await eventually(names).toEqual(["a"]);
    await folder.write("a/contract.yaml", named("a", "two"));
    await eventually(() => description("a")).toBe("two");

    await folder.write("a/contract.yaml", "name: [");
    await eventually(() => source.report().entries[0]?.outcome).toBe("failed");
    expect(source.report().entries[0]).toMatchObject({
      code: "HANDLER_LOADER_002",
      reason: expect.stringContaining("last good version is still served"),
    });
    expect(source.status()).toMatchObject({
      state: "ready",
      lastError: expect.stringContaining("a/contract.yaml"),
    });
    expect(description("a")).toBe("two");

    await folder.write("a/contract.yaml", named("a", "three"));
    await eventually(() => description("a")).toBe("three");
    expect(source.report().entries[0]?.outcome).toBe("loaded");
    expect(source.status()).not.toHaveProperty("lastError");

    await folder.remove("a/contract.yaml");
    await eventually(names).toEqual([]);
    expect(source.report().entries).toEqual([]);
    expect(changes.map(({ put, remove }) => [put.length, remove.length])).toEqual([
      [1, 0],
      [1, 0],
      [1, 0],
      [0, 1],
    ]);
  });

  test("a broken edit keeps the last good version, whatever is broken about it", async () => {
    await folder.write("a/contract.yaml", named("a", "good"));
    const following = await follow();
    for (const bad of [
      "",
      nodeContract({ name: "a", mcp: { timeout_seconds: 0 } }),
      nodeContract({ name: "a", mcp: { input_schema: { type: "string" } } }),
    ]) {
      const before = following.source.report().entries[0]?.reason;
      await folder.write("a/contract.yaml", bad);
      await eventually(() => following.source.report().entries[0]?.reason).not.toBe(before);
      expect(following.description("a")).toBe("good");
    }
    expect(following.changes).toHaveLength(1);
  });

  test("a contract that stops being exposed goes, and comes back", async () => {
    await folder.write("a/contract.yaml", named("a"));
    const { names } = await follow();
    await folder.write("a/contract.yaml", nodeContract({ name: "a", mcp: { expose: false } }));
    await eventually(names).toEqual([]);
    await folder.write("a/contract.yaml", named("a"));
    await eventually(names).toEqual(["a"]);
  });

  test("an editor's atomic replace is one change", async () => {
    await folder.write("a/contract.yaml", named("a", "one"));
    const following = await follow();
    await folder.replace("a/contract.yaml", named("a", "two"));
    await eventually(() => following.description("a")).toBe("two");
    await folder.replace("a/contract.yaml", named("a", "three"));
    await eventually(() => following.description("a")).toBe("three");
    expect(following.changes).toHaveLength(3);
  });

  test("a file that is deleted and written anew is a change, never a removal", async () => {
    await folder.write("a/contract.yaml", named("a", "one"));
    const { changes, description } = await follow();
    // In one go, as the source runs in this process: it cannot look in between.
    unlinkSync(folder.at("a/contract.yaml"));
    writeFileSync(folder.at("a/contract.yaml"), named("a", "two"));
    await eventually(() => description("a")).toBe("two");
    expect(changes.flatMap((change) => change.remove)).toEqual([]);
  });

  test("a rename of the tool is one change, under the same key", async () => {
    await folder.write("a/contract.yaml", named("old"));
    const { changes, names } = await follow();
    await folder.write("a/contract.yaml", named("new"));
    await eventually(names).toEqual(["new"]);
    expect(changes).toHaveLength(2);
    expect(changes[1]).toMatchObject({ put: [{ key: "a/contract.yaml" }], remove: [] });
  });

  test("a rename of the folder is one change: the old key gone, the new one there", async () => {
    await folder.write("a/deep/contract.yaml", named("tool"));
    const { changes, names } = await follow();
    await folder.move("a", "b");
    await eventually(() => changes.length).toBe(2);
    expect(changes[1]).toMatchObject({
      put: [{ key: "b/deep/contract.yaml", tool: { owner: "b/deep/contract.yaml" } }],
      remove: ["a/deep/contract.yaml"],
    });
    expect(names()).toEqual(["tool"]);
    await folder.write("b/deep/contract.yaml", named("again"));
    await eventually(names).toEqual(["again"]);
  });

  test("whole folders come and go", async () => {
    const { names } = await follow();
    await folder.write("x/y/z/contract.yaml", named("deep"));
    await folder.write("x/contract.yaml", named("shallow"));
    await eventually(names).toEqual(["deep", "shallow"]);
    await folder.remove("x");
    await eventually(names).toEqual([]);
  });

  test("many files changed at once are one change", async () => {
    const paths = Array.from({ length: 60 }, (_, index) => `n${index}/contract.yaml`);
    for (const [index, path] of paths.entries()) await folder.write(path, named(`t${index}`, "one"));
    const { changes, description } = await follow();
    for (const [index, path] of paths.entries()) writeFileSync(folder.at(path), named(`t${index}`, "two"));
    await eventually(() => paths.every((_, index) => description(`t${index}`) === "two")).toBe(true);
    expect(changes).toHaveLength(2);
    expect(changes[1]?.put).toHaveLength(60);
  });

  test("what changes nothing of the tool is no change", async () => {
    await folder.write("a/contract.yaml", named("a"));
    const following = await follow();
    await folder.write("a/contract.yaml", `# a comment\n${named("a")}\n`);
    await folder.write("a/README.md", "text");
    await folder.write("node_modules/x/contract.yaml", named("hidden"));
    await folder.write(".git/contract.yaml", named("hidden too"));
    await settle(following);
    expect(following.changes).toHaveLength(2);
    expect(following.changes[1]?.put).toHaveLength(1);
    expect(following.names().some((name) => name.startsWith("hidden"))).toBe(false);
  });

  test("an edit in a schema file that a contract refers to takes effect; a bad one does not", async () => {
    const type = (property: string): string =>
      JSON.stringify({ type: "object", properties: { [property]: {} } });
    await folder.write("shared/s.json", type("one"));
    await folder.write(
      "a/contract.yaml",
      nodeContract({ name: "a", mcp: { input_schema: { $ref: "../shared/s.json" } } }),
    );
    const { changes, source } = await follow();
    const properties = (): unknown => changes.at(-1)?.put[0]?.tool.inputSchema.properties;
    expect(properties()).toEqual({ one: {} });
    await folder.write("shared/s.json", type("two"));
    await eventually(properties).toEqual({ two: {} });
    await folder.remove("shared/s.json");
    await eventually(() => source.report().entries[0]?.outcome).toBe("failed");
    expect(changes).toHaveLength(2);
    await folder.write("shared/s.json", type("three"));
    await eventually(properties).toEqual({ three: {} });
    expect(source.report().entries[0]?.outcome).toBe("loaded");
  });

  test("a module that was missing is found once it is there; an edit in it is not the catalog's business", async () => {
    await folder.write(
      "a/contract.yaml",
      nodeContract({ name: "a", mcp: { execution: { kind: "local", module: "./m.ts" } } }),
    );
    const following = await follow();
    expect(following.source.report().entries[0]).toMatchObject({ outcome: "failed" });
    await folder.write("a/m.ts", "export default () => 1;");
    await eventually(following.names).toEqual(["a"]);
    await folder.write("a/m.ts", "export default () => 2;");
    await settle(following);
    expect(following.changes).toHaveLength(2);
  });

  test("a volume as Kubernetes updates it is followed", async () => {
    await folder.write("..1/contract.yaml", named("a", "one"));
    await folder.link("..1", "..data");
    await folder.link("..data/contract.yaml", "contract.yaml");
    const { description } = await follow();
    await folder.write("..2/contract.yaml", named("a", "two"));
    await folder.link("..2", "..tmp");
    await folder.move("..tmp", "..data");
    await eventually(() => description("a")).toBe("two");
  });
});

describe("the directory itself", () => {
  test("when it vanishes the last state stays, degraded; when it is back it is followed again", async () => {
    await folder.write("r/c/a/contract.yaml", named("a", "one"));
    const { source, names, description } = await follow({ directory: folder.at("r/c") });
    await folder.remove("r");
    await eventually(() => source.status().state).toBe("degraded");
    expect(source.status().lastError).toContain(folder.at("r/c"));
    expect(names()).toEqual(["a"]);
    expect(source.report().entries).toHaveLength(1);

    await folder.write("r/c/a/contract.yaml", named("a", "two"));
    await eventually(() => description("a")).toBe("two");
    expect(source.status().state).toBe("ready");
    await folder.write("r/c/a/contract.yaml", named("a", "three"));
    await eventually(() => description("a")).toBe("three");
  });

  test("a directory that is a link is followed to where it leads now", async () => {
    await folder.write("v1/c/contract.yaml", named("a", "one"));
    await folder.write("v2/c/contract.yaml", named("a", "two"));
    await folder.link("v1", "current");
    const { description } = await follow({ directory: folder.at("current/c") });
    expect(description("a")).toBe("one");
    await folder.write("v1/c/contract.yaml", named("a", "one, edited"));
    await eventually(() => description("a")).toBe("one, edited");
    await folder.link("v2", "next");
    await folder.move("next", "current");
    await eventually(() => description("a")).toBe("two");
    await folder.write("v2/c/contract.yaml", named("a", "two, edited"));
    await eventually(() => description("a")).toBe("two, edited");
  });

  test("a directory that another takes the place of is followed", async () => {
    await folder.write("c/a/contract.yaml", named("a"));
    await folder.write("other/b/contract.yaml", named("b"));
    const { names } = await follow({ directory: folder.at("c") });
    await folder.move("c", "old");
    await folder.move("other", "c");
    await eventually(names).toEqual(["b"]);
    await folder.write("c/d/contract.yaml", named("d"));
    await eventually(names).toEqual(["b", "d"]);
  });
});

describe("looking without watching", () => {
  test("changes take effect at the next look, and a directory that is away keeps the last state", async () => {
    await folder.write("c/a/contract.yaml", named("a"));
    const { source, names, changes } = await follow({ directory: folder.at("c"), watch: false });
    await folder.write("c/b/contract.yaml", named("b"));
    await source.rescan();
    expect(names()).toEqual(["a", "b"]);
    await source.rescan();
    expect(changes).toHaveLength(2);
    await folder.remove("c");
    await source.rescan();
    expect(names()).toEqual(["a", "b"]);
    expect(source.status().state).toBe("degraded");
  });

  test("the age is the time since the last look that succeeded", async () => {
    let now = 1000;
    await folder.write("c/a/contract.yaml", named("a"));
    const { source } = await follow({ directory: folder.at("c"), watch: false, clock: { now: () => now } });
    now += 5000;
    expect(source.status().ageSeconds).toBe(5);
    await source.rescan();
    expect(source.status().ageSeconds).toBe(0);
    await folder.remove("c");
    now += 2000;
    await source.rescan();
    expect(source.status().ageSeconds).toBe(2);
  });

  test("looks that are asked for at once share one", async () => {
    await folder.write("a/contract.yaml", named("a"));
    const { source, changes } = await follow({ watch: false });
    await folder.write("a/contract.yaml", named("b"));
    await Promise.all([source.rescan(), source.rescan(), source.rescan()]);
    expect(changes).toHaveLength(2);
  });
});

describe("closing", () => {
  test("nothing is applied afterwards, even of a look under way", async () => {
    await folder.write("a/contract.yaml", named("a"));
    const { source, changes } = await follow();
    await folder.write("a/contract.yaml", named("b"));
    const look = source.rescan();
    await source.close();
    await look;
    await folder.write("a/contract.yaml", named("c"));
    await source.rescan();
    expect(changes).toHaveLength(1);
    expect(source.status().state).toBe("closed");
    await source.close();
  });

  test("during start it leaves nothing behind", async () => {
    await folder.write("a/contract.yaml", named("a"));
    const source = new ContractSource({ directory: folder.path, env: {} });
    const apply = vi.fn();
    const starting = source.start(apply);
    await source.close();
    await starting;
    expect(apply).not.toHaveBeenCalled();
    expect(source.status().state).toBe("closed");
  });

  test("frees every watcher and timer", async () => {
    await folder.write("a/b/contract.yaml", named("a"));
    const watchers = (): number =>
      process.getActiveResourcesInfo().filter((name) => name === "FSEventWrap" || name === "FSWatcher")
        .length;
    const before = watchers();
    const { source } = await follow();
    expect(watchers()).toBeGreaterThan(before);
    await source.close();
    await eventually(watchers).toBe(before);
  });
});

test("whatever happens to the files, in the end the tools are what the files say", async () => {
  const following = await follow();
  const expected = new Map<string, string>();
  let seed = 42;
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((seed / 2_147_483_648) * below);
  };
  for (let step = 0; step < 300; step += 1) {
    const name = `t${random(8)}`;
    const path = `d${random(3)}/${name}/contract.yaml`;
    const action = random(4);
    if (action === 0 && expected.has(path)) {
      await folder.remove(path.replace("/contract.yaml", ""));
      expected.delete(path);
    } else if (action === 1 && expected.has(path)) {
      await folder.replace(path, named(name, `step ${step}`));
      expected.set(path, `step ${step}`);
    } else {
      await folder.write(path, named(name, `step ${step}`));
      expected.set(path, `step ${step}`);
    }
    // Now and then the watcher gets the time to see something in between.
    if (random(10) === 0) await following.source.rescan();
  }
  await settle(following);
  const seen = new Map<string, string>();
  for (const change of following.changes) {
    for (const path of change.remove) seen.delete(path);
    for (const { key, tool } of change.put) seen.set(key, tool.description);
  }
  for (const key of seen.keys()) if (key.startsWith("marker-")) seen.delete(key);
  expect([...seen].sort()).toEqual([...expected].sort());
});
