import { setTimeout as sleep } from "node:timers/promises";

const steps = 10;

/**
 * @param {{ seconds: number, reason?: string }} input
 * @param {import("onex-runtime").ToolContext} context
 */
export default async function wait({ seconds, reason }, { signal, progress }) {
  for (let step = 1; step <= steps; step++) {
    await sleep((seconds * 1000) / steps, undefined, { signal });
    progress(step, steps, reason);
  }
  return `Waited ${seconds} s.`;
}
