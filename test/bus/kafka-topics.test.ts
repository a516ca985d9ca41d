/** Publishing to topics that are not there yet, or cannot be had. */
import { expect, onTestFinished, test, vi } from "vitest";
import { describeWithKafka } from "../services/index.ts";
import { startedBus, text, uniqueTopic, withAdmin } from "./kafka.ts";

/** One failure to reach a broker would open the breaker for the length of the test. */
const touchy = { circuitBreakerThreshold: 1, circuitBreakerResetSeconds: 60, retryBackoffBaseSeconds: 0.05 };

async function counts(topic: string): Promise<number> {
  const offsets = await withAdmin((admin) => admin.fetchTopicOffsets(topic));
  return offsets.reduce((sum, { high }) => sum + Number(high), 0);
}

describeWithKafka("a burst of publishes", () => {
  test("to a topic that does not exist creates it once, arrives, and is no outage", async () => {
    const warnings: string[] = [];
    const note = (warning: Error): void => void warnings.push(warning.name);
    process.on("warning", note);
    onTestFinished(() => void process.off("warning", note));
    const bus = await startedBus({ ...touchy, partitions: 2 });
    const topic = uniqueTopic();
    const values = Array.from({ length: 50 }, (_, index) => `m${index}`);
    await Promise.all(values.map((value) => bus.publish(topic, text(value, value))));
    expect(bus.health()).toEqual({ healthy: true, type: "kafka" });
    expect(await counts(topic)).toBe(50);
    expect(warnings).toEqual([]);
  });

  test("to 30 topics that do not exist creates each of them, and is no outage", async () => {
    const bus = await startedBus({ ...touchy, partitions: 1 });
    const topic = uniqueTopic();
    const topics = Array.from({ length: 30 }, (_, index) => `${topic}.${index}`);
    await Promise.all(topics.map((each) => bus.publish(each, text("k", "x"))));
    expect(bus.health()).toEqual({ healthy: true, type: "kafka" });
    expect(await Promise.all(topics.map(counts))).toEqual(topics.map(() => 1));
  });

  test("to topics that cannot be had neither opens the breaker nor fails publishes to others", async () => {
    const bus = await startedBus({ ...touchy, partitions: 1 });
    const [taken, topic] = [uniqueTopic(), uniqueTopic()];
    await bus.publish(taken, text("k", "x"));
    // Brokers refuse a topic that differs from another one by dots and underscores only.
    const refused = taken.replace(".", "_");
    const bad = Promise.allSettled(Array.from({ length: 20 }, () => bus.publish(refused, text("k", "x"))));
    const good = Array.from({ length: 20 }, () => bus.publish(topic, text("k", "x")));
    await Promise.all(good);
    for (const outcome of await bad)
      expect(outcome).toMatchObject({
        reason: { retryable: false, message: expect.stringContaining(refused) },
      });
    expect(bus.health()).toEqual({ healthy: true, type: "kafka" });
  });

  test("to a topic that was deleted meanwhile makes it anew, and is no outage", async () => {
    const bus = await startedBus({ ...touchy, partitions: 1, publishRetries: 20 });
    const [topic, other] = [uniqueTopic(), uniqueTopic()];
    await Promise.all([bus.publish(topic, text("k", "x")), bus.publish(other, text("k", "x"))]);
    await withAdmin((admin) => admin.deleteTopics({ topics: [topic] }));
    await vi.waitFor(async () => expect(await withAdmin((admin) => admin.listTopics())).not.toContain(topic));
    await Promise.all(
      Array.from({ length: 40 }, (_, index) => bus.publish(index % 2 ? topic : other, text("k", "x"))),
    );
    expect(bus.health()).toEqual({ healthy: true, type: "kafka" });
    expect(await counts(other)).toBe(21);
  });
});
