import { describe, expect, it } from "vitest";
import { Metrics } from "../../src/core/metrics.ts";
import { textResult } from "../../src/tools/call.ts";
import { collectingLog } from "../support/log.ts";
import { callOf, executorOf, functionTool, json, never, onex, service, showing } from "./helpers.ts";

describe("calls that have ended", () => {
  it("are counted by tool and outcome, with their duration and their retries", async () => {
    const metrics = new Metrics();
    const failing = await service((_request, response) => json(response, {}, 503));
    const tools = [
      functionTool(() => "fine", { name: "fine" }),
      functionTool(() => textResult("no", true), { name: "sad" }),
      onex(failing.origin, "/", { name: "failing", annotations: { readOnly: true } }),
    ];
    const retry = { retries: 2, firstMs: 1, floorMs: 1 };
    const executor = executorOf(tools, { metrics: metrics.calls, retry });
    for (const name of ["fine", "fine", "failing", "absent"])
      await executor.call(callOf({}, { name }), never);
    const client = new AbortController();
    client.abort();
    await executor.call(callOf({}, { name: "fine" }), client.signal);
    const text = await metrics.text();
    expect(text).toContain('onex_tool_calls_total{tool="fine",outcome="ok"} 2');
    expect(text).toContain('onex_tool_calls_total{tool="fine",outcome="cancelled"} 1');
    expect(text).toContain('onex_tool_calls_total{tool="failing",outcome="ONEX_CORE_090_NETWORK_ERROR"} 1');
    expect(text).toContain('onex_tool_call_retries_total{tool="failing"} 2');
    expect(text).toContain('onex_tool_call_duration_seconds_count{tool="fine"} 3');
    expect(text).toContain('onex_tool_call_duration_seconds_bucket{le="300",tool="failing"} 1');
    expect(text).not.toContain("absent");
  });

  it("are forgotten with their tool", async () => {
    const metrics = new Metrics();
    const tool = functionTool(() => "fine", { name: "fine" });
    const { executor, show } = showing(tool, { metrics: metrics.calls });
    await executor.call(callOf({}, { name: "fine" }), never);
    expect(await metrics.text()).toContain("fine");
    show();
    expect(await metrics.text()).not.toContain("fine");
    show(tool);
    await executor.call(callOf({}, { name: "fine" }), never);
    expect(await metrics.text()).toContain('onex_tool_calls_total{tool="fine",outcome="ok"} 1');
  });

  it("bring nothing back of a tool that has gone while they ran", async () => {
    const metrics = new Metrics();
    const gate = Promise.withResolvers<string>();
    const tool = functionTool(() => gate.promise, { name: "fine" });
    const { executor, show } = showing(tool, { metrics: metrics.calls });
    const running = executor.call(callOf({}, { name: "fine" }), never);
    await new Promise((resolve) => setImmediate(resolve));
    show();
    gate.resolve("done");
    await running;
    show();
    expect(await metrics.text()).not.toContain("fine");
  });

  it("are lines of the log, at most five a second, and the next one tells how many were left out", async () => {
    const { log, lines } = collectingLog();
    let now = 0;
    const tool = functionTool(({ secret }: { secret: string }) => secret, { name: "fine" });
    const executor = executorOf([tool], { log, clock: { now: () => now } });
    const principal = { name: "ann", role: "user" } as const;
    const call = () => executor.call(callOf({ secret: "hush" }, { name: "fine", principal }), never);
    for (let n = 0; n < 12; n++) await call();
    expect(lines).toHaveLength(5);
    expect(lines[0]).toEqual({
      level: "info",
      message: "a tool was called",
      fields: { tool: "fine", outcome: "ok", duration_ms: 0, correlation_id: "corr-1", principal: "ann" },
    });
    now = 1000;
    for (let n = 0; n < 12; n++) await call();
    expect(lines).toHaveLength(10);
    expect(lines[5]?.fields).toMatchObject({ left_out: 7 });
    expect(lines[6]?.fields).not.toHaveProperty("left_out");
    now = 1200;
    for (let n = 0; n < 3; n++) await call();
    expect(lines).toHaveLength(11);
    expect(JSON.stringify(lines)).not.toContain("hush");
  });
});
