/** What a registration topic says of why it waits. */
import { expect, onTestFinished, test } from "vitest";
import type { BusHealth } from "../../src/bus/bus.ts";
import { RegistrationTopic } from "../../src/discovery/registration-topic.ts";

test.each<[string, Partial<BusHealth>, string]>([
  ["its own reason, where the bus is healthy", { healthy: true, detail: "a notice" }, "regs: cannot follow"],
  ["the bus's trouble", { healthy: false, detail: "no broker" }, "regs: no broker"],
  ["its own reason, where the bus's trouble has no name", { healthy: false }, "regs: cannot follow"],
])("a topic that waits tells %s", async (_what, health, trouble) => {
  const topic = new RegistrationTopic({
    log: {
      follow: () => Promise.reject(new Error("cannot follow")),
      deadLetter: () => Promise.resolve(),
      health: () => ({ healthy: true, type: "kafka", ...health }),
    },
    topic: "regs",
    replay: true,
    onMessages: () => undefined,
    onRestart: () => undefined,
    onCaughtUp: () => undefined,
  });
  onTestFinished(() => topic.close());
  void topic.start();
  await expect.poll(() => topic.trouble).toBe(trouble);
});
