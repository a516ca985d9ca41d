import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { LastGood } from "../../src/discovery/last-good.ts";
import type { InstanceRecord } from "../../src/tools/source.ts";
import { collectingLog } from "../support/log.ts";

const record = (id: string): InstanceRecord => ({
  key: `node-1/${id}`,
  instance: {
    source: "consul",
    serviceId: id,
    serviceName: "orders",
    claim: { toolName: "orders" },
    definition: {
      description: "Literally ${HOME}.",
      inputSchema: { type: "object", properties: { a: { type: "string" } } },
      annotations: { readOnly: true },
      icons: [{ src: "https://x.test/i.png", sizes: ["48x48"] }],
      tags: ["mcp-enabled"],
      timeoutSeconds: 5,
      execution: { kind: "rest", method: "GET", url: "/{a}", query: { b: 1 } },
    },
    url: "http://[fd00::1]:9000/run",
    weight: 3,
    live: false,
    down: 'its check "x" is critical',
    index: 12,
  },
});
const unclear: InstanceRecord = {
  key: "e1",
  instance: { source: "event", serviceId: "e1", definition: {}, live: true, claim: { refused: "no name" } },
};

describe("the last good state", () => {
  let directory: string;
  let file: string;
  beforeEach(async () => {
    const folder = await mkdtemp(join(tmpdir(), "onex-state-"));
    directory = join(folder, "state");
    file = join(directory, "consul.json");
    return () => rm(folder, { recursive: true, force: true });
  });

  const openState = (source = "consul"): LastGood & { lines: ReturnType<typeof collectingLog>["lines"] } => {
    const { log, lines } = collectingLog();
    return Object.assign(new LastGood({ directory, source, log }), { lines });
  };

  it("comes back as it was handed over, with the time it was saved", async () => {
    const before = Date.now();
    const state = openState();
    state.save(() => [record("a"), unclear]);
    await state.close();
    const loaded = await openState().load();
    expect(loaded?.records).toEqual([record("a"), unclear]);
    expect(Date.parse(loaded?.savedAt ?? "")).toBeGreaterThanOrEqual(before);
    expect(state.problem).toBeUndefined();
  });

  it("is nobody else's to read, and leaves no other file behind", async () => {
    const state = openState();
    state.save(() => [record("a")]);
    await state.close();
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await readdir(directory)).toEqual(["consul.json"]);
  });

  it("is written some time after a change, with all that has changed by then", async () => {
    const state = openState();
    let records = [record("a")];
    const present = vi.fn(() => records);
    state.save(present);
    records = [record("b")];
    state.save(present);
    await vi.waitFor(() => readFile(file), { timeout: 10_000 });
    expect((await openState().load())?.records).toEqual([record("b")]);
    expect(present).toHaveBeenCalledOnce();
    await state.close();
    expect(present).toHaveBeenCalledOnce();
  });

  it("that was never saved is none, without a word", async () => {
    const state = openState();
    expect(await state.load()).toBeUndefined();
    await state.close();
    expect(state.lines).toEqual([]);
  });

  it.each([
    ["is cut off", '{"version":1,"source":"consul","sav'],
    [
      "is of another form",
      JSON.stringify({ version: 2, source: "consul", saved_at: new Date().toISOString(), records: [] }),
    ],
    [
      "is another source's",
      JSON.stringify({ version: 1, source: "events", saved_at: new Date().toISOString(), records: [] }),
    ],
    [
      "has a broken record",
      JSON.stringify({
        version: 1,
        source: "consul",
        saved_at: new Date().toISOString(),
        records: [{ key: "a", instance: {} }],
      }),
    ],
    [
      "holds a tool that would run code here",
      JSON.stringify({
        version: 1,
        source: "consul",
        saved_at: new Date().toISOString(),
        records: [
          {
            ...record("a"),
            instance: {
              ...record("a").instance,
              definition: { execution: { kind: "local", module: "/x.mjs", export: "default" } },
            },
          },
        ],
      }),
    ],
  ])("that %s is ignored, said and kept aside", async (_title, text) => {
    await mkdir(directory);
    await writeFile(file, text);
    const state = openState();
    expect(await state.load()).toBeUndefined();
    expect(state.lines.map(({ level }) => level)).toEqual(["warn"]);
    expect(await readFile(`${file}.unreadable`, "utf8")).toBe(text);
    state.save(() => [record("a")]);
    await state.close();
    expect((await openState().load())?.records).toEqual([record("a")]);
  });

  it("that cannot be written is said once, and is no trouble to anybody", async () => {
    await mkdir(join(directory, ".."), { recursive: true });
    await writeFile(directory, "a file where the directory should be");
    const state = openState();
    for (const id of ["a", "b"]) {
      state.save(() => [record(id)]);
      await state.close();
    }
    expect(state.lines.map(({ level, message }) => [level, message])).toEqual([
      ["warn", "the last good state cannot be saved"],
    ]);
    expect(state.problem).toMatch(/cannot be saved: .*(EEXIST|ENOTDIR)/);
    await rm(directory);
    await state.close();
    expect(state.problem).toBeUndefined();
    expect((await openState().load())?.records).toEqual([record("b")]);
  });

  it("that has no end, or is larger than any state, is not read but said", async () => {
    await mkdir(directory, { recursive: true });
    const isSaid = async (reason: RegExp): Promise<void> => {
      const state = openState();
      expect(await state.load()).toBeUndefined();
      expect(state.lines).toMatchObject([
        { level: "warn", fields: { reason: expect.stringMatching(reason) as string } },
      ]);
      await rm(file);
    };
    await symlink("/dev/null", file);
    await isSaid(/consul\.json is no regular file/);
    await writeFile(file, "");
    await truncate(file, 300 * 1024 * 1024);
    await isSaid(/is of 314572800 bytes, more than 268435456/);
  });

  it("that cannot be read is said, and none", async () => {
    await mkdir(file, { recursive: true });
    const state = openState();
    expect(await state.load()).toBeUndefined();
    expect(state.lines.map(({ level, message }) => [level, message])).toEqual([
      ["warn", "the last good state cannot be read"],
    ]);
  });
});
