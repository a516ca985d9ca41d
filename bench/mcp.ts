/**
 * What a request costs: tools/call and tools/list through the runtime, against what one would write by hand, and a server of
 * the SDK, in the same run.
 *
 *   npm run bench -- [--seconds 3] [--rounds 3] [--connections 64] [--list-connections 16] [--tools 10,1000]
 *                    [--many 10000] [--only calls,lists,catalog]
 *
 * Everything that stands in one row takes turns, round by round, and medians are shown. Ends with 1 where any answer was
 * wrong.
 *
 * 1. Round 0 counts for nothing but wrong answers: a process needs seconds of load until its code is compiled.
 */
import { fileURLToPath } from "node:url";
import type { Instruction } from "./baseline.ts";
import { Connection } from "./connection.ts";
import {
  doors,
  firstId,
  hasSession,
  initialize,
  initialized,
  requests,
  sessionIn,
  type Door,
} from "./doors.ts";
import { printHead } from "./head.ts";
import { readTexts, refuse, toNumber } from "./options.ts";
import { Child, leaveGatewayAlone, placement } from "./processes.ts";
import { Rounds, type Target } from "./round.ts";
import { startRuntime } from "./runtime.ts";
import type { Bytes } from "./static.ts";
import {
  callTable,
  catalogTable,
  doorTable,
  listTable,
  type CallRow,
  type CatalogRow,
  type Figures,
  type ListRow,
} from "./table.ts";

const parts = ["calls", "lists", "catalog"];
const values = readTexts({
  seconds: "3",
  rounds: "3",
  connections: "64",
  "list-connections": "16",
  tools: "10,1000",
  many: "10000",
  only: parts.join(),
});
const number = (name: keyof typeof values, least: number, most: number): number =>
  toNumber(name, values[name], { least, most });
const seconds = number("seconds", 0.05, 600);
const rounds = number("rounds", 1, 100);
const connections = number("connections", 1, 500);
const listConnections = number("list-connections", 1, 500);
const toolCounts = values.tools.split(",").map((count) => toNumber("tools", count, { least: 2, most: 1000 }));
const many = number("many", 2, 90_000);
const wanted = new Set(values.only.split(","));
for (const part of wanted)
  if (!parts.includes(part)) refuse(`--only ${part}: expected some of ${parts.join(", ")}`);

const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const tell = (line: string): void => console.error(`  ${line}`);
const kinds = ["rest", "onex"];
const timing = { warmUpSeconds: seconds / 4, seconds };
/** What the tools that are compared stand in. */
const few = 10;

async function start(program: string, service: string): Promise<Target & AsyncDisposable> {
  const child = new Child("gateway", [file(program)]);
  const { port } = await child.ask<{ port: number }>({ service } satisfies Instruction);
  const url = `http://127.0.0.1:${port}/mcp`;
  return { child, url, [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]() };
}

/** Every kind and door. The doors take turns too: they are compared with each other. */
async function measureCalls(service: string, run: Rounds): Promise<CallRow[]> {
  await using runtime = await startRuntime(service, few);
  await using baseline = await start("baseline.ts", service);
  await using sdk = await start("sdk-server.ts", service);
  const rows = kinds.flatMap((kind) =>
    doors.map((door) => ({
      group: `tools/call ${kind}`,
      name: `tools/call ${kind}, ${door}`,
      job: { door, question: { tool: `echo_${kind}` }, tools: few, connections, ...timing },
      rounds: { runtime: [] as Figures[], baseline: [] as Figures[], sdk: [] as Figures[] },
    })),
  );
  for (let round = 0; round <= rounds; round++) {
    for (const { job, rounds: figures } of rows) {
      const turn = [
        await run.run(baseline, job),
        await run.run(runtime, job),
        await run.run(sdk, job),
      ] as const;
      if (round === 0) continue; // (1)
      figures.baseline.push(turn[0]);
      figures.runtime.push(turn[1]);
      figures.sdk.push(turn[2]);
    }
    tell(`calls, round ${round}`);
  }
  return rows;
}

async function measureLists(service: string, run: Rounds): Promise<ListRow[]> {
  const rows: ListRow[] = [];
  await using buffer = new Child("gateway", [file("static.ts")]);
  for (const tools of toolCounts) {
    await using runtime = await startRuntime(service, tools);
    for (const door of doors) {
      const job = { door, question: "list", tools, connections: listConnections, ...timing } as const;
      // The same bytes for every request, so the same id; and nobody there to open a session.
      const fixed = { ...job, sameId: true, ...(hasSession(door) && { session: "no-session" }) };
      const body = (await listOf(new URL(runtime.url), door)).toString("base64");
      const { port } = await buffer.ask<{ port: number }>({ body } satisfies Bytes);
      const target = { child: buffer, url: `http://127.0.0.1:${port}/mcp` };
      const row = {
        name: `tools/list ${tools}, ${door}`,
        rounds: { runtime: [] as Figures[], buffer: [] as Figures[] },
      };
      for (let round = 0; round <= rounds; round++) {
        const turn = [await run.run(target, fixed), await run.run(runtime, job)] as const;
        if (round === 0) continue; // (1)
        row.rounds.buffer.push(turn[0]);
        row.rounds.runtime.push(turn[1]);
      }
      rows.push(row);
      tell(row.name);
    }
  }
  return rows;
}

/** What the runtime answers to the first request for a list, whole. */
async function listOf(url: URL, door: Door): Promise<Buffer> {
  const connection = await Connection.open(url);
  let session: string | undefined;
  if (hasSession(door)) {
    session = sessionIn((await connection.exchange(initialize(url, door))).head);
    await connection.exchange(initialized(url, door, session));
  }
  const { body } = await connection.exchange(requests(url, door, "list", session)(firstId(0)));
  connection.close();
  return body;
}

/** The same call of one tool among few and among many. */
async function measureCatalog(service: string, run: Rounds): Promise<CatalogRow[]> {
  await using among = await startRuntime(service, few);
  await using amongMany = await startRuntime(service, many);
  tell(`a runtime with ${many} tools is ready after ${(amongMany.readyMs / 1000).toFixed(1)} s`);
  const rows = kinds.map((kind) => ({
    name: `tools/call ${kind}, ${doors.at(-1)}, ${many} tools`,
    question: { tool: `echo_${kind}` },
    rounds: { few: [] as Figures[], many: [] as Figures[] },
  }));
  for (let round = 0; round <= rounds; round++) {
    for (const { question, rounds: figures } of rows) {
      const job = { door: doors[4], question, tools: many, connections, ...timing };
      const turn = [await run.run(among, job), await run.run(amongMany, job)] as const;
      if (round === 0) continue; // (1)
      figures.few.push(turn[0]);
      figures.many.push(turn[1]);
    }
    tell(`catalog, round ${round}`);
  }
  return rows;
}

async function main(): Promise<void> {
  leaveGatewayAlone();
  await printHead(placement);
  console.log(`${rounds} rounds of ${seconds} s, ${connections} connections (lists ${listConnections})\n`);
  await using backend = new Child("others", [file("backend.ts")]);
  const service = `http://127.0.0.1:${(await backend.next<{ port: number }>()).port}`;
  await using load = new Child("others", [file("load.ts")]);
  const run = new Rounds(load);
  if (wanted.has("calls")) {
    const rows = await measureCalls(service, run);
    console.log(`${callTable(rows)}\n\n${doorTable(rows)}\n`);
  }
  if (wanted.has("lists")) console.log(`${listTable(await measureLists(service, run))}\n`);
  if (wanted.has("catalog")) console.log(`${catalogTable(await measureCatalog(service, run))}\n`);
  console.log(`wrong answers: ${run.wrong}`);
  process.exitCode = run.wrong === 0 ? 0 : 1;
}

await main();
