import { describe, expect, test } from "vitest";
import type { HandlerHealth } from "../../src/runtime/handler.ts";
import { Contracts, makeHost, startedHost, type Behaviour } from "./support.ts";

async function readinessOf(behaviour: Behaviour, required: boolean) {
  await using contracts = await Contracts.make();
  await contracts.handler("one", behaviour);
  await contracts.handler("fine");
  const handlers = { one: { required, config: {} } };
  await using host = await startedHost(contracts, { handlers, healthCheckTimeoutSeconds: 0.05 });
  return await host.host.ready();
}

describe("the host's health", () => {
  test("is healthy where all handlers are, with what they say of themselves", async () => {
    const ready = await readinessOf({ healthCheck: () => ({ healthy: true, tool_count: 3 }) }, true);
    expect(ready).toEqual({
      ready: true,
      reasons: [],
      status: "healthy",
      version: "1.2.3",
      details: {
        state: "running",
        pending: 0,
        bus: { healthy: true, type: "inmemory" },
        handlers: { fine: { healthy: true }, one: { healthy: true, tool_count: 3 } },
        failed_handlers: {},
        skipped_handlers: {},
        load_report: { directory: expect.any(String), entries: [expect.anything(), expect.anything()] },
      },
    });
  });

  const unhealthy: HandlerHealth = { healthy: false, reason: "draining" };

  test("is unhealthy and not ready where a required handler is unhealthy", async () => {
    expect(await readinessOf({ healthCheck: () => unhealthy }, true)).toMatchObject({
      ready: false,
      status: "unhealthy",
      reasons: ["handler one: draining"],
    });
  });

  test("is degraded and ready where another handler is unhealthy", async () => {
    expect(await readinessOf({ healthCheck: () => unhealthy }, false)).toMatchObject({
      ready: true,
      status: "degraded",
      reasons: [],
    });
  });

  test.each<[string, Behaviour["healthCheck"], RegExp]>([
    ["takes too long", () => new Promise(() => undefined), /took longer than 0\.05 s/],
    [
      "throws",
      () => Promise.reject(new Error(`no ${"x".repeat(500)}`)),
      /^the health check failed: no x{100,180}$/,
    ],
    ["answers nonsense", () => "ok" as never, /without `healthy`/],
  ])("a handler whose health check %s is unhealthy", async (_what, healthCheck, reason) => {
    const ready = await readinessOf({ ...(healthCheck !== undefined && { healthCheck }) }, true);
    expect(ready.ready).toBe(false);
    expect(ready.details.handlers.one).toEqual({ healthy: false, reason: expect.stringMatching(reason) });
  });

  test("liveness does not wait for a handler's health check as long as readiness does", async () => {
    await using contracts = await Contracts.make();
    const gate = Promise.withResolvers<HandlerHealth>();
    await contracts.handler("one", { healthCheck: () => gate.promise });
    await using host = await startedHost(contracts, { healthCheckTimeoutSeconds: 60 });
    const ready = host.host.ready();
    expect(await host.host.health()).toMatchObject({
      status: "degraded",
      details: { handlers: { one: { healthy: false, reason: "the health check took longer than 0.5 s" } } },
    });
    gate.resolve({ healthy: true });
    expect((await ready).status).toBe("healthy");
  });

  test("can always be written as JSON", async () => {
    const ready = await readinessOf({ healthCheck: () => ({ healthy: true, count: 1n }) }, true);
    expect(ready.ready).toBe(true);
    expect(JSON.parse(JSON.stringify(ready))).toMatchObject({
      details: { handlers: { one: { healthy: true, reason: expect.stringContaining("BigInt") } } },
    });
  });

  test("before the start and after the stop it is unhealthy and says why", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("one");
    await using made = makeHost(contracts);
    expect(await made.host.ready()).toMatchObject({
      ready: false,
      status: "unhealthy",
      reasons: ["the host is idle", "the event bus: the bus is new"],
      details: { load_report: null },
    });
    await made.host.start();
    await made.host.stop();
    expect((await made.host.ready()).reasons[0]).toBe("the host is stopped");
    expect((await made.host.health()).status).toBe("unhealthy");
  });

  test("counts envelopes without an answer", async () => {
    await using contracts = await Contracts.make();
    const gate = Promise.withResolvers<undefined>();
    await contracts.handler("work", { execute: () => gate.promise });
    await using host = await startedHost(contracts);
    const answers = [1, 2].map(async () => await host.host.handle({ operation: "work.x" }));
    expect((await host.host.health()).details.pending).toBe(2);
    gate.resolve(undefined);
    await Promise.all(answers);
    expect((await host.host.health()).details.pending).toBe(0);
  });
});
