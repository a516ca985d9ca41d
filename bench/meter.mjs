/**
 * Preloaded into every process of a benchmark (`--import`): answers the message `usage` with what the process has used,
 * `heap` with what it holds after a garbage collection, `handles` with what keeps it alive, and ends it when the main
 * program is gone, however that ended. JavaScript, because what compiles TypeScript weighs 20 MB in the process.
 */
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

function usage() {
  const { user, system } = process.cpuUsage();
  return { cpu: user + system, rss: process.memoryUsage.rss() };
}

/** What is freed in one collection may free more in the next: finalizers run between them. */
const collections = 4;
const pauseMs = 50;

async function heap() {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  for (let index = 0; index < collections; index++) {
    collect();
    await sleep(pauseMs);
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return { heapUsed, external, rss };
}

function handles() {
  const counts = {};
  for (const name of process.getActiveResourcesInfo().sort()) counts[name] = (counts[name] ?? 0) + 1;
  return { handles: counts };
}

process.on("message", (message) => {
  if (message === "usage") process.send(usage());
  else if (message === "heap") void heap().then((held) => process.send(held));
  else if (message === "handles") process.send(handles());
});
process.on("disconnect", () => process.exit(1));
