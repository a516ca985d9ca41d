/**
 * How long it takes from the start of `node` until the first call has been answered.
 *
 *   npm run bench:start -- [--runs 10] [--tools 10]
 *
 * Of the package, and of the checkout, which runs its sources. Every run is a process of its own, without anything of the
 * benchmark in it; all take turns, also with a `node` that does nothing. Ends with 1 where the first call was not answered rightly.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { build } from "./built.ts";
import { Connection } from "./connection.ts";
import { requests, textOf } from "./doors.ts";
import { printHead } from "./head.ts";
import { readNumbers } from "./options.ts";
import { Child, leaveGatewayAlone, onGatewayCpu, placement } from "./processes.ts";
import { sourceLauncher, startRuntime } from "./runtime.ts";
import { markdown, median } from "./table.ts";

const options = readNumbers({
  runs: { initial: 10, least: 1, most: 1000 },
  tools: { initial: 10, least: 2, most: 90_000 },
});
const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const id = 1_000_000_000;

/** Milliseconds that such a process takes from its start to its end. */
function lifetime(...args: string[]): number {
  const [command, ...rest] = onGatewayCpu([process.execPath, ...args]);
  const startedAt = performance.now();
  const { status } = spawnSync(command, rest, { stdio: "ignore" });
  if (status !== 0) throw new Error(`node ${args.join(" ")} ended with ${status}`);
  return performance.now() - startedAt;
}

/** Milliseconds from the start of the process. */
interface Start {
  readonly help: number;
  readonly ready: number;
  readonly answered: number;
}

async function start(service: string, launcher: string): Promise<Start> {
  const help = lifetime(launcher, "serve", "--help");
  let startedAt = 0;
  const onStart = (): void => void (startedAt = performance.now());
  await using runtime = await startRuntime(service, options.tools, { onStart, bare: true, launcher });
  const ready = performance.now() - startedAt;
  const url = new URL(runtime.url);
  const connection = await Connection.open(url);
  const { status, body } = await connection.exchange(
    requests(url, "2026-07-28", { tool: "echo_rest" }, undefined)(id),
  );
  const answered = performance.now() - startedAt;
  connection.close();
  const answer: any = status === 200 ? JSON.parse(body.toString()) : undefined;
  if (answer?.result?.structuredContent?.text !== textOf(id))
    throw new Error(`the first call was answered with ${status} ${body.toString()}`);
  return { help, ready, answered };
}

function line(name: string, values: readonly number[]): string[] {
  return [name, ...[median(values), Math.min(...values), Math.max(...values)].map((ms) => ms.toFixed(0))];
}

async function main(): Promise<void> {
  leaveGatewayAlone();
  await printHead(placement);
  console.log(`${options.runs} runs with ${options.tools} tools\n`);
  await using built = await build();
  await using backend = new Child("others", [file("backend.ts")]);
  const service = `http://127.0.0.1:${(await backend.next<{ port: number }>()).port}`;
  const node: number[] = [];
  const subjects = [
    { name: "package", launcher: built.launcher, starts: [] as Start[] },
    { name: "checkout", launcher: sourceLauncher, starts: [] as Start[] },
  ];
  for (let run = 0; run < options.runs; run++) {
    node.push(lifetime("-e", "0"));
    for (const { launcher, starts } of subjects) starts.push(await start(service, launcher));
  }
  const lines = subjects.flatMap(({ name, starts }) => [
    line(
      `${name}: \`onex serve --help\`, until its end`,
      starts.map(({ help }) => help),
    ),
    line(
      `${name}: \`onex serve\`, until it says that it is ready`,
      starts.map(({ ready }) => ready),
    ),
    line(
      `${name}: \`onex serve\`, until its first call was answered`,
      starts.map(({ answered }) => answered),
    ),
  ]);
  lines.unshift(line("a `node` that does nothing, until its end", node));
  console.log(markdown(["from the start of the process", "median ms", "least", "most"], lines));
}

await main();
