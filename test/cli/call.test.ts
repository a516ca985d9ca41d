import { expect, test } from "vitest";
import { folder, run, start } from "./cli.ts";

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
  expect(JSON.parse(stdout)).toMatchObject({ tools: [{ name: "echo", inputSchema: { type: "object" } }] });
});

test("a reader that goes away ends the command quietly", async () => {
  const cwd = await folder(tools('export default () => "x".repeat(1_000_000);'));
  const running = start(cwd, ["call", "echo"]);
  running.child.stdout?.destroy();
  const { code, stderr } = await running.ended;
  expect([code, stderr]).toEqual([0, ""]);
});
