import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { Executor } from "../../src/execution/executor.ts";
import { callOf, connectionsTo, json, never, served, service, showing, textOf } from "./helpers.ts";

const ask = (executor: Executor) => executor.call(callOf(), never);

describe("instances under load", () => {
  /** One instance that can be taken away and brought back under its own port. */
  async function instance() {
    const own = await service((_request, response) => setImmediate(() => json(response, {})));
    onTestFinished(() => void own.server.close());
    return {
      ...own,
      kill: () =>
        new Promise<void>((resolve) => {
          own.server.close(() => resolve());
          own.server.closeAllConnections();
        }),
      revive: () => new Promise<void>((resolve) => own.server.listen(own.port, "127.0.0.1", resolve)),
    };
  }

  /** What failed of the calls that were made, 2,000 at a time, while `work` ran. */
  async function failuresDuring(executor: Executor, work: () => Promise<void>) {
    const failures: string[] = [];
    let over = false;
    const caller = async (): Promise<void> => {
      do {
        const result = await ask(executor);
        if (result.isError) failures.push(`${textOf(result)} ${String(result.failure?.facts.reason)}`);
      } while (!over && failures.length === 0);
    };
    const callers = Promise.all(Array.from({ length: 2000 }, caller));
    try {
      await work();
    } finally {
      over = true;
      await callers;
    }
    return failures;
  }

  /** Trials come soon: an instance that is back is used again within the test. Every caller finds a place. */
  const options = { breaker: { resetSeconds: 0.05 }, limits: { toolQueue: 2000 } };

  const cutOff = (executor: Executor, origin: string) =>
    vi.waitFor(() => expect(executor.circuits.circuitState(origin)?.kind).toMatch(/open/), {
      timeout: 10_000,
    });

  const allClosed = (executor: Executor) =>
    vi.waitFor(
      () => {
        const states = [...executor.circuits.circuitStates().values()];
        expect(states.map(({ kind }) => kind)).toEqual(Array.from({ length: 4 }, () => "closed"));
      },
      { timeout: 10_000 },
    );

  test("instances that are taken out, drained, killed, put back and revived fail no call, also of a tool that must not be repeated", async () => {
    const instances = await Promise.all(Array.from({ length: 4 }, instance));
    const origins = instances.map(({ origin }) => origin);
    const { executor, show } = showing(served(origins), options);
    const failures = await failuresDuring(executor, async () => {
      for (let round = 0; round < 6; round++) {
        await allClosed(executor);
        const going = instances[round % 4]!;
        show(served(origins.filter((origin) => origin !== going.origin)));
        await vi.waitFor(async () => expect(await connectionsTo(going.server)).toBe(0), { timeout: 10_000 });
        await going.kill();
        // Known again before it listens: its connections are refused.
        show(served(origins));
        await cutOff(executor, going.origin);
        await going.revive();
      }
    });
    expect(failures).toEqual([]);
    for (const { requests } of instances) expect(requests.length).toBeGreaterThan(100);
  }, 60_000);

  test("instances that are killed with calls under way fail no call of a tool that may be repeated", async () => {
    const instances = await Promise.all(Array.from({ length: 4 }, instance));
    const tool = served(
      instances.map(({ origin }) => origin),
      { annotations: { idempotent: true } },
    );
    const { executor } = showing(tool, options);
    const failures = await failuresDuring(executor, async () => {
      for (let round = 0; round < 6; round++) {
        await allClosed(executor);
        const going = instances[round % 4]!;
        await going.kill();
        await cutOff(executor, going.origin);
        await going.revive();
      }
    });
    expect(failures).toEqual([]);
  }, 60_000);

  test("a thousand changes of the instances leave nothing behind but what is in use", async () => {
    const instances = await Promise.all(Array.from({ length: 5 }, instance));
    const { executor, show } = showing(served([]));
    for (let change = 0; change < 1000; change++) {
      const live = instances.filter((_instance, index) => ((change % 31) + 1) & (1 << index));
      show(served(live.map(({ origin }) => origin)));
      const results = await Promise.all([ask(executor), ask(executor)]);
      expect(results.map(({ isError }) => isError)).toEqual([false, false]);
      const known = [...executor.circuits.circuitStates().keys()];
      expect(known.every((origin) => live.some((one) => one.origin === origin))).toBe(true);
    }
    show(served([instances[0]!.origin]));
    await vi.waitFor(async () => {
      for (const { server } of instances.slice(1)) expect(await connectionsTo(server)).toBe(0);
    });
    show();
    expect(executor.circuits.circuitStates().size).toBe(0);
    await vi.waitFor(async () => expect(await connectionsTo(instances[0]!.server)).toBe(0));
  }, 60_000);
});
