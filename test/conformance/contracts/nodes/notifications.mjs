/** Tools that send notifications while they run. The pauses are the suite's: a client must see more than one message. */
import { setTimeout as sleep } from "node:timers/promises";

const pauseMs = 50;

export async function withProgress(_input, { progress, signal }) {
  progress(0, 100);
  await sleep(pauseMs, undefined, { signal });
  progress(50, 100);
  await sleep(pauseMs, undefined, { signal });
  progress(100, 100);
  return "Progress reported.";
}

export async function withLogging(_input, { log, signal }) {
  log("info", "Tool execution started");
  await sleep(pauseMs, undefined, { signal });
  log("info", "Tool processing data");
  await sleep(pauseMs, undefined, { signal });
  log("info", "Tool execution completed");
  return "Three messages logged.";
}

const levels = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

export function everyLevel(_input, { log }) {
  for (const level of levels) log(level, `A message of level ${level}`);
  return "One message logged at every level.";
}
