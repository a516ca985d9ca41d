/**
 * What a call costs: tools/call and tools/list through the runtime, against a hand-written proxy in the same run.
 *
 *   npm run bench -- [--seconds 3] [--rounds 3] [--connections 64] [--list-connections 16] [--tools 10,1000]
 *
 * Every row alternates baseline and runtime, and shows medians. Ends with 1 where any answer was wrong.
 */
import { readFile } from "node:fs/promises";
import { cpus, loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Instruction } from "./baseline.ts";
import { Connection } from "./connection.ts";
import { doors, firstId, initialize, initialized, requests, type Door, type Question } from "./doors.ts";
import type { Job, Outcome } from "./load.ts";
import { Child, placement } from "./processes.ts";
import { startRuntime, type Runtime } from "./runtime.ts";
import { table, type Figures, type Row } from "./table.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "3" },
    connections: { type: "string", default: "64" },
    "list-connections": { type: "string", default: "16" },
    tools: { type: "string", default: "10,1000" },
  },
});
const number = (name: string, text: string, least: number, most: number): number => {
  const value = Number(text);
  if (value >= least && value <= most) return value;
  console.error(`--${name} ${text}: expected a number from ${least} to ${most}`);
  process.exit(2);
};
const seconds = number("seconds", values.seconds, 0.05, 600);
const rounds = number("rounds", values.rounds, 1, 100);
const connections = number("connections", values.connections, 1, 500);
const listConnections = number("list-connections", values["list-connections"], 1, 500);
const toolCounts = values.tools.split(",").map((count) => number("tools", count, 2, 1000));

const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
let wrongAnswers = 0;

/** Runs a job against one gateway, and takes the gateway's CPU time on both sides of the calls that are counted. */
async function round(load: Child, gateway: Child, job: Job): Promise<Figures> {
  await load.ask(job);
  const before = (await gateway.usage()).cpu;
  const outcome = await load.ask<Outcome>("go");
  const cpu = (await gateway.usage()).cpu - before;
  wrongAnswers += outcome.wrong;
  if (outcome.firstWrong !== undefined)
    console.error(`${outcome.wrong} wrong answers from ${job.url}, the first:\n${outcome.firstWrong}\n`);
  return {
    perSecond: outcome.calls / outcome.seconds,
    cpuPerCall: cpu / outcome.calls,
    p50Ms: outcome.p50Ms,
    p99Ms: outcome.p99Ms,
  };
}

/** The result of a list as the runtime gives it, which the baseline then serves. */
async function listOf(url: URL, door: Door): Promise<string> {
  const connection = await Connection.open(url);
  let session: string | undefined;
  if (door === "2025-11-25 session") {
    session = /\r\nmcp-session-id: (\S+)/i.exec((await connection.exchange(initialize(url))).head)?.[1] ?? "";
    await connection.exchange(initialized(url, session));
  }
  const { body } = await connection.exchange(requests(url, door, "list", session)(firstId(0)));
  connection.close();
  return JSON.stringify(JSON.parse(body.toString()).result);
}

async function main(): Promise<void> {
  const { version } = JSON.parse(await readFile(file("../package.json"), "utf8")) as { version: string };
  console.log(`onex-runtime ${version}, Node ${process.versions.node}, ${process.platform}`);
  console.log(`${cpus().length} x ${cpus()[0]?.model.trim() ?? "CPU"}, ${placement}`);
  console.log(`${rounds} rounds of ${seconds} s, ${connections} connections (lists ${listConnections})`);
  console.log(`load of the machine before the run: ${loadavg()[0]?.toFixed(2)}\n`);

  await using service = new Child("others", [file("backend.ts")]);
  const address = `http://127.0.0.1:${(await service.next<{ port: number }>()).port}`;
  await using load = new Child("others", [file("load.ts")]);
  await using baseline = new Child("gateway", [file("baseline.ts")]);
  const { port } = await baseline.ask<{ port: number }>({ service: address } satisfies Instruction);
  const baselineUrl = `http://127.0.0.1:${port}/mcp`;

  const rows: Row[] = [];
  const measure = async (name: string, runtime: Runtime, door: Door, question: Question, tools: number) => {
    const job = {
      door,
      question,
      tools,
      connections: question === "list" ? listConnections : connections,
      warmUpSeconds: seconds / 4,
      seconds,
    };
    if (question === "list")
      await baseline.ask({ list: await listOf(new URL(runtime.url), door) } satisfies Instruction);
    const row = { name, runtime: [] as Figures[], baseline: [] as Figures[] };
    for (let index = 0; index < rounds; index++) {
      row.baseline.push(await round(load, baseline, { ...job, url: baselineUrl }));
      row.runtime.push(await round(load, runtime.child, { ...job, url: runtime.url }));
    }
    rows.push(row);
    console.error(`  ${name}`);
  };

  for (const [index, tools] of toolCounts.entries()) {
    await using runtime = await startRuntime(address, tools);
    if (index === 0) {
      for (const kind of ["rest", "onex"])
        for (const door of doors)
          await measure(`tools/call ${kind}, ${door}`, runtime, door, { tool: `echo_${kind}` }, tools);
    }
    for (const door of doors) await measure(`tools/list ${tools}, ${door}`, runtime, door, "list", tools);
  }
  console.log(table(rows));
  console.log(`\nwrong answers: ${wrongAnswers}`);
  process.exitCode = wrongAnswers === 0 ? 0 : 1;
}

await main();
