/** The packed tarball, installed in an empty folder as a user installs it. Needs what `npm ci` needs: the registry. */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { root } from "../support/runtime.ts";

const run = promisify(execFile);
/** The last Node that is too old and has type stripping nowhere near. */
const oldNode = `node-${process.platform}-${process.arch}@20`;

let folder: string;
let onex: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "onex-package-"));
  await run("npm", ["pack", "--pack-destination", folder], { cwd: root });
  const tarball = (await readdir(folder)).find((file) => file.endsWith(".tgz"))!;
  await writeFile(join(folder, "package.json"), '{ "private": true }');
  await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", `./${tarball}`], {
    cwd: folder,
  });
  onex = join(folder, "node_modules/.bin/onex");
}, 300_000);

afterAll(() => rm(folder, { recursive: true, force: true }));

const inFolder = async (command: string, args: readonly string[]): Promise<string> => {
  const { stdout } = await run(command, args, { cwd: folder });
  return stdout;
};

it("the packed package installs in an empty folder and runs on Node 24", async () => {
  expect((await inFolder(onex, ["--version"])).trim()).toMatch(/^\d+\.\d+\.\d+$/);
});

it("from the package, init writes a tool that call calls at once", async () => {
  await inFolder(onex, ["init", "my-tool"]);
  const greeted = JSON.parse(await inFolder(onex, ["call", "my-tool", "name=Ada"]));
  expect(greeted).toEqual({ greetings: ["Hello, Ada!"] });
  expect(await inFolder(onex, ["check"])).toContain("nodes/my-tool/contract.yaml");
});

it("from the package, the public API can be imported", async () => {
  const program =
    'import { HandlerMCP, defineTool } from "onex-runtime"; console.log(typeof HandlerMCP, typeof defineTool);';
  expect(await inFolder(process.execPath, ["--input-type=module", "-e", program])).toBe(
    "function function\n",
  );
});

it("on Node 20 the package's command says what to do and ends with 1", async () => {
  const place = await mkdtemp(join(tmpdir(), "onex-old-node-"));
  try {
    await writeFile(join(place, "package.json"), '{ "private": true }');
    await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", oldNode], { cwd: place });
    const old = join(place, "node_modules", oldNode.split("@")[0]!, "bin/node");
    const failure: { code?: unknown; stderr?: string } = await run(old, [onex, "--version"], {
      cwd: folder,
    }).then(
      () => ({}),
      (error: unknown) => error as object,
    );
    expect(failure.code).toBe(1);
    expect(failure.stderr?.trim().split("\n")).toHaveLength(1);
    expect(failure.stderr).toMatch(/needs Node 24.*is Node 20/);
  } finally {
    await rm(place, { recursive: true });
  }
}, 300_000);
