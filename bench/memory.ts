/**
 * What the runtime holds in memory: at rest with few tools, for a tool that nobody calls, and for a session of an older
 * revision whose client listens.
 *
 *   npm run bench:memory -- [--tools 10000] [--sessions 1000] [--rounds 3] [--settle-seconds 3]
 *
 * Of the package: a checkout holds its sources and what compiles them as well. Medians of rounds, each with processes of
 * its own. Ends with 1 where a session or its stream was refused.
 */
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { build } from "./built.ts";
import { Connection } from "./connection.ts";
import { initialize, initialized, listenIn, requests, sessionIn } from "./doors.ts";
import { printHead } from "./head.ts";
import { readNumbers } from "./options.ts";
import { Child, leaveGatewayAlone, placement, type Heap } from "./processes.ts";
import { startRuntime, type Runtime } from "./runtime.ts";
import { markdown, median } from "./table.ts";

const options = readNumbers({
  tools: { initial: 10_000, least: 1, most: 90_000 },
  sessions: { initial: 1000, least: 1, most: 1000 },
  rounds: { initial: 3, least: 1, most: 100 },
  "settle-seconds": { initial: 3, least: 0, most: 600 },
});
const few = 10;
const door = "2025-11-25 session";
const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** An idle session, and the stream on which its client listens. */
class Listener {
  readonly #stream: Connection;

  private constructor(stream: Connection) {
    this.#stream = stream;
  }

  static async open(url: URL): Promise<Listener> {
    const connection = await Connection.open(url);
    const session = sessionIn((await connection.exchange(initialize(url, door))).head);
    await connection.exchange(initialized(url, door, session));
    connection.close();
    const stream = await Connection.open(url);
    const head = await stream.openStream(listenIn(url, door, session));
    if (!head.startsWith("HTTP/1.1 200")) throw new Error(`a session got no stream: ${head}`);
    return new Listener(stream);
  }

  close(): void {
    this.#stream.close();
  }
}

/** What one round found, in bytes. */
interface Round {
  readonly idleRss: number;
  readonly idleHeap: Heap;
  readonly manyHeap: Heap;
  readonly manyRss: number;
  readonly listenersBefore: Heap;
  readonly listening: Heap;
}

/** As it is after its first call and some time: nothing is collected for this. */
async function restingRss(runtime: Runtime): Promise<number> {
  const url = new URL(runtime.url);
  const connection = await Connection.open(url);
  const { status } = await connection.exchange(
    requests(url, "2026-07-28", { tool: "echo_rest" }, undefined)(1_000_000_000),
  );
  connection.close();
  if (status !== 200) throw new Error(`the first call was answered with ${status}`);
  await sleep(options["settle-seconds"] * 1000);
  return (await runtime.child.usage()).rss;
}

async function measure(service: string, launcher: string): Promise<Round> {
  await using runtime = await startRuntime(service, few, { launcher });
  const idleRss = await restingRss(runtime);
  const idleHeap = await runtime.child.heap();

  // The first sessions load what is needed for all of them.
  const url = new URL(runtime.url);
  const before = await Promise.all(
    Array.from({ length: Math.min(10, options.sessions) }, () => Listener.open(url)),
  );
  const listenersBefore = await runtime.child.heap();
  const listeners: Listener[] = [];
  for (let index = before.length; index < options.sessions; index++) listeners.push(await Listener.open(url));
  await sleep(options["settle-seconds"] * 1000);
  const listening = await runtime.child.heap();
  for (const listener of [...before, ...listeners]) listener.close();

  await using full = await startRuntime(service, few + options.tools, { launcher });
  const manyRss = await restingRss(full);
  const manyHeap = await full.child.heap();
  return { idleRss, idleHeap, manyHeap, manyRss, listenersBefore, listening };
}

function report(rounds: readonly Round[]): string {
  const { tools, sessions } = options;
  const added = sessions - Math.min(10, sessions) || 1;
  const of = (read: (round: Round) => number): number => median(rounds.map(read));
  const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
  const kb = (bytes: number): string => `${(bytes / 1e3).toFixed(2)} kB`;
  const perTool = (read: (heap: Heap) => number): string =>
    kb(of((round) => (read(round.manyHeap) - read(round.idleHeap)) / tools));
  const perSession = (read: (heap: Heap) => number): string =>
    kb(of((round) => (read(round.listening) - read(round.listenersBefore)) / added));
  return markdown(
    ["what", "heap", "outside of the heap", "RSS"],
    [
      [
        `at rest with ${few} tools`,
        mb(of(({ idleHeap }) => idleHeap.heapUsed)),
        mb(of(({ idleHeap }) => idleHeap.external)),
        mb(of(({ idleRss }) => idleRss)),
      ],
      [
        `each of ${tools} tools more, never called`,
        perTool(({ heapUsed }) => heapUsed),
        perTool(({ external }) => external),
        kb(of(({ manyRss, idleRss }) => (manyRss - idleRss) / tools)),
      ],
      [
        `each of ${sessions} idle sessions (${door.split(" ")[0]}) with an open stream`,
        perSession(({ heapUsed }) => heapUsed),
        perSession(({ external }) => external),
        perSession(({ rss }) => rss),
      ],
    ],
  );
}

async function main(): Promise<void> {
  leaveGatewayAlone();
  await printHead(placement);
  console.log(`medians of ${options.rounds} rounds; heap after garbage collection\n`);
  await using built = await build();
  await using backend = new Child("others", [file("backend.ts")]);
  const service = `http://127.0.0.1:${(await backend.next<{ port: number }>()).port}`;
  const rounds: Round[] = [];
  for (let round = 1; round <= options.rounds; round++) {
    rounds.push(await measure(service, built.launcher));
    console.error(`  round ${round}`);
  }
  console.log(report(rounds));
}

await main();
