import { expect, describe, it } from "vitest";
import { textResult, type CallTool, type ToolCall } from "../../src/tools/call.ts";
import { ManualClock } from "../resilience/clock.ts";
import { catalogOf, makeTool } from "../support/tools.ts";
import { call, makeFront, modernHeaders, modernMeta, send } from "./requests.ts";

type Report = (call: ToolCall, clock: ManualClock) => void;

/** The messages that a client gets of a call that reports, the answer last. */
async function received(era: "older" | "2026-07-28", report: Report): Promise<any[]> {
  const clock = new ManualClock();
  const tool: CallTool = async (toolCall) => {
    report(toolCall, clock);
    return textResult("done");
  };
  const front = makeFront(catalogOf(makeTool("a")), { call: tool, clock });
  const modern = { ...modernMeta, "io.modelcontextprotocol/logLevel": "debug" };
  const _meta = { progressToken: "p", ...(era === "older" ? {} : modern) };
  const headers = era === "older" ? {} : modernHeaders("tools/call", "a");
  const answer = await send(front, call(1, "tools/call", { name: "a", _meta }), { headers });
  const frames = (await answer.text()).matchAll(/^data: (\{.*)$/gm);
  return Array.from(frames, ([, data]) => JSON.parse(data!));
}

/** Progress as its number, a log line as its level and data, the answer as "answer". */
const brief = ({ method, params }: any): unknown => {
  if (method === "notifications/progress") return params.progress;
  return method === "notifications/message" ? `${params.level}: ${params.data}` : "answer";
};

const numbers = (from: number, to: number): number[] =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index);

describe.each(["older", "2026-07-28"] as const)("what a tool reports to a client (%s)", (era) => {
  it("ten steps of progress arrive, each at its place among the log lines", async () => {
    const messages = await received(era, ({ onProgress, onLog }) => {
      for (const done of numbers(1, 10)) onProgress?.({ done, total: 10, message: `step ${done}` });
      onLog?.("info", "finished");
    });
    expect(messages.map(brief)).toEqual([...numbers(1, 10), "info: finished", "answer"]);
    expect(messages[0].params).toEqual({ progressToken: "p", progress: 1, total: 10, message: "step 1" });
  });

  it("a flood of progress is thinned out and its last one arrives", async () => {
    const messages = await received(era, ({ onProgress }, clock) => {
      for (const done of numbers(1, 50_000)) onProgress?.({ done });
      clock.advance(0.02);
      for (const done of numbers(50_001, 100_000)) onProgress?.({ done });
    });
    expect(messages.map(brief)).toEqual([...numbers(1, 1_000), 50_001, 50_002, 100_000, "answer"]);
  });

  it("progress that waits goes out before the next log line that finds room", async () => {
    const messages = await received(era, ({ onProgress, onLog }, clock) => {
      for (const done of numbers(1, 2_000)) onProgress?.({ done });
      clock.advance(1);
      onLog?.("info", "further");
    });
    expect(messages.map(brief).slice(-3)).toEqual([2_000, "info: further", "answer"]);
  });

  it("a flood of log lines is cut and the client is told how many are missing", async () => {
    const messages = await received(era, ({ onLog }) => {
      for (const line of numbers(1, 5_000)) onLog?.("info", line);
    });
    expect(messages.map(brief)).toEqual([
      ...numbers(1, 1_000).map((line) => `info: ${line}`),
      "warning: 4000 log lines of this call left out: it logged faster than 100 a second",
      "answer",
    ]);
    expect(messages.at(-2).params.logger).toBe("a");
  });

  it("a flood does not hide an error, and a flood of errors is cut as well", async () => {
    const messages = await received(era, ({ onLog, onProgress }) => {
      for (const done of numbers(1, 5_000)) onProgress?.({ done });
      onLog?.("debug", "lesser");
      for (const line of numbers(1, 101)) onLog?.("error", line);
    });
    expect(messages.map(brief).slice(1_000)).toEqual([
      ...numbers(1, 100).map((line) => `error: ${line}`),
      5_000,
      "warning: 2 log lines of this call left out: it logged faster than 100 a second",
      "answer",
    ]);
  });
});
