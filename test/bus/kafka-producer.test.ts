/** What the producer remembers, and when it tries again: on a library that only counts, or fails when told to. */
import { expect, onTestFinished, test, vi } from "vitest";
import type { Library } from "../../src/bus/kafka-link.ts";
import { resolveKafkaOptions, type KafkaBusOptions } from "../../src/bus/kafka-options.ts";
import { KafkaProducer } from "../../src/bus/kafka-producer.ts";
import { KafkaReach } from "../../src/bus/kafka-reach.ts";
import type { KafkaTopics } from "../../src/bus/kafka-topics.ts";
import { silentLogger } from "../../src/core/log.ts";
import { text } from "./kafka.ts";

function setUp(options: Partial<KafkaBusOptions> = {}) {
  /** The number of the client that sent each message. */
  const senders: number[] = [];
  let clients = 0;
  const send = vi.fn(() => Promise.resolve());
  const have = vi.fn((_topic: string) => Promise.resolve());
  const reachTopic = vi.fn((_topic?: string) => Promise.resolve());
  class Kafka {
    producer(): unknown {
      clients += 1;
      const id = clients;
      return {
        connect: () => Promise.resolve(),
        disconnect: () => Promise.resolve(),
        send: () => {
          senders.push(id);
          return send();
        },
      };
    }
  }
  const library = { Kafka, Partitioners: {} } as unknown as Library;
  const reach = new KafkaReach(silentLogger);
  const bootstrapServers = ["127.0.0.1:9"];
  const producer = new KafkaProducer(
    { library, clientId: "test", servers: bootstrapServers, security: {}, write: () => undefined, reach },
    resolveKafkaOptions({ publishRetries: 0, bootstrapServers, ...options }),
    { have, reach: reachTopic } as unknown as KafkaTopics,
  );
  onTestFinished(() => producer.destroy(new Error("the test is over")));
  return { producer, reach, send, have, senders, reachTopic };
}

test("of more topics than it remembers, one that is used stays known, and one used long ago is looked at anew", async () => {
  const { producer, have } = setUp();
  const publish = (topic: string): Promise<void> => producer.publish(topic, text("k", "x"));
  await publish("forgotten");
  await publish("used");
  for (let index = 0; index < 999; index += 1) {
    await publish(`replies.${index}`);
    await publish("used");
  }
  have.mockClear();
  await publish("used");
  await publish("replies.998");
  expect(have).not.toHaveBeenCalled();
  await publish("forgotten");
  expect(have.mock.calls.map(([topic]) => topic)).toEqual(["forgotten"]);
});

test("the library, which forgets no topic, gets a new client after as many topics, and not for one that comes often", async () => {
  const { producer, senders } = setUp();
  for (let index = 0; index < 999; index += 1) await producer.publish(`replies.${index}`, text("k", "x"));
  for (let index = 0; index < 999; index += 1) await producer.publish("replies.0", text("k", "x"));
  expect(new Set(senders)).toEqual(new Set([1]));
  for (let index = 0; index < 1001; index += 1) await producer.publish(`more.${index}`, text("k", "x"));
  expect(senders.slice(-1001)).toEqual([1, ...Array.from({ length: 1000 }, () => 2)]);
});

test("an open breaker lets one message through when anything on the bus reaches a broker again, and no second one", async () => {
  const { producer, reach, send } = setUp({ circuitBreakerThreshold: 1, circuitBreakerResetSeconds: 3600 });
  const publish = (): Promise<void> => producer.publish("t", text("k", "x"));
  await publish();
  send.mockRejectedValueOnce(new Error("connection lost"));
  await expect(publish()).rejects.toThrow("connection lost");
  await expect(publish()).rejects.toThrow("circuit breaker is open");
  const arrived = Promise.withResolvers<undefined>();
  send.mockReturnValueOnce(arrived.promise);
  reach.answered({});
  const trial = publish();
  await expect(publish()).rejects.toThrow("half-open and all its trial calls are in use");
  arrived.resolve(undefined);
  await trial;
  await Promise.all([publish(), publish()]);
});

test("a trial that fails opens the breaker for its whole time, whatever brokers answer meanwhile", async () => {
  const { producer, reach, send } = setUp({ circuitBreakerThreshold: 1, circuitBreakerResetSeconds: 3600 });
  const publish = (): Promise<void> => producer.publish("t", text("k", "x"));
  await publish();
  send.mockRejectedValueOnce(new Error("lost")).mockRejectedValueOnce(new Error("lost once more"));
  await expect(publish()).rejects.toThrow("lost");
  reach.answered({});
  await expect(publish()).rejects.toThrow("lost once more");
  reach.answered({});
  await expect(publish()).rejects.toThrow("circuit breaker is open");
});

test("each outage may end early: a message that got through ends the one before", async () => {
  const { producer, reach, send } = setUp({ circuitBreakerThreshold: 1, circuitBreakerResetSeconds: 3600 });
  const publish = (): Promise<void> => producer.publish("t", text("k", "x"));
  await publish();
  for (let outage = 0; outage < 2; outage += 1) {
    send.mockRejectedValueOnce(new Error("lost"));
    await expect(publish()).rejects.toThrow("lost");
    await expect(publish()).rejects.toThrow("circuit breaker is open");
    reach.answered({});
    await publish();
  }
});

test("a topic whose leader does not answer is a problem until it does, whatever other brokers answer", async () => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const { producer, reach, send, reachTopic } = setUp();
  const publish = (): Promise<void> => producer.publish("t", text("k", "x"));
  await publish();
  let isLeaderThere = false;
  reachTopic.mockImplementation(async (topic) => {
    reach.answered({});
    await Promise.resolve();
    if (topic === "t" && !isLeaderThere) throw new Error("its leader is away");
  });
  send.mockRejectedValueOnce(new Error("connection lost"));
  await expect(publish()).rejects.toThrow("connection lost");
  await vi.advanceTimersByTimeAsync(20_000);
  expect(producer.problem).toContain("connection lost");
  isLeaderThere = true;
  await vi.advanceTimersByTimeAsync(5000);
  expect(producer.problem).toBeUndefined();
});
