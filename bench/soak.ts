/**
 * Mixed load for a long time: calls of several kinds, lists and mistakes through every door, sessions that are opened and
 * ended, cancellations, subscriptions, tools and instances that come and go. Every answer is checked.
 *
 *   npm run bench:soak -- [--minutes 30] [--clients 12] [--every-seconds 60] [--quiet-seconds 6]
 *
 * Every minute all pauses for some seconds, and what the runtime holds is counted. Ends with 1 on a wrong answer, where
 * the heap has grown by more than 3 % since minute 10, or where handles are not those of that minute.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Actions } from "./actions.ts";
import { Gate } from "./gate.ts";
import { load, printHead } from "./head.ts";
import { readNumbers } from "./options.ts";
import { leaveGatewayAlone, placement, type Heap } from "./processes.ts";
import { serve, type Runtime } from "./runtime.ts";
import { World } from "./world.ts";

const options = readNumbers({
  minutes: { initial: 30, least: 0.01, most: 10_000 },
  clients: { initial: 12, least: 1, most: 200 },
  "every-seconds": { initial: 60, least: 0.5, most: 3600 },
  // Connections to services that nobody uses are closed by then.
  "quiet-seconds": { initial: 6, least: 0, most: 600 },
});
/** From then on code is compiled and pools are filled. */
const referenceMinute = 10;
const maxGrowth = 1.03;
/** More of them say nothing new. */
const maxShown = 20;

interface Look {
  readonly minute: number;
  readonly heap: Heap;
  readonly handles: string;
}

const wrong: string[] = [];
function failed(error: unknown): void {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  wrong.push(text);
  if (wrong.length <= maxShown) console.error(`WRONG: ${text}\n`);
}

/** While nothing is under way. */
async function look(runtime: Runtime, minute: number): Promise<Look> {
  const heap = await runtime.child.heap();
  const handles = Object.entries(await runtime.child.handles())
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");
  return { minute, heap, handles };
}

function progress({ minute, heap, handles }: Look, { counts }: Actions, world: World): string {
  const done = Object.entries(counts).map(([name, count]) => `${count} ${name}`);
  const { came, went } = world.changes;
  return [
    `minute ${minute.toFixed(1)}: ${done.join(", ")}, ${came} instances came, ${went} went`,
    `  wrong ${wrong.length}; heap ${(heap.heapUsed / 1e6).toFixed(2)} MB, RSS ${(heap.rss / 1e6).toFixed(0)} MB; ${handles}`,
  ].join("\n");
}

/** What must not be, at the end. */
function faultsOf(looks: readonly Look[]): string[] {
  const last = looks.at(-1);
  const reference = looks.find(({ minute }) => minute >= referenceMinute) ?? looks[0];
  const faults = wrong.length === 0 ? [] : [`${wrong.length} answers were wrong`];
  if (last === undefined || reference === undefined || last === reference) return faults;
  const growth = last.heap.heapUsed / reference.heap.heapUsed;
  const since = `minute ${reference.minute.toFixed(1)}`;
  console.log(`heap since ${since}: ${((growth - 1) * 100).toFixed(1)} %`);
  // Before that minute a heap that grows is no fault.
  if (reference.minute >= referenceMinute && growth > maxGrowth)
    faults.push(`the heap has grown since ${since}`);
  if (last.handles !== reference.handles)
    faults.push(`handles are not those of ${since}: ${reference.handles} | ${last.handles}`);
  return faults;
}

async function main(): Promise<void> {
  leaveGatewayAlone();
  await printHead(placement);
  console.log(`${options.minutes} minutes, ${options.clients} clients that call and list\n`);
  await using stack = new AsyncDisposableStack();
  let world: World | undefined;
  const runtime = stack.use(
    await serve("gateway", async (folder) => {
      world = stack.use(await World.build(folder));
    }),
  );
  if (world === undefined) throw new Error("nothing was written");
  const gate = new Gate();
  const actions = new Actions(runtime.url, world, () => gate.isClosing);
  const { talk, host, cancel, change } = actions;
  const clients = Array.from({ length: options.clients }, () => talk);
  const all = [...clients, host, cancel, cancel, change].map((action) => gate.repeat(action, failed));

  const startedAt = performance.now();
  const looks: Look[] = [];
  for (let minute = 0; minute < options.minutes;) {
    const left = options.minutes * 60_000 - (performance.now() - startedAt);
    await sleep(Math.max(0, Math.min(options["every-seconds"] * 1000, left)));
    await gate.close();
    await sleep(options["quiet-seconds"] * 1000);
    minute = (performance.now() - startedAt) / 60_000;
    const now = await look(runtime, minute);
    looks.push(now);
    console.log(progress(now, actions, world));
    gate.open();
  }
  gate.end();
  await Promise.all(all);
  const faults = faultsOf(looks);
  console.log(`load of the machine at the end of the run: ${load()}`);
  for (const fault of faults) console.log(fault);
  console.log(`faults: ${faults.length}`);
  process.exitCode = faults.length === 0 ? 0 : 1;
}

await main();
