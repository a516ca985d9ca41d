import { existsSync } from "node:fs";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { folder, run, serve } from "./cli.ts";

test("onex init writes a tool that can be called at once, and the configuration with it", async () => {
  const cwd = await folder();
  const { code, stdout } = await run(cwd, ["init", "my-tool"]);
  expect(code).toBe(0);
  expect(stdout).toBe(
    [
      "Wrote",
      "  contracts/runtime/runtime_config.yaml",
      "  contracts/nodes/my-tool/contract.yaml",
      "  contracts/nodes/my-tool/my-tool.ts",
      "",
      "Try it",
      "  onex call my-tool name=Ada",
      "  onex serve",
      "",
    ].join("\n"),
  );
  const called = await run(cwd, ["call", "my-tool", "name=Ada", "times=2"]);
  expect(called).toEqual({
    code: 0,
    stdout: `${JSON.stringify({ greetings: ["Hello, Ada!", "Hello, Ada!"] }, null, 2)}\n`,
    stderr: "1/2\n2/2\n",
  });
  expect((await run(cwd, ["check"])).code).toBe(0);
});

test("onex init without a name writes the tool hello; npx is named where npx started it", async () => {
  const cwd = await folder();
  const { stdout } = await run(cwd, ["init"], { npm_command: "exec" });
  expect(stdout).toContain("  npx onex call hello name=Ada\n");
});

test("onex init --handler writes a handler that a running host serves", async () => {
  const cwd = await folder();
  const { code, stdout } = await run(cwd, ["init", "--handler", "my-handler"]);
  expect(code).toBe(0);
  expect(stdout).toContain(`onex send my-handler.greet --payload '{"name": "Ada"}'`);
  const { operators } = await serve(cwd);
  const sent = await run(cwd, [
    "send",
    "my-handler.greet",
    "--payload",
    '{"name": "Ada"}',
    "--url",
    operators,
  ]);
  expect(sent).toMatchObject({ code: 0, stderr: "" });
  expect(JSON.parse(sent.stdout)).toMatchObject({ success: true, payload: { greeting: "Hello, Ada!" } });
});

test("onex init changes nothing that exists, and then writes nothing at all", async () => {
  const cwd = await folder({
    "contracts/nodes/taken/taken.ts": "mine",
    "contracts/runtime/runtime_config.yaml": "name: mine",
  });
  const { code, stderr } = await run(cwd, ["init", "taken"]);
  expect([code, stderr]).toEqual([
    1,
    "onex: contracts/nodes/taken/taken.ts is there already; nothing was written. Choose another name.\n",
  ]);
  expect(await readdir(join(cwd, "contracts/nodes/taken"))).toEqual(["taken.ts"]);
  const other = await run(cwd, ["init", "free"]);
  expect(other.code).toBe(0);
  expect(other.stdout).not.toContain("runtime_config.yaml");
  expect(await readFile(join(cwd, "contracts/runtime/runtime_config.yaml"), "utf8")).toBe("name: mine");
});

test("onex init writes into ONEX_CONTRACTS_DIR, also where .env sets it", async () => {
  const cwd = await folder({ ".env": "ONEX_CONTRACTS_DIR=elsewhere\n" });
  expect((await run(cwd, ["init", "my-tool"])).stdout).toContain("  elsewhere/nodes/my-tool/contract.yaml\n");
  expect((await run(cwd, ["call", "my-tool", "name=Ada"])).code).toBe(0);
});

test("what onex init writes names the editor's schema only where the package lies in the folder", async () => {
  const bare = await folder();
  await run(bare, ["init", "my-tool"]);
  for (const file of ["runtime/runtime_config.yaml", "nodes/my-tool/contract.yaml"])
    expect(await readFile(join(bare, "contracts", file), "utf8")).not.toContain("$schema=");
  const installed = await folder({ "node_modules/onex-runtime/schemas/node_contract.schema.json": "{}" });
  await run(installed, ["init", "my-tool"]);
  expect(await readFile(join(installed, "contracts/nodes/my-tool/contract.yaml"), "utf8")).toMatch(
    /^# yaml-language-server: \$schema=\.\.\/\.\.\/\.\.\/node_modules\/onex-runtime\/schemas\/node_contract\.schema\.json\n/,
  );
});

test("what onex init writes works under a name that means something else to YAML", async () => {
  const cwd = await folder();
  await run(cwd, ["init", "true"]);
  await run(cwd, ["init", "--handler", "null"]);
  expect((await run(cwd, ["check"])).code).toBe(0);
  expect((await run(cwd, ["call", "true", "name=Ada"])).code).toBe(0);
});

test("onex init --handler mcp is refused: it would replace the handler that serves the tools", async () => {
  const cwd = await folder();
  expect(await run(cwd, ["init", "--handler", "mcp"])).toEqual({
    code: 2,
    stdout: "",
    stderr: 'onex: "mcp" is the handler that serves the tools: choose another name\n',
  });
  expect(await readdir(cwd)).toEqual([]);
});

test("onex init --handler http is refused: its section of the configuration is the shipped handler's", async () => {
  const cwd = await folder();
  const { code, stderr } = await run(cwd, ["init", "--handler", "http"]);
  expect([code, stderr]).toEqual([
    2,
    'onex: "http" is the handler that sends HTTP requests: choose another name\n',
  ]);
  expect(await readdir(cwd)).toEqual([]);
});

test.runIf(existsSync("/proc/self"))(
  "where no folder can be made onex init ends with 1 and says so",
  async () => {
    const { code, stderr } = await run(await folder(), ["init", "x"], {
      ONEX_CONTRACTS_DIR: "/proc/contracts",
    });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^onex: ENOENT: .* mkdir '\/proc\/contracts'\n$/);
  },
);
