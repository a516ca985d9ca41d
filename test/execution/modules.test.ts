import { collectingLog } from "../support/log.ts";
import { execFile } from "node:child_process";
import { renameSync, rmSync, statSync, symlinkSync, utimesSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { loadModule } from "../../src/execution/modules.ts";
import { folder } from "./helpers.ts";

const value = async (path: string): Promise<unknown> => (await loadModule(path)).default;

describe("an edit takes effect on the next load", () => {
  test("in the module itself", async () => {
    const dir = folder({ "tool.ts": "export default 1 as number;" });
    expect(await value(dir.file("tool.ts"))).toBe(1);
    dir.write("tool.ts", "export default 2 as number;");
    expect(await value(dir.file("tool.ts"))).toBe(2);
  });

  test("in a file that it imports relatively, and in one that this imports", async () => {
    const dir = folder({
      "tool.ts": 'import { a } from "./lib/a.ts"; export default a;',
      "lib/a.ts": 'import { b } from "../b.mjs"; export const a = `a${b}`;',
      "b.mjs": "export const b = 1;",
    });
    expect(await value(dir.file("tool.ts"))).toBe("a1");
    dir.write("b.mjs", "export const b = 2;");
    expect(await value(dir.file("tool.ts"))).toBe("a2");
    dir.write("lib/a.ts", 'import { b } from "../b.mjs"; export const a = `A${b}`;');
    expect(await value(dir.file("tool.ts"))).toBe("A2");
  });

  test("in a file of a circle of imports", async () => {
    const dir = folder({
      "tool.mjs": 'import { other } from "./other.mjs"; export const own = 1; export default () => other();',
      "other.mjs": 'import { own } from "./tool.mjs"; export const other = () => `other ${own}`;',
    });
    const run = async (): Promise<unknown> => ((await value(dir.file("tool.mjs"))) as () => unknown)();
    expect(await run()).toBe("other 1");
    dir.write(
      "tool.mjs",
      'import { other } from "./other.mjs"; export const own = 2; export default () => other();',
    );
    expect(await run()).toBe("other 2");
  });

  test("in a JSON file that it imports", async () => {
    const dir = folder({
      "tool.js": 'import data from "./data.json" with { type: "json" }; export default data.n;',
      "data.json": '{"n": 1}',
    });
    expect(await value(dir.file("tool.js"))).toBe(1);
    dir.write("data.json", '{"n": 2}');
    expect(await value(dir.file("tool.js"))).toBe(2);
  });

  test("in a file imported by a computed name at call time", async () => {
    const dir = folder({
      "tool.ts": "export default async (name: string) => (await import(`./${name}.ts`)).default;",
      "plugin.ts": "export default 'one';",
    });
    const run = (await value(dir.file("tool.ts"))) as (name: string) => Promise<string>;
    expect(await run("plugin")).toBe("one");
    dir.write("plugin.ts", "export default 'two';");
    expect(await run("plugin")).toBe("two");
  });

  test("of the same size, within the same tick of the clock, and with the time set back", async () => {
    const dir = folder();
    const path = dir.write("tool.mjs", "export default 0;");
    const { atime, mtime } = statSync(path);
    for (let edit = 0; edit < 10; edit++) {
      dir.write("tool.mjs", `export default ${edit};`);
      utimesSync(path, atime, mtime);
      expect(await value(path)).toBe(edit);
    }
  });

  test("by an editor that replaces the file", async () => {
    const dir = folder({ "tool.mjs": "export default 1;" });
    expect(await value(dir.file("tool.mjs"))).toBe(1);
    dir.write("tool.mjs.swp", "export default 2;");
    renameSync(dir.file("tool.mjs.swp"), dir.file("tool.mjs"));
    expect(await value(dir.file("tool.mjs"))).toBe(2);
  });

  test("by a symbolic link that is swapped, as for mounted configuration", async () => {
    const dir = folder({ "v1/tool.mjs": "export default 1;", "v2/tool.mjs": "export default 2;" });
    symlinkSync("v1", dir.file("current"));
    expect(await value(dir.file("current/tool.mjs"))).toBe(1);
    symlinkSync("v2", dir.file("next"));
    renameSync(dir.file("next"), dir.file("current"));
    expect(await value(dir.file("current/tool.mjs"))).toBe(2);
  });
});

describe("what has not changed is not evaluated again", () => {
  test("an unedited module keeps its state from load to load", async () => {
    const dir = folder({ "tool.mjs": "let n = 0; export const next = () => ++n;" });
    const next = async (): Promise<number> =>
      ((await loadModule(dir.file("tool.mjs"))).next as () => number)();
    expect([await next(), await next(), await next()]).toEqual([1, 2, 3]);
  });

  test("a file that two modules share is one instance, also after one of them is edited", async () => {
    const dir = folder({
      "shared.mjs": "export const box = { id: {} };",
      "a.mjs": 'export { box } from "./shared.mjs";',
      "b.mjs": 'export { box } from "./shared.mjs";',
    });
    const { box } = await loadModule(dir.file("a.mjs"));
    expect((await loadModule(dir.file("b.mjs"))).box).toBe(box);
    dir.write("b.mjs", 'export { box } from "./shared.mjs"; export const edited = true;');
    const edited = await loadModule(dir.file("b.mjs"));
    expect(edited.edited).toBe(true);
    expect(edited.box).toBe(box);
  });

  test("loads at the same time evaluate the module once", async () => {
    const dir = folder({ "tool.mjs": "await null; export default {};" });
    const [a, b] = await Promise.all([value(dir.file("tool.mjs")), value(dir.file("tool.mjs"))]);
    expect(a).toBe(b);
  });
});

describe("a broken edit", () => {
  test("keeps the last good version, is logged once, and the mend takes effect", async () => {
    const { log, lines } = collectingLog();
    const dir = folder({ "tool.ts": "export default 1;" });
    const path = dir.file("tool.ts");
    const load = async (): Promise<unknown> => (await loadModule(path, { log })).default;
    expect(await load()).toBe(1);
    dir.write("tool.ts", "export default = ;");
    expect([await load(), await load(), await load()]).toEqual([1, 1, 1]);
    expect(lines).toHaveLength(1);
    expect(lines[0]?.level).toBe("error");
    expect(lines[0]?.message).toMatch(
      /^The module tool\.ts could not be loaded: SyntaxError: .*; its last good version stays in use until the next edit$/s,
    );
    dir.write("tool.ts", "export default 2;");
    expect(await load()).toBe(2);
  });

  test("in an imported file keeps the last good version of the whole", async () => {
    const dir = folder({
      "tool.mjs": 'import { a } from "./a.mjs"; export default a;',
      "a.mjs": "export const a = 1;",
    });
    expect(await value(dir.file("tool.mjs"))).toBe(1);
    dir.write("a.mjs", "throw new Error('broken');");
    expect(await value(dir.file("tool.mjs"))).toBe(1);
    rmSync(dir.file("a.mjs"));
    expect(await value(dir.file("tool.mjs"))).toBe(1);
    dir.write("a.mjs", "export const a = 3;");
    expect(await value(dir.file("tool.mjs"))).toBe(3);
  });

  test("whose top level never finishes keeps the last good version", async () => {
    const { log, lines } = collectingLog();
    const dir = folder({ "tool.mjs": "export default 1;" });
    const path = dir.file("tool.mjs");
    expect(await value(path)).toBe(1);
    dir.write("tool.mjs", "await new Promise(() => {}); export default 2;");
    expect((await loadModule(path, { log, limitSeconds: 0.05 })).default).toBe(1);
    expect(lines[0]?.message).toContain("did not finish within 0.05 s");
  });

  test("that is undone brings the earlier version back", async () => {
    const dir = folder({ "tool.mjs": "export default 1;" });
    for (const [text, expected] of [
      ["export default 1;", 1],
      ["export default", 1],
      ["export default 1;", 1],
      ["export default 2;", 2],
      ["export default 1;", 1],
    ] as const) {
      dir.write("tool.mjs", text);
      expect(await value(dir.file("tool.mjs"))).toBe(expected);
    }
  });
});

describe("a module that never loaded", () => {
  test("fails with the file's name, the reason and the line, without the path", async () => {
    const dir = folder({ "tool.ts": "export const a = 1;\nexport const b: number = ;\n" });
    const error = await loadModule(dir.file("tool.ts")).catch((thrown: unknown) => thrown as Error);
    expect(error).toMatchObject({ name: "RuntimeHostError" });
    expect((error as Error).message).toMatch(
      /^The module tool\.ts could not be loaded: SyntaxError: Expression expected \(tool\.ts:2\)$/,
    );
  });

  test("names no line of the runtime's own code", async () => {
    const dir = folder({ "tool.mjs": "await new Promise(() => {});" });
    await expect(loadModule(dir.file("tool.mjs"), { limitSeconds: 0.05 })).rejects.toThrow(
      /is there an await that never ends\?$/,
    );
  });

  test("loads as soon as it is there", async () => {
    const dir = folder();
    const path = dir.file("late.mjs");
    await expect(loadModule(path)).rejects.toThrow(/^The module late\.mjs could not be loaded: .*ENOENT/);
    dir.write("late.mjs", "export default 1;");
    expect(await value(path)).toBe(1);
  });

  test("loads as soon as a package that it imports is installed, without an edit", async () => {
    const dir = folder({ "tool.mjs": 'import x from "late-package"; export default x;' });
    await expect(loadModule(dir.file("tool.mjs"))).rejects.toThrow(/Cannot find package 'late-package'/);
    dir.write("node_modules/late-package/package.json", '{"type": "module", "exports": "./index.js"}');
    dir.write("node_modules/late-package/index.js", "export default 7;");
    expect(await value(dir.file("tool.mjs"))).toBe(7);
  });

  test.each(["tool.cjs", "tool.cts"])("%s is refused with the reason", async (name) => {
    const dir = folder({ [name]: "module.exports = {};" });
    await expect(loadModule(dir.file(name))).rejects.toThrow(
      `${name} is a CommonJS module, which cannot be reloaded`,
    );
  });

  test("an imported .cjs file is refused with the reason", async () => {
    const dir = folder({
      "tool.mjs": 'import old from "./old.cjs"; export default old;',
      "old.cjs": "module.exports = 1;",
    });
    await expect(loadModule(dir.file("tool.mjs"))).rejects.toThrow("old.cjs is a CommonJS module");
  });
});

describe("the hooks", () => {
  test("give the runtime itself for onex-runtime, from a folder without packages", async () => {
    const dir = folder({
      "tool.ts":
        'import { content } from "onex-runtime"; export default content([{ type: "text", text: "x" }]);',
    });
    expect(await value(dir.file("tool.ts"))).toMatchObject({ blocks: [{ type: "text", text: "x" }] });
  });

  test("treat .js without a package.json, or below a CommonJS one, as an ES module", async () => {
    const dir = folder({ "package.json": '{"type": "commonjs"}', "tool.js": "export default 1;" });
    expect(await value(dir.file("tool.js"))).toBe(1);
  });

  test("leave a module alone that is imported in any other way", async () => {
    const dir = folder({
      "tool.mjs": 'import "./a.mjs"; export default import.meta.url;',
      "a.mjs": "export default import.meta.url;",
    });
    expect(await value(dir.file("tool.mjs"))).toMatch(/tool\.mjs\?v=[0-9a-f]{16}$/);
    const plain = pathToFileURL(dir.file("a.mjs")).href;
    const other = (await import(`data:text/javascript,export { default } from ${JSON.stringify(plain)}`)) as {
      readonly default: string;
    };
    expect(other.default).toBe(plain);
  });

  test("take a text that only looks like an import for what it is", async () => {
    const dir = folder({ "tool.mjs": '// as from "./a%2Fb.mjs"\nexport default 1;' });
    expect(await value(dir.file("tool.mjs"))).toBe(1);
  });

  test("import relations are found behind comments, over lines and in re-exports", async () => {
    const dir = folder({
      "tool.ts": `import /* one */ { a } // two
        from /* three * / */ // four
        "./a.ts";
        export * from './b.ts';
        const c = await import( /* five */ "./c.ts");
        export default () => [a, c.c];`,
      "a.ts": "export const a = 1;",
      "b.ts": "export const b = 1;",
      "c.ts": "export const c = 1;",
    });
    const read = async (): Promise<unknown> => {
      const exports = await loadModule(dir.file("tool.ts"));
      return [...(exports.default as () => unknown[])(), exports.b];
    };
    expect(await read()).toEqual([1, 1, 1]);
    dir.write("a.ts", "export const a = 2;");
    expect(await read()).toEqual([2, 1, 1]);
    dir.write("b.ts", "export const b = 2;");
    expect(await read()).toEqual([2, 1, 2]);
    dir.write("c.ts", "export const c = 2;");
    expect(await read()).toEqual([2, 2, 2]);
  });
});

test("a thousand edits of a module and of the file it imports grow the process by less than 50 MB", async () => {
  const dir = folder();
  const script = `
    import { writeFileSync } from "node:fs";
    import { loadModule } from ${JSON.stringify(fileURLToPath(new URL("../../src/execution/modules.ts", import.meta.url)))};
    const edit = async (n) => {
      writeFileSync(${JSON.stringify(dir.file("helper.ts"))}, \`export const add = (a: number): number => a + \${n};\`);
      writeFileSync(${JSON.stringify(dir.file("tool.ts"))}, \`import { add } from "./helper.ts";
        export default (input: { a: number }): object => ({ sum: add(input.a), edit: \${n} });\`);
      const { default: run } = await loadModule(${JSON.stringify(dir.file("tool.ts"))});
      const { sum, edit } = run({ a: 1 });
      if (sum !== n + 1 || edit !== n) throw new Error("stale at " + n);
    };
    for (let n = 0; n < 50; n++) await edit(n);
    gc();
    const before = process.memoryUsage.rss();
    for (let n = 50; n < 1050; n++) await edit(n);
    gc();
    console.log((process.memoryUsage.rss() - before) / 1e6);`;
  const { stdout } = await promisify(execFile)(process.execPath, [
    "--expose-gc",
    "--input-type=module",
    "--eval",
    script,
  ]);
  expect(Number(stdout)).toBeLessThan(50);
});
