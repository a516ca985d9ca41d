/** The benchmark of discovery works, and would notice what was not told, or twice. What it measures is not tested. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { Ear, measureChanges, percentile } from "../../bench/changes.ts";
import { faultsOf, propagationTable, standingTable, type Cost, type Pair } from "../../bench/report.ts";
import { describeWithOwnServices } from "../services/index.ts";
import { root } from "../support/runtime.ts";

const run = promisify(execFile);
const program = join(root, "bench/discovery.ts");

const cellsOf = (row: string): string[] =>
  row
    .split("|")
    .slice(1, -1)
    .map((cell) => cell.trim());

describeWithOwnServices("the benchmark of discovery", () => {
  it("prints both tables for a few services and for all, and every change was told exactly once", async () => {
    const sizes = ["--services", "20", "--ids", "30", "--events", "120"];
    const effort = ["--changes", "2", "--idle-seconds", "0.1"];
    const { stdout } = await run(process.execPath, [program, ...sizes, ...effort]);
    const rows = stdout.split("\n").filter((line) => line.startsWith("| "));
    const loads = ["10 services, 20 events", "20 services, 120 events"];
    const standing = rows
      .map(cellsOf)
      .filter(([, subject]) => subject === "runtime" || subject === "watcher");
    expect(standing.map(([load, subject, , tools]) => [load, subject, tools])).toEqual(
      loads.flatMap((load, at) => ["runtime", "watcher"].map((subject) => [load, subject, ["10", "30"][at]])),
    );
    const changes = rows.map(cellsOf).filter(([change]) => change === "Consul" || change === "Kafka");
    expect(changes.map(([change, load, from]) => [change, load, from])).toEqual([
      ...loads.flatMap((load) => [
        ["Consul", load, "PUT sent"],
        ["Consul", load, "PUT answered"],
      ]),
      ...loads.flatMap((load) => [
        ["Kafka", load, "send called"],
        ["Kafka", load, "send acknowledged"],
      ]),
    ]);
    for (const row of changes) expect(row[6]).toBe("2 of 2");
    expect(stdout).toContain("faults: 0");
  }, 180_000);
});

it("the benchmark of discovery refuses an option that is out of its range", async () => {
  await expect(run(process.execPath, [program, "--services", "0"])).rejects.toMatchObject({
    code: 2,
    stderr: "--services 0: expected a number from 10 to 50000\n",
  });
});

it("a change is measured from its sending and from its answer until it is told", async () => {
  const ear = new Ear();
  const series = await measureChanges(2, ear, async (change) => {
    // One is told before the answer, the other after it.
    if (change === 0) ear.hear();
    else setTimeout(ear.hear, 20);
    await new Promise((resolve) => setTimeout(resolve, 5));
  });
  expect(series).toMatchObject({ changes: 2, heard: 2 });
  const [[sentFirst = 0, sentSecond = 0], [first = 0, second = 0]] = [series.fromSending, series.fromAnswer];
  expect(first).toBeLessThan(0);
  expect(second).toBeGreaterThan(0);
  expect(sentFirst).toBeGreaterThan(first);
  expect(sentSecond).toBeGreaterThan(second);
});

it("percentiles are values that were measured", () => {
  const values = Array.from({ length: 200 }, (_, at) => 200 - at);
  expect([0, 0.5, 0.99, 1].map((share) => percentile(values, share))).toEqual([1, 100, 198, 200]);
});

const cost = (heard: number): Cost => ({
  changes: 2,
  heard,
  fromSending: [4, 6],
  fromAnswer: [-1, 3],
  cpuMs: 1.5,
});
const pairOf = (heard: number, tools: number): Pair => {
  const usage = { cpu: 2e6, rss: 100e6 };
  const standing = {
    readyMs: 1500,
    tools,
    ready: usage,
    idle: usage,
    idleCpuPercent: 1,
    maxSockets: undefined,
  };
  const told = { standing, consul: cost(heard), kafka: cost(2) };
  return { load: { services: 3, ids: 5, events: 9 }, runtime: told, watcher: told };
};

it.each<[string, number, number, string[]]>([
  ["nothing is wrong", 2, 5, []],
  ["a change was not told", 1, 5, ["3 services, 9 events: 2 changes in consul were told by 1 notifications"]],
  ["one was told twice", 3, 5, ["3 services, 9 events: 2 changes in consul were told by 3 notifications"]],
  ["a tool is missing", 2, 4, ["3 services, 9 events: 4 tools were served when ready, not 5"]],
])("the report of discovery says where %s", (_, heard, tools, expected) => {
  expect(faultsOf(pairOf(heard, tools))).toEqual(expected);
});

it("the tables of discovery have a row for each process, and for each beginning of a change", () => {
  const [, , standing] = standingTable([pairOf(2, 5)]).split("\n");
  expect(cellsOf(standing ?? "")).toEqual([
    ...["3 services, 9 events", "runtime", "1.50", "5", "2.00", "100", "100", "1.0", "-"],
  ]);
  const [, , sent, answered] = propagationTable([pairOf(2, 5)]).split("\n");
  const figures = ["2 of 2", "1.5"];
  expect(cellsOf(sent ?? "")).toEqual([
    ...["Consul", "3 services, 9 events", "PUT sent", "4.0", "4.0", "6.0", ...figures],
    ...["4.0", "4.0", "6.0", "1.5", "1.00"],
  ]);
  expect(cellsOf(answered ?? "")).toEqual([
    ...["Consul", "3 services, 9 events", "PUT answered", "-1.0", "-1.0", "3.0", ...figures],
    ...["-1.0", "-1.0", "3.0", "1.5", ""],
  ]);
});
