/**
 * What bad instances of a service do to callers: of five instances one refuses connections and one takes 5 s for every
 * answer, while another tool, of another service, is called as well. Against the same with five good instances.
 *
 *   npm run bench:instances -- [--calls 50000] [--rounds 3] [--connections 64] [--other-connections 16] [--slow-ms 5000]
 *
 * Both take turns, each time with a runtime that has seen nothing yet. Ends with 1 where any call failed.
 */
import { createServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { onexEcho, restEcho, writeConfig, writeTool } from "./contracts.ts";
import { printHead } from "./head.ts";
import type { Job, Outcome } from "./load.ts";
import { readNumbers } from "./options.ts";
import { Child, leaveGatewayAlone, placement } from "./processes.ts";
import { Rounds } from "./round.ts";
import { serve } from "./runtime.ts";
import { markdown, median } from "./table.ts";

const options = readNumbers({
  calls: { initial: 50_000, least: 10, most: 10_000_000 },
  rounds: { initial: 3, least: 1, most: 100 },
  connections: { initial: 64, least: 1, most: 500 },
  "other-connections": { initial: 16, least: 1, most: 500 },
  "slow-ms": { initial: 5000, least: 1, most: 20_000 },
});
const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const door = "2026-07-28";
/** The other load goes on until it is stopped. */
const longSeconds = 3600;
const warmUpSeconds = 0.5;

/** The address of a service that was there and is gone. */
async function deadAddress(): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}

interface Measured {
  /** Of the tool that has the instances. */
  readonly own: Outcome;
  readonly other: Outcome;
}

/** @param services of the tool that is called so many times; the other tool has one of its own */
async function measure(
  services: readonly string[],
  otherService: string,
  loads: readonly [Child, Child],
): Promise<Measured> {
  await using runtime = await serve("gateway", async (folder) => {
    await writeConfig(folder);
    await writeTool(folder, "echo_onex", onexEcho(...services));
    await writeTool(folder, "echo_rest", restEcho(otherService));
  });
  const { url } = runtime;
  const job = { url, door, tools: 2, seconds: longSeconds } as const;
  const [own, other] = loads;
  await other.ask({
    ...job,
    question: { tool: "echo_rest" },
    connections: options["other-connections"],
    warmUpSeconds,
  } satisfies Job);
  // No warm-up: the first calls meet the bad instances before anything is known of them.
  await own.ask({
    ...job,
    question: { tool: "echo_onex" },
    connections: options.connections,
    calls: options.calls,
    warmUpSeconds: 0,
  } satisfies Job);
  other.send("go");
  // While the last answers come, slow ones, the other load would be alone.
  await own.ask<"spent">("go");
  const otherOutcome = await other.ask<Outcome>("stop");
  return { own: await own.next<Outcome>(), other: otherOutcome };
}

function line(name: string, rounds: readonly Measured[]): string[] {
  const of = (read: (measured: Measured) => number): number => median(rounds.map(read));
  return [
    name,
    of(({ own }) => own.calls / own.seconds).toFixed(0),
    of(({ own }) => own.p50Ms).toFixed(1),
    of(({ own }) => own.p99Ms).toFixed(1),
    String(rounds.reduce((sum, { own }) => sum + own.wrong, 0)),
    of(({ other }) => other.calls / other.seconds).toFixed(0),
    of(({ other }) => other.p50Ms).toFixed(1),
    of(({ other }) => other.p99Ms).toFixed(1),
  ];
}

async function main(): Promise<void> {
  leaveGatewayAlone();
  await printHead(placement);
  console.log(`${options.rounds} rounds of ${options.calls} calls, ${options.connections} connections`);
  console.log(`the other tool over ${options["other-connections"]} connections\n`);
  await using stack = new AsyncDisposableStack();
  const start = (...args: string[]): Child => stack.use(new Child("others", args));
  const startService = async (...args: string[]): Promise<string> =>
    `http://127.0.0.1:${(await start(file("backend.ts"), ...args).next<{ port: number }>()).port}`;
  const good: string[] = [];
  for (let index = 0; index < 5; index++) good.push(await startService());
  const bad = [...good.slice(0, 3), await deadAddress(), await startService(String(options["slow-ms"]))];
  const otherService = await startService();
  const loads = [start(file("load.ts")), start(file("load.ts"))] as const;

  const counted = new Rounds(loads[0]);
  const rounds = { good: [] as Measured[], bad: [] as Measured[] };
  for (let round = 1; round <= options.rounds; round++) {
    rounds.good.push(await measure(good, otherService, loads));
    rounds.bad.push(await measure(bad, otherService, loads));
    console.error(`  round ${round}`);
  }
  for (const { own, other } of [...rounds.good, ...rounds.bad]) {
    counted.count(own, "the runtime (tool with five instances)");
    counted.count(other, "the runtime (the other tool)");
  }
  console.log(
    markdown(
      [
        ...["instances", "calls/s", "p50 ms", "p99 ms", "failed"],
        ...["other calls/s", "other p50 ms", "other p99 ms"],
      ],
      [line("five good", rounds.good), line("three good, one dead, one slow", rounds.bad)],
    ),
  );
  const p99 = (measured: readonly Measured[]): number => median(measured.map(({ other }) => other.p99Ms));
  console.log(`\np99 of the other tool, ratio: ${(p99(rounds.bad) / p99(rounds.good)).toFixed(2)}`);
  console.log(`failed calls: ${counted.wrong}`);
  process.exitCode = counted.wrong === 0 ? 0 : 1;
}

await main();
