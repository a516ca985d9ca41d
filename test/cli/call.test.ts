import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { open } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { argumentsOf } from "../../src/cli/arguments.ts";
import { folder, launcher, run, start } from "./cli.ts";

const config = `
handlers:
  mcp: {consul_host: x, consul_port: 1, kafka_enabled: false, dev_mode: true, contracts_dir: contracts}
`;
const contract = (name: string, rest = ""): string => `
name: ${name}
node_type: ORCHESTRATOR
description: The tool ${name}. It does things.
mcp:
  expose: true
  execution: {kind: local, module: ./tool.mjs}
${rest}`;

const tools = (module: string, rest?: string): Record<string, string> => ({
  "contracts/runtime/runtime_config.yaml": config,
  "contracts/nodes/a/contract.yaml": contract("echo", rest),
  "contracts/nodes/a/tool.mjs": module,
});

test("a value is read as the type that the schema gives its key", async () => {
  const cwd = await folder(
    tools(
      "export default (input) => ({ input });",
      `  input_schema:
    type: object
    properties:
      n: {type: integer}
      s: {type: string}
      b: {type: boolean}
      list: {type: array}
      object: {type: object}
      either: {type: [string, "null"]}
      choice: {enum: [1, 2]}
`,
    ),
  );
  const { code, stdout } = await run(cwd, [
    ...[
      "call",
      "echo",
      "n=7",
      "s=7",
      "b=true",
      "list=[1]",
      'object={"a":1}',
      "either=null",
      "choice=2",
      "free=1",
      'quoted="q"',
      "text=a=b",
    ],
    ...["--args", '{"n": 1, "kept": true}'],
  ]);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual({
    input: {
      ...{
        n: 7,
        s: "7",
        b: true,
        list: [1],
        object: { a: 1 },
        either: null,
        choice: 2,
        free: 1,
        quoted: '"q"',
        text: "a=b",
        kept: true,
      },
    },
  });
});

test("any key is an argument like any other", () => {
  const args = argumentsOf('{"a": 1}', ["__proto__=2", "constructor=3"], { type: "object" });
  expect(Object.entries(args)).toEqual([
    ["a", 1],
    ["__proto__", 2],
    ["constructor", 3],
  ]);
});

test("what a tool prints goes to stderr, its result alone to stdout", async () => {
  const cwd = await folder(
    tools(
      'export default (input, { log }) => { console.log("noise"); process.stdout.write("more\\n"); log("info", "note"); return "done"; };',
    ),
  );
  expect(await run(cwd, ["call", "echo"])).toEqual({
    code: 0,
    stdout: "done\n",
    stderr: "noise\nmore\ninfo: note\n",
  });
});

test("a tool's own error is its result and ends with 1", async () => {
  const cwd = await folder(tools('export default () => { throw new Error("no such thing"); };'));
  const { code, stdout } = await run(cwd, ["call", "echo"]);
  expect(code).toBe(1);
  expect(stdout).toContain("no such thing");
});

test("process.exit in a tool is that tool's error, not the end of the command", async () => {
  const cwd = await folder(tools("export default () => process.exit(0);"));
  const { code, stdout } = await run(cwd, ["call", "echo"]);
  expect([code, stdout]).toEqual([
    1,
    "process.exit(0) was called: what runs in this process may throw, but not end it\n",
  ]);
});

test("a promise that a tool leaves rejected is logged; an exception that nobody catches ends the call with 1", async () => {
  const leave = (what: string): string =>
    `export default () => new Promise((resolve) => { setImmediate(() => { setTimeout(resolve, 20, "done"); ${what} }); });`;
  const rejects = await folder(tools(leave('Promise.reject(new Error("left behind"));')));
  const one = await run(rejects, ["call", "echo"]);
  expect([one.code, one.stdout]).toEqual([0, "done\n"]);
  expect(one.stderr).toContain("left behind");
  const throws = await folder(tools(leave('throw new Error("nobody caught");')));
  const other = await run(throws, ["call", "echo"]);
  expect([other.code, other.stdout]).toEqual([1, ""]);
  expect(other.stderr).toContain("nobody caught");
});

test("--json prints the whole result", async () => {
  const cwd = await folder(tools('export default () => "done";'));
  const { stdout } = await run(cwd, ["call", "echo", "--json"]);
  expect(JSON.parse(stdout)).toEqual({ content: [{ type: "text", text: "done" }], isError: false });
});

test.each([
  [["call", "ecko"], 1, "onex: There is no tool ecko. Did you mean echo?\n"],
  [
    ["call", "something-else"],
    1,
    "onex: There is no tool something-else. `onex tools` lists what there is.\n",
  ],
  [["call", "echo", "n"], 2, 'onex: "n" is not key=value\n'],
  [["call", "echo", "--args", "[]"], 2, "onex: --args must be a JSON object, got []\n"],
])("onex %j ends with %i", async (args, code, stderr) => {
  const cwd = await folder(tools('export default () => "done";'));
  expect(await run(cwd, args)).toEqual({ code, stdout: "", stderr });
});

test("bad arguments are refused before the tool runs, and named", async () => {
  const cwd = await folder(
    tools(
      'export default () => "done";',
      "  input_schema: {type: object, properties: {n: {type: integer}}, required: [n]}\n",
    ),
  );
  const { code, stdout, stderr } = await run(cwd, ["call", "echo", "n=abc"]);
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr).toMatch(/^onex: .*\bn\b/);
});

test("SIGINT cancels the call, which its function sees, and ends with 130", async () => {
  const cwd = await folder(
    tools(`export default (input, { signal, progress }) => new Promise((resolve, reject) => {
      const timer = setInterval(() => {}, 1000);
      signal.addEventListener("abort", () => { console.error("saw it"); clearInterval(timer); reject(signal.reason); });
      progress(1, 2, "started");
    });`),
  );
  const running = start(cwd, ["call", "echo"]);
  await running.printed("stderr", /1\/2 started/);
  running.child.kill("SIGINT");
  const { code, stderr } = await running.ended;
  expect(stderr).toContain("saw it");
  expect(code).toBe(130);
});

test("onex tools lists name and first sentence; what is not served goes to stderr", async () => {
  const cwd = await folder({
    ...tools("export default () => 1;"),
    "contracts/nodes/b/contract.yaml": contract("secret", "  tags: [internal]\n"),
    "contracts/nodes/b/tool.mjs": "export default () => 1;",
  });
  expect(await run(cwd, ["tools"])).toEqual({
    code: 0,
    stdout: "echo  The tool echo.\n",
    stderr: 'not served: secret of nodes/b/contract.yaml: the tag "internal" is in excluded_tags\n',
  });
  const { stdout } = await run(cwd, ["tools", "--json"]);
  const listed = JSON.parse(stdout) as object;
  expect(Object.keys(listed)).toEqual(["tools"]);
  expect(listed).toMatchObject({ tools: [{ name: "echo", inputSchema: { type: "object" } }] });
});

test("a reader that goes away ends the command quietly", async () => {
  const cwd = await folder(tools('export default () => "x".repeat(1_000_000);'));
  const running = start(cwd, ["call", "echo"]);
  running.child.stdout?.destroy();
  const { code, stderr } = await running.ended;
  expect([code, stderr]).toEqual([0, ""]);
});

test.runIf(existsSync("/dev/full"))("a result that cannot be written ends with 1 and one line", async () => {
  const cwd = await folder(tools('export default () => "done";'));
  await using full = await open("/dev/full", "w");
  const child = spawn(process.execPath, [launcher, "call", "echo"], {
    cwd,
    stdio: ["ignore", full.fd, "pipe"],
  });
  const [stderr, [code]] = await Promise.all([text(child.stderr!), once(child, "close")]);
  expect([code, stderr]).toEqual([
    1,
    "onex: stdout cannot be written: ENOSPC: no space left on device, write\n",
  ]);
});

test("messages that nobody reads do not end the command", async () => {
  const cwd = await folder(
    tools(
      'export default (input, { progress }) => { for (let n = 0; n < 9; n++) progress(n); return "done"; };',
    ),
  );
  const running = start(cwd, ["call", "echo"]);
  running.child.stderr?.destroy();
  const { code, stdout } = await running.ended;
  expect([code, stdout]).toEqual([0, "done\n"]);
});
