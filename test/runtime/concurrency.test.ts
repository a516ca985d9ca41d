import { describe, expect, test } from "vitest";
import { Contracts, descriptor, startedHost } from "./support.ts";

describe("how many at once", () => {
  test("never more than max_concurrency calls run", async () => {
    await using contracts = await Contracts.make();
    let running = 0;
    let most = 0;
    await contracts.handler("work", {
      execute: async () => {
        running += 1;
        most = Math.max(most, running);
        await new Promise((resolve) => setImmediate(resolve));
        running -= 1;
      },
    });
    await using host = await startedHost(contracts, { maxConcurrency: 3 });
    await Promise.all(
      Array.from({ length: 20 }, async () => await host.host.handle({ operation: "work.x" })),
    );
    expect(most).toBe(3);
  });

  test("a queue before a serialized handler leaves the others their slots", async () => {
    await using contracts = await Contracts.make();
    const gate = Promise.withResolvers<undefined>();
    const one = descriptor({ concurrency_policy: "serialized" });
    await contracts.handler("one", { execute: () => gate.promise }, one);
    await contracts.handler("other", { execute: () => "served" });
    await using host = await startedHost(contracts, { maxConcurrency: 2 });
    const queue = Array.from({ length: 5 }, async () => await host.host.handle({ operation: "one.x" }));
    expect((await host.host.handle({ operation: "other.x" })).payload).toBe("served");
    gate.resolve(undefined);
    await Promise.all(queue);
  });

  test("a hundred waiting callers are served in turn, without a warning about listeners", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("work", { execute: async ({ payload }) => payload.n });
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => void warnings.push(warning);
    process.on("warning", onWarning);
    try {
      await using host = await startedHost(contracts, { maxConcurrency: 1 });
      const answers = await Promise.all(
        Array.from(
          { length: 100 },
          async (_, n) => await host.host.handle({ operation: "work.x", payload: { n } }),
        ),
      );
      expect(answers.map((answer) => answer.payload)).toEqual(Array.from({ length: 100 }, (_, n) => n));
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      process.off("warning", onWarning);
    }
    expect(warnings).toEqual([]);
  });
});
