import { randomUUID } from "node:crypto";
import { expect, onTestFinished, test, vi } from "vitest";
import type { EventBus } from "../../src/bus/bus.ts";
import { KafkaBus } from "../../src/bus/kafka.ts";
import { BusRequests } from "../../src/bus/request.ts";
import { InfraUnavailableError } from "../../src/core/errors.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { describeWithKafka, describeWithOwnKafka, kafkaServers, startKafka } from "../services/index.ts";
import { callOf, executorOf, never, textOf, toolOf } from "./helpers.ts";

async function kafkaBus(servers: string): Promise<KafkaBus> {
  const bus = new KafkaBus({ bootstrapServers: servers.split(",") });
  await bus.start();
  onTestFinished(() => bus.destroy(new Error("the test is over")));
  return bus;
}

/** A service on `topic` that answers with the payload it gets. */
async function echoing(bus: EventBus, topic: string): Promise<void> {
  await bus.subscribe(topic, `service-${topic}`, async ({ value }) => {
    const { reply_to, payload, ...ids } = JSON.parse(Buffer.from(value ?? []).toString()) as {
      readonly reply_to: string;
      readonly payload: unknown;
    };
    const answer = Buffer.from(JSON.stringify({ ...ids, success: true, payload }));
    await bus.publish(reply_to, { key: null, value: answer, headers: {} });
  });
}

const toolAt = (topic: string, more: Partial<Tool> = {}): Tool =>
  toolOf({ kind: "bus", topic, replyTopic: `${topic}.replies` }, more);

const asking = (bus: EventBus, tool: Tool) => executorOf([tool], { bus: new BusRequests(bus) });

describeWithKafka("a tool of kind bus, on Kafka", () => {
  test("gets its own answers, of two replicas that read one reply topic", async () => {
    const topic = `orders-${randomUUID()}`;
    const [service, one, two] = await Promise.all([1, 2, 3].map(() => kafkaBus(kafkaServers())));
    await echoing(service!, topic);
    const executors = [asking(one!, toolAt(topic)), asking(two!, toolAt(topic))];
    const results = await Promise.all(
      Array.from({ length: 200 }, (_, n) => executors[n % 2]!.call(callOf({ n }), never)),
    );
    expect(results.map(({ structuredContent }) => structuredContent)).toEqual(
      results.map((_result, n) => ({ n })),
    );
    await Promise.all(executors.map((executor) => executor.close()));
  }, 60_000);
});

describeWithOwnKafka("a tool of kind bus, while Kafka is away", () => {
  test("is unavailable or out of time, and answers again when Kafka is back", async () => {
    const kafka = await startKafka();
    onTestFinished(() => kafka.stop());
    const topic = `orders-${randomUUID()}`;
    const bus = await kafkaBus(kafka.bootstrapServers);
    await echoing(bus, topic);
    const executor = asking(bus, toolAt(topic, { timeoutSeconds: 5 }));
    const call = () => executor.call(callOf({ a: 1 }), never);
    expect((await call()).structuredContent).toEqual({ a: 1 });
    await kafka.kill();
    const failed = await call();
    expect(failed.failure?.retryable, textOf(failed)).toBe(true);
    await kafka.restart();
    await vi.waitFor(async () => expect((await call()).structuredContent).toEqual({ a: 1 }), {
      timeout: 40_000,
    });
    await executor.destroy(new InfraUnavailableError("The runtime is stopping."));
  }, 90_000);
});
