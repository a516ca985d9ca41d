import { execFile, spawnSync } from "node:child_process";
import { readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Script } from "node:vm";
import { expect, test } from "vitest";
import { folder, launcher, root, start } from "./cli.ts";

/** Runs a launcher as if Node had this version. */
async function underVersion(
  file: string,
  version: string,
): Promise<{ code: number | null; stderr: string; stdout: string }> {
  const fake = join(await folder(), "fake.cjs");
  await writeFile(
    fake,
    `Object.defineProperty(process, "versions", { value: { ...process.versions, node: ${JSON.stringify(version)} } });`,
  );
  const { status, stderr, stdout } = spawnSync(process.execPath, ["--require", fake, file], {
    encoding: "utf8",
  });
  return { code: status, stderr, stdout };
}

test.each(["4.9.1", "12.22.0", "20.20.0", "23.11.1"])(
  "on Node %s the launcher prints one line with the remedy and ends with 1",
  async (version) => {
    const { code, stderr, stdout } = await underVersion(launcher, version);
    expect(stderr).toBe(
      `onex-runtime needs Node 24 or newer, and this is Node ${version}. Install it from https://nodejs.org, or run: npx -p node@24 onex\n`,
    );
    expect([code, stdout]).toEqual([1, ""]);
  },
);

test("before the tests an old Node is told about install scripts; a new one is told nothing", async () => {
  const check = join(root, "bin/require-node.js");
  const old = await underVersion(check, "20.20.0");
  expect(old.code).toBe(1);
  expect(old.stderr).toMatch(/^This needs Node 24 .* were install scripts off\?.*\n$/);
  expect(await underVersion(check, process.versions.node)).toEqual({ code: 0, stderr: "", stdout: "" });
});

test.each(["bin/onex.js", "bin/require-node.js"])(
  "%s is a script for the oldest parser: no module, no ES2015",
  async (file) => {
    const text = (await readFile(join(root, file), "utf8")).replace(/^#!.*/, "");
    // A script, so neither `import` nor `export` nor `import.meta`.
    expect(() => new Script(text)).not.toThrow();
    const code = text.replaceAll(/\/\*[^]*?\*\/|\/\/.*|"(?:[^"\\]|\\.)*"/g, "");
    expect(code).not.toMatch(/\b(const|let|class|async|await|require)\b|=>|`|\?\.|\?\?|\.\.\./);
  },
);

test("the launcher works through a link, as npm installs it", async () => {
  const cwd = await folder();
  const link = join(cwd, "onex");
  await symlink(launcher, link);
  const { stdout } = await promisify(execFile)(process.execPath, [link, "--version"]);
  expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test("the launcher ends with the command's exit code", async () => {
  const { code } = await start(await folder(), ["nope"]).ended;
  expect(code).toBe(2);
});
