/** The smaller benchmarks work, and say where something is wrong. What they measure is not tested. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { Gate } from "../../bench/gate.ts";
import { jsonOf } from "../../bench/event-stream.ts";
import { root } from "../support/runtime.ts";

const run = promisify(execFile);
const bench = (program: string, ...args: string[]): Promise<{ stdout: string }> =>
  run(process.execPath, [join(root, "bench", program), ...args]);

const rowsOf = (stdout: string): string[][] =>
  stdout
    .split("\n")
    .filter((line) => line.startsWith("| ") && !line.startsWith("| -"))
    .slice(1)
    .map((line) =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );

it("the benchmark of memory says what tools and idle sessions hold", async () => {
  const sizes = ["--tools", "20", "--sessions", "12", "--rounds", "1", "--settle-seconds", "0"];
  const rows = rowsOf((await bench("memory.ts", ...sizes)).stdout);
  expect(rows.map(([what]) => what)).toEqual([
    "at rest with 10 tools",
    "each of 20 tools more, never called",
    "each of 12 idle sessions (2025-11-25) with an open stream",
  ]);
  for (const [what, ...figures] of rows)
    for (const figure of figures) expect(figure, what).toMatch(/^-?\d+\.\d+ (MB|kB)$/);
}, 120_000);

it("the benchmark of the start measures the package and the checkout", async () => {
  const rows = rowsOf((await bench("start.ts", "--runs", "1", "--tools", "2")).stdout);
  expect(rows).toHaveLength(7);
  for (const [what, ...figures] of rows)
    for (const figure of figures) expect(Number(figure), what).toBeGreaterThan(0);
}, 120_000);

it("the benchmark of instances finds no failed call where some of them are bad", async () => {
  const sizes = ["--calls", "300", "--rounds", "1", "--connections", "8", "--other-connections", "2"];
  const { stdout } = await bench("instances.ts", ...sizes, "--slow-ms", "300");
  expect(rowsOf(stdout).map(([what]) => what)).toEqual(["five good", "three good, one dead, one slow"]);
  expect(stdout).toContain("failed calls: 0");
}, 120_000);

it("the soak counts what was done and what is held, and ends well where no answer is wrong", async () => {
  const sizes = ["--minutes", "0.1", "--every-seconds", "3", "--quiet-seconds", "6", "--clients", "2"];
  const { stdout } = await bench("soak.ts", ...sizes);
  expect(stdout).toMatch(/minute \d+\.\d: \d+ calls, \d+ lists, .*\n {2}wrong 0; heap/);
  expect(stdout).toContain("faults: 0");
}, 120_000);

it.each([
  ["memory.ts", "--sessions", "5000", "--sessions 5000: expected a number from 1 to 1000\n"],
  ["start.ts", "--runs", "x", "--runs x: expected a number from 1 to 1000\n"],
  ["instances.ts", "--calls", "1", "--calls 1: expected a number from 10 to 10000000\n"],
  ["soak.ts", "--minutes", "0", "--minutes 0: expected a number from 0.01 to 10000\n"],
])("%s refuses %s %s", async (program, name, value, stderr) => {
  await expect(bench(program, name, value)).rejects.toMatchObject({ code: 2, stderr });
});

it("a gate that closes waits for what is under way, and nothing begins until it opens", async () => {
  const gate = new Gate();
  const steps: string[] = [];
  const failures: unknown[] = [];
  let release = Promise.withResolvers<undefined>();
  const working = gate.repeat(
    async () => {
      steps.push("begun");
      await release.promise;
      steps.push("done");
      throw new Error("and wrong");
    },
    (error) => failures.push(error),
  );
  await expect.poll(() => steps).toEqual(["begun"]);
  const closing = gate.close();
  release.resolve(undefined);
  await closing;
  expect(steps).toEqual(["begun", "done"]);
  expect(failures).toHaveLength(1);
  release = Promise.withResolvers<undefined>();
  gate.open();
  await expect.poll(() => steps).toEqual(["begun", "done", "begun"]);
  gate.end();
  release.resolve(undefined);
  await working;
  expect(steps).toHaveLength(4);
});

it("a message is found in a body of JSON and in one of events", () => {
  expect(jsonOf('{"id":1}')).toBe('{"id":1}');
  expect(jsonOf('event: message\ndata: {"n":1}\n\nevent: message\ndata: {"id":1}\n\n')).toBe('{"id":1}');
  expect(jsonOf("nothing")).toBe("nothing");
});
