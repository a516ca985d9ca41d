import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { KafkaBus, KafkaBusOptions } from "../../src/bus/kafka.ts";
import { silentLogger, type Logger } from "../../src/core/log.ts";
import { describeWithOwnKafka, startKafka, type Kafka } from "../services/index.ts";
import { deadServer, makeBus, read, startedBus, text, uniqueTopic } from "./kafka.ts";

const soon = { timeout: 20_000 };
/** Quick to notice, and to try again. */
const brief = { publishRetries: 1, retryBackoffBaseSeconds: 0.05, circuitBreakerResetSeconds: 0.2 };

test("without a broker the bus starts, says so, fails publishing at once when its breaker opens, and closes", async () => {
  const lines: string[] = [];
  const log: Logger = { ...silentLogger, warn: (_fields, message) => void lines.push(message) };
  const server = await deadServer();
  const bus = makeBus({
    ...brief,
    bootstrapServers: [server],
    circuitBreakerThreshold: 3,
    circuitBreakerResetSeconds: 60,
    log,
  });
  await bus.start();
  expect(bus.health()).toMatchObject({
    healthy: false,
    type: "kafka",
    detail: expect.stringMatching(/no Kafka broker could be reached since \d{4}-/),
  });
  expect(lines.filter((line) => line.startsWith("Kafka is not reached: "))).toHaveLength(1);
  await expect(bus.publish("t", text("k", "x"))).rejects.toMatchObject({
    name: "InfraConnectionError",
    retryable: true,
    facts: { transport: "kafka", target: "t" },
  });
  // The third failure in a row.
  await expect(bus.publish("t", text("k", "x"))).rejects.toThrow(/circuit breaker is open; retry after 60 s/);
  expect(bus.health().detail).toContain("the circuit breaker is open");
  const waiting = bus.subscribe("t", "g", async () => undefined);
  const outcome = expect(waiting).rejects.toThrow("the event bus is closed");
  await vi.waitFor(() => expect(bus.health().detail).toContain("brokers are not reached"), soon);
  await bus.close();
  await outcome;
});

test("what waits for brokers is ended by destroy as well", async () => {
  const bus = makeBus({ ...brief, bootstrapServers: [await deadServer()] });
  await bus.start();
  const outcomes = Promise.allSettled([
    bus.subscribe("t", "g", async () => undefined),
    bus.follow("t", { replay: true, onMessages: () => undefined }),
    bus.publish("t", text("k", "x")),
  ]);
  await bus.destroy(new Error("enough"));
  for (const outcome of await outcomes) expect(outcome.status).toBe("rejected");
});

describeWithOwnKafka("brokers that go away", () => {
  let kafka: Kafka;
  beforeAll(async () => {
    kafka = await startKafka();
  }, 120_000);
  afterAll(() => kafka.stop());

  test("and come back: subscribers and followers go on without loss, publishing too, and nothing crashed", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ ...brief, bootstrapServers: [kafka.bootstrapServers], partitions: 3 });
    const got: string[] = [];
    const followed: string[] = [];
    await bus.subscribe(topic, topic, async (message) => void got.push(read(message)));
    const following = await bus.follow(topic, {
      replay: true,
      onMessages: (messages) => void followed.push(...messages.map(read)),
    });
    const sent: string[] = [];
    const publish = async (value: string): Promise<void> => {
      await vi.waitFor(() => bus.publish(topic, text(value, value)), soon);
      sent.push(value);
    };
    for (let index = 0; index < 20; index += 1) await publish(`before ${index}`);
    for (let round = 0; round < 2; round += 1) {
      await kafka.kill();
      await vi.waitFor(() => expect(bus.health().healthy).toBe(false), soon);
      expect(bus.health().detail).toMatch(/no Kafka broker is reached since/);
      expect(following.status().healthy).toBe(false);
      await expect(bus.publish(topic, text("k", "lost"))).rejects.toThrow();
      await kafka.restart();
      for (let index = 0; index < 20; index += 1) await publish(`${round} after ${index}`);
      await vi.waitFor(() => {
        expect(new Set(got)).toEqual(new Set(sent));
        expect(new Set(followed)).toEqual(new Set(sent));
      }, soon);
      await vi.waitFor(() => expect(bus.health()).toEqual({ healthy: true, type: "kafka" }), soon);
    }
    // A follower keeps its own place: nothing came twice.
    expect(followed).toHaveLength(sent.length);
  }, 90_000);

  test("while messages are handled: they are committed later, and come once", async () => {
    const topic = uniqueTopic();
    const options = { ...brief, bootstrapServers: [kafka.bootstrapServers], partitions: 1 };
    const bus = await startedBus(options);
    const gate = Promise.withResolvers<undefined>();
    const got: string[] = [];
    let begun = 0;
    await bus.subscribe(topic, topic, async (message) => {
      begun += 1;
      await gate.promise;
      got.push(read(message));
    });
    for (let index = 0; index < 10; index += 1) await bus.publish(topic, text(`k${index}`, String(index)));
    await vi.waitFor(() => expect(begun).toBe(10), soon);
    await kafka.kill();
    gate.resolve(undefined);
    await vi.waitFor(() => expect(got).toHaveLength(10), soon);
    await kafka.restart();
    await vi.waitFor(() => bus.publish(topic, text("k", "last")), soon);
    await vi.waitFor(() => expect(got).toContain("last"), soon);
    // The same process had them: they are not handled twice.
    expect(got).toHaveLength(11);
    await bus.close();
    const next = await startedBus(options);
    const again: string[] = [];
    await next.subscribe(topic, topic, async (message) => void again.push(read(message)));
    await next.publish(topic, text("k", "new"));
    await vi.waitFor(() => expect(again).toEqual(["new"]), soon);
  }, 90_000);

  test("are waited for at the start, and then all is as if they had been there", async () => {
    await kafka.kill();
    const topic = uniqueTopic();
    const bus = await startedBus({ ...brief, bootstrapServers: [kafka.bootstrapServers] });
    const got: string[] = [];
    const subscribing = bus.subscribe(topic, topic, async (message) => void got.push(read(message)));
    await vi.waitFor(() => expect(bus.health().detail).toContain("brokers are not reached"), soon);
    await kafka.restart();
    await subscribing;
    await vi.waitFor(() => bus.publish(topic, text("k", "x")), soon);
    await vi.waitFor(() => expect(got).toEqual(["x"]), soon);
    await vi.waitFor(() => expect(bus.health().healthy).toBe(true), soon);
  }, 60_000);

  test("hold up neither close nor destroy while handlers run", async () => {
    const topic = uniqueTopic();
    const options = { ...brief, bootstrapServers: [kafka.bootstrapServers] };
    for (const end of ["close", "destroy"] as const) {
      const bus = await startedBus(options);
      const began = Promise.withResolvers<undefined>();
      const gate = Promise.withResolvers<undefined>();
      await bus.subscribe(topic, `${topic}.${end}`, async () => {
        began.resolve(undefined);
        await gate.promise;
      });
      await bus.follow(topic, { replay: true, onMessages: () => undefined });
      await bus.publish(topic, text("k", "x"));
      await began.promise;
      await kafka.kill();
      const ended = end === "close" ? bus.close() : bus.destroy(new Error("enough"));
      if (end === "close") gate.resolve(undefined);
      await ended;
      expect(bus.health().healthy).toBe(false);
      await kafka.restart();
    }
  }, 90_000);

  test("let publishing go on as soon as they are back, whatever time its breaker has left", async () => {
    const topic = uniqueTopic();
    const options = { ...brief, circuitBreakerThreshold: 1, circuitBreakerResetSeconds: 3600 };
    const bus = await startedBus({ ...options, bootstrapServers: [kafka.bootstrapServers] });
    await bus.subscribe(topic, topic, async () => undefined);
    await bus.publish(topic, text("k", "x"));
    await kafka.kill();
    await vi.waitFor(
      () => expect(bus.publish(topic, text("k", "x"))).rejects.toThrow("circuit breaker is open"),
      soon,
    );
    await kafka.restart();
    await vi.waitFor(() => bus.publish(topic, text("k", "x")), soon);
  }, 60_000);

  test("and come back while a subscription drains let it end as soon as what it handles can be published", async () => {
    const [topic, answers] = [uniqueTopic(), uniqueTopic()];
    const bus = await startedBus({
      ...brief,
      circuitBreakerThreshold: 1,
      circuitBreakerResetSeconds: 3600,
      bootstrapServers: [kafka.bootstrapServers],
      partitions: 1,
    });
    const [began, refused, gate] = [0, 1, 2].map(() => Promise.withResolvers<undefined>());
    // Publishes for as long as it takes, as who answers an envelope does.
    const end = await bus.subscribe(topic, topic, async (message) => {
      began!.resolve(undefined);
      await gate!.promise;
      await vi.waitFor(
        async () => {
          try {
            await bus.publish(answers, message);
          } catch (thrown) {
            if (String(thrown).includes("circuit breaker is open")) refused!.resolve(undefined);
            throw thrown;
          }
        },
        { timeout: 60_000, interval: 100 },
      );
    });
    await bus.publish(answers, text("k", "first"));
    await bus.publish(topic, text("k", "x"));
    await began!.promise;
    const ended = end();
    await kafka.kill();
    gate!.resolve(undefined);
    await refused!.promise;
    await kafka.restart();
    await ended;
    // It was committed as well: nobody gets it again.
    const next = await startedBus({ ...brief, bootstrapServers: [kafka.bootstrapServers] });
    const again: string[] = [];
    await next.subscribe(topic, topic, async (message) => void again.push(read(message)));
    await vi.waitFor(() => next.publish(topic, text("k", "new")), soon);
    await vi.waitFor(() => expect(again).toEqual(["new"]), soon);
  }, 60_000);

  test("are healthy again when they are back, also on a bus that only publishes, and not now", async () => {
    const bus = await startedBus({ ...brief, bootstrapServers: [kafka.bootstrapServers] });
    const topic = uniqueTopic();
    await bus.publish(topic, text("k", "x"));
    await kafka.kill();
    await expect(bus.publish(topic, text("k", "x"))).rejects.toThrow();
    expect(bus.health()).toMatchObject({
      healthy: false,
      detail: expect.stringContaining("no Kafka broker could be reached since"),
    });
    await kafka.restart();
    await vi.waitFor(() => expect(bus.health()).toEqual({ healthy: true, type: "kafka" }), soon);
  }, 60_000);

  /** A bus with a message whose handler failed while the brokers were away, so that its dead letter waits for them. */
  async function busWithLateLetter(topic: string, options: Partial<KafkaBusOptions>): Promise<KafkaBus> {
    const bus = await startedBus(options);
    const [began, gate] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
    await bus.subscribe(topic, topic, async () => {
      began.resolve(undefined);
      await gate.promise;
      throw new Error("cannot");
    });
    await bus.publish(topic, text("k", "bad"));
    await began.promise;
    await kafka.kill();
    gate.resolve(undefined);
    await vi.waitFor(() => expect(bus.health().detail).toContain("dead letters cannot be published"), soon);
    return bus;
  }

  test("a dead letter that cannot be published is tried until it can, and its message is not committed before", async () => {
    const topic = uniqueTopic();
    const environment = topic.slice(5);
    const options = { ...brief, bootstrapServers: [kafka.bootstrapServers], environment, partitions: 1 };
    const bus = await busWithLateLetter(topic, options);
    await kafka.restart();
    const letters: string[] = [];
    await bus.follow(`${environment}.dlq.events.v1`, {
      replay: true,
      create: { partitions: 1, compacted: false },
      onMessages: (messages) => void letters.push(...messages.map(read)),
    });
    await vi.waitFor(() => expect(letters.length).toBeGreaterThan(0), soon);
    expect(JSON.parse(letters[0]!)).toMatchObject({ original_message: { value: "bad" } });
    await vi.waitFor(() => expect(bus.health().healthy).toBe(true), soon);
  }, 60_000);

  test("a dead letter that cannot be published holds up no close; its message comes again", async () => {
    const topic = uniqueTopic();
    const options = { ...brief, bootstrapServers: [kafka.bootstrapServers], partitions: 1 };
    const bus = await busWithLateLetter(topic, options);
    await bus.close();
    await kafka.restart();
    const got: string[] = [];
    const next = await startedBus(options);
    await next.subscribe(topic, topic, async (message) => void got.push(read(message)));
    await vi.waitFor(() => expect(got).toEqual(["bad"]), soon);
  }, 60_000);
});
