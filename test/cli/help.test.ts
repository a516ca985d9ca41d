import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { folder, root, run } from "./cli.ts";

const commands = [
  "serve",
  "stdio",
  "check",
  "tools",
  "plan",
  "call",
  "send",
  "register",
  "deregister",
  "init",
];

test("every command has a help text", async () => {
  const cwd = await folder();
  const lines = [[], ...commands.map((command) => [command])].map((args) => [...args, "--help"]);
  const outcomes = await Promise.all(lines.map((args) => run(cwd, args)));
  const texts = outcomes.map(({ code, stdout, stderr }, index) => {
    expect([code, stderr]).toEqual([0, ""]);
    return `$ onex ${lines[index]!.join(" ")}\n${stdout}`;
  });
  await expect(texts.join("\n")).toMatchFileSnapshot("help.txt");
});

test("--version prints the package's version", async () => {
  const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
  expect(await run(await folder(), ["--version"])).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
});

test.each([
  [["frobnicate"], "unknown command 'frobnicate'"],
  [["chekc"], "Did you mean check?"],
  [["serve", "--nope"], "unknown option '--nope'"],
  [["--nope"], "unknown option '--nope'"],
  [["serve", "extra"], "too many arguments"],
  [["call"], "missing required argument 'tool'"],
  [["send", "a.b", "--payload", "{"], "--payload is not JSON"],
  [["send", "a.b", "--payload", "[]"], "--payload must be a JSON object"],
  [["send", "a.b", "--url", "nonsense"], '--url "nonsense" is not a URL'],
  [["init", "../escape"], '"../escape" is no name'],
])("a wrong command line ends with 2: onex %j", async (args, message) => {
  const { code, stdout, stderr } = await run(await folder(), args);
  expect(stderr).toContain(message);
  expect([code, stdout]).toEqual([2, ""]);
});

test.each([[[]], [["serve"]], [["stdio"]], [["check"]], [["tools"]], [["call", "x"]]])(
  "in a folder without contracts onex %j names the folder and onex init, and ends with 1",
  async (args) => {
    const cwd = await folder();
    const { code, stdout, stderr } = await run(cwd, args);
    expect(stderr).toBe(
      `onex: There is no contracts directory ${join(cwd, "contracts")}. Run \`onex init\` to make one with a working tool, or name a configuration file with --config.\n`,
    );
    expect([code, stdout]).toEqual([1, ""]);
  },
);

test("a failure is one message, and with debug its stack", async () => {
  const cwd = await folder();
  expect((await run(cwd, ["check"])).stderr).not.toContain("    at ");
  expect((await run(cwd, ["check"], { ONEX_LOG_LEVEL: "debug" })).stderr).toContain("    at ");
});
