/**
 * What it costs to know what is registered: services in Consul and registration events on Kafka, from the start of the
 * process until all tools are served, at rest, and from a change until an MCP client has been told of it. Against a
 * hand-written watcher that has the machine to itself in the same run.
 *
 *   npm run bench:discovery -- [--services 5000] [--ids 10000] [--events 50000] [--changes 200] [--idle-seconds 20]
 *
 * Everything is measured with ten services, then with all. Ends with 1 where a change was not told exactly once, or a
 * tool was missing.
 */
import { randomUUID } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Ear, measureChanges, type Series } from "./changes.ts";
import { Cluster, topic, type Load } from "./cluster.ts";
import { load as machineLoad, printHead } from "./head.ts";
import { readTexts, toNumber } from "./options.ts";
import { Child, type Usage } from "./processes.ts";
import {
  faultsOf,
  propagationTable,
  standingTable,
  type Cost,
  type Pair,
  type Run,
  type Standing,
} from "./report.ts";
import { serve, type Runtime } from "./runtime.ts";
import { SocketWatch } from "./sockets.ts";
import type { Watch, Word } from "./watcher.ts";

const values = readTexts({
  services: "5000",
  ids: "10000",
  events: "50000",
  changes: "200",
  "idle-seconds": "20",
});
const number = (name: keyof typeof values, least: number, most: number): number =>
  toNumber(name, values[name], { least, most });
const small: Load = { services: 10, ids: 10, events: 20 };
const services = number("services", small.services, 50_000);
const ids = number("ids", services, 50_000);
const whole: Load = { services, ids, events: number("events", Math.max(ids + small.events, 100), 1_000_000) };
const changes = number("changes", 2, 10_000);
const idleSeconds = number("idle-seconds", 0.1, 600);

const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const begun = performance.now();
const tell = (line: string): void =>
  console.error(`${((performance.now() - begun) / 1000).toFixed(0).padStart(5)} s  ${line}`);

/** For the services, after they were told of thousands of registrations. */
const settleMs = 2000;

/** What is measured: the runtime, or the yardstick. */
interface Subject {
  readonly child: Child;
  readonly ear: Ear;
  readonly standing: Omit<Standing, "idle" | "idleCpuPercent">;
}

/** Everything about one process that has just become ready. */
async function measure(cluster: Cluster, subject: Subject): Promise<Run> {
  const { child, ear } = subject;
  const before = await child.usage();
  const idleFrom = performance.now();
  await sleep(idleSeconds * 1000);
  const idle = await child.usage();
  const idleCpuPercent = ((idle.cpu - before.cpu) / 1000 / (performance.now() - idleFrom)) * 100;
  const name = `change_${randomUUID().slice(0, 8)}`;
  /** A service comes, then goes. */
  const idOf = (change: number): string => `${name}_${Math.floor(change / 2)}`;
  const isComing = (change: number): boolean => change % 2 === 0;
  const consul = await costOf(child, () =>
    measureChanges(changes, ear, (change) =>
      isComing(change) ? cluster.register(idOf(change)) : cluster.deregister(idOf(change)),
    ),
  );
  const kafka = await costOf(child, () =>
    measureChanges(changes, ear, (change) =>
      cluster.publish(idOf(change), isComing(change) ? "registered" : "deregistered"),
    ),
  );
  return { standing: { ...subject.standing, idle, idleCpuPercent }, consul, kafka };
}

async function costOf(child: Child, series: () => Promise<Series>): Promise<Cost> {
  const before = await child.usage();
  const measured = await series();
  const cpu = (await child.usage()).cpu - before.cpu;
  return { ...measured, cpuMs: cpu / 1000 / measured.changes };
}

async function measureWatcher(cluster: Cluster): Promise<Run> {
  const startedAt = performance.now();
  await using child = new Child("anywhere", [file("watcher.ts")]);
  const sockets = new SocketWatch(child.pid, cluster.consul.port);
  const watch: Watch = {
    consul: { host: cluster.consul.host, port: cluster.consul.port },
    kafkaServers: cluster.kafka.bootstrapServers,
    topic,
    history: cluster.history,
  };
  const { ready } = await child.ask<{ ready: number }>(watch);
  const readyMs = performance.now() - startedAt;
  const usage = await child.usage();
  const ear = new Ear();
  child.onMessage((message) => {
    if ("changed" in (message as Word | Usage)) ear.hear();
  });
  const maxSockets = await sockets.end();
  return await measure(cluster, {
    child,
    ear,
    standing: { readyMs, tools: ready, ready: usage, maxSockets },
  });
}

async function measureRuntime(cluster: Cluster): Promise<Run> {
  let sockets: SocketWatch | undefined;
  await using runtime = await serve("anywhere", (folder) => writeConfig(folder, cluster), {
    onStart: ({ pid }) => (sockets = new SocketWatch(pid, cluster.consul.port)),
  });
  const { readyMs, tools, child } = runtime;
  const usage = await child.usage();
  const maxSockets = await sockets?.end();
  const ear = new Ear();
  await using _client = await subscribe(runtime, ear);
  return await measure(cluster, { child, ear, standing: { readyMs, tools, ready: usage, maxSockets } });
}

async function writeConfig(folder: string, { consul, kafka }: Cluster): Promise<void> {
  const config = {
    name: "bench",
    event_bus: { type: "kafka", bootstrap_servers: kafka.bootstrapServers, environment: "bench" },
    logging: { level: "info", format: "json" },
    health: { port: false },
    handlers: {
      mcp: {
        consul_host: consul.host,
        consul_port: consul.port,
        kafka_enabled: true,
        dev_mode: false,
        port: 0,
        contracts_dir: folder,
        max_tools: 100_000,
      },
    },
  };
  await mkdir(join(folder, "runtime"));
  // JSON is YAML.
  await writeFile(join(folder, "runtime/runtime_config.yaml"), JSON.stringify(config));
}

/** The official client of the newest revision, with its subscription open. */
async function subscribe({ url }: Runtime, ear: Ear): Promise<AsyncDisposable> {
  const client = new Client(
    { name: "bench", version: "1.0.0" },
    { versionNegotiation: { mode: { pin: "2026-07-28" } } },
  );
  client.setNotificationHandler("notifications/tools/list_changed", ear.hear);
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  await client.listen({ toolsListChanged: true });
  return { [Symbol.asyncDispose]: () => client.close() };
}

async function main(): Promise<void> {
  await printHead("shared by all processes");
  await using cluster = await Cluster.start(tell);
  const pairs: Pair[] = [];
  for (const load of [small, whole]) {
    await cluster.fill(load);
    tell(`${load.services} services in Consul, ${cluster.history} events on Kafka`);
    await sleep(settleMs);
    const watcher = await measureWatcher(cluster);
    tell("the watcher is measured");
    const runtime = await measureRuntime(cluster);
    tell("the runtime is measured");
    pairs.push({ load, watcher, runtime });
  }
  console.log(`load of the machine at the end of the run: ${machineLoad()}\n`);
  console.log(`${standingTable(pairs)}\n\n${propagationTable(pairs)}\n`);
  const faults = pairs.flatMap(faultsOf);
  for (const fault of faults) console.log(fault);
  console.log(`faults: ${faults.length}`);
  process.exitCode = faults.length === 0 ? 0 : 1;
}

await main();
