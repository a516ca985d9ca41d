/** The examples, run as their README says. */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { root, startRuntime } from "../support/runtime.ts";

const folder = join(root, "examples");
const run = promisify(execFile);

/** What the example prints; rejects with its stderr where it fails. */
async function example(name: string, ...args: string[]): Promise<string[]> {
  const options = ["--conditions=onex-source", join(folder, name), ...args];
  const { stdout, stderr } = await run(process.execPath, options, { cwd: root });
  expect(stderr).toBe("");
  return stdout.trimEnd().split("\n");
}

it("client.ts lists the tools of a running runtime, follows a call's progress and meets a refused one", async () => {
  await using runtime = await startRuntime();
  const lines = await example("client.ts", runtime.mcp.href);
  expect(lines[0]).toBe(`Connected to onex-runtime at ${runtime.mcp.href}`);
  expect(lines.slice(1, 6).map((line) => line.trim().split(":")[0])).toEqual([
    "get_order",
    "greet",
    "quote_shipping",
    "text_statistics",
    "wait",
  ]);
  const output = lines.join("\n");
  expect(output).toContain("words: 4");
  expect(lines.filter((line) => line.endsWith("/10 trying progress"))).toHaveLength(10);
  expect(output).toContain("Waited 0.5 s.");
  expect(output).toContain("refused: true");
});

it("client.ts says what to do where no runtime answers", async () => {
  // Nothing listens on port 1 of a machine that is not asked to.
  await expect(example("client.ts", "http://127.0.0.1:1/mcp")).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^Nothing answers at .*\(npm start\).*\n$/),
  });
});

it("embed.ts serves a tool from a program of its own, calls it and stops", async () => {
  expect(await example("embed.ts")).toEqual([
    expect.stringMatching(/^Serving 1 tool at http:\/\/127\.0\.0\.1:\d+\/mcp$/),
    "25 °C is { fahrenheit: 77 }",
    "Tools left: 0",
    "Stopped",
  ]);
});

it("test-a-tool.ts tests a tool without a port", async () => {
  expect(await example("test-a-tool.ts")).toEqual(["3 calls, all as expected"]);
});

it("every example is in the README with its command, and short enough to be read whole", async () => {
  const readme = await readFile(join(folder, "README.md"), "utf8");
  const programs = (await readdir(folder)).filter((file) => /(?<!\.d)\.m?[jt]s$/.test(file));
  expect(programs).toHaveLength(4);
  for (const program of programs) {
    expect(readme, program).toMatch(new RegExp(`^\\| \\[\`${program}\`\\].*\\| \`np[mx] [^|]+ *\\|$`, "m"));
    if (program.endsWith(".mjs")) continue;
    const source = await readFile(join(folder, program), "utf8");
    expect(readme).toContain(
      `npx node ${source.includes('"onex-runtime"') ? "--conditions=onex-source " : ""}examples/${program}`,
    );
    expect(source.split("\n").length, program).toBeLessThanOrEqual(61);
  }
});
