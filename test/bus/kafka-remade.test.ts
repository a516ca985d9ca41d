/** Topics that are deleted, and made anew, while they are read. */
import { Kafka, logLevel } from "kafkajs";
import { expect, test, vi } from "vitest";
import type { FollowedMessage } from "../../src/bus/bus.ts";
import type { KafkaBus } from "../../src/bus/kafka.ts";
import { describeWithKafka, kafkaServers } from "../services/index.ts";
import { read, startedBus, text, uniqueTopic, withAdmin } from "./kafka.ts";

const client = (): Kafka => new Kafka({ brokers: kafkaServers().split(","), logLevel: logLevel.NOTHING });
const soon = { timeout: 20_000 };
const create = { partitions: 1, compacted: true };

const isThere = (topic: string): Promise<boolean> =>
  withAdmin(async (admin) => (await admin.listTopics()).includes(topic));

async function remove(topic: string): Promise<void> {
  await withAdmin((admin) => admin.deleteTopics({ topics: [topic] }));
}

/** The name is free a moment after it was asked to be. */
async function make(topic: string, numPartitions = 1): Promise<void> {
  await vi.waitFor(
    () => withAdmin((admin) => admin.createTopics({ topics: [{ topic, numPartitions }] })),
    soon,
  );
}

/** Commits for the group with the topic's name, as a member of it that notes something beside the offset. */
async function commitAs(topic: string, offset: string, metadata: string): Promise<void> {
  const consumer = client().consumer({ groupId: topic });
  const joined = new Promise((resolve) => consumer.on("consumer.group_join", resolve));
  await consumer.connect();
  await consumer.subscribe({ topic });
  await consumer.run({ autoCommit: false, eachMessage: async () => undefined });
  await joined;
  await consumer.commitOffsets([{ topic, partition: 0, offset, metadata }]);
  await consumer.disconnect();
}

async function publishAll(bus: KafkaBus, topic: string, values: readonly string[]): Promise<void> {
  for (const value of values) await bus.publish(topic, text(value, value));
}

/** In one piece, so that the topic never is shorter than what was read of the one before. */
async function publishAtOnce(topic: string, values: readonly string[]): Promise<void> {
  const producer = client().producer();
  await producer.connect();
  await producer.send({ topic, messages: values.map((value) => ({ key: value, value })) });
  await producer.disconnect();
}

const numbered = (name: string, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${name} ${index}`);

/** Reads the topic as a subscriber and as a follower, each on a bus of its own. */
async function readers(topic: string, { remakes }: { readonly remakes: boolean }) {
  // More than a broker makes: it refuses.
  const partitions = remakes ? 1 : 20_000;
  const bus = await startedBus({ partitions });
  const [handled, followed]: [string[], FollowedMessage[]] = [[], []];
  await bus.subscribe(topic, topic, async (message) => void handled.push(read(message)));
  const followingBus = await startedBus();
  const following = await followingBus.follow(topic, {
    replay: true,
    ...(remakes && { create }),
    onMessages: (messages) => void followed.push(...messages),
  });
  return { bus, followingBus, following, handled, followed };
}

describeWithKafka("a topic that is deleted while it is read", () => {
  test("is made again, and read on", async () => {
    const topic = uniqueTopic();
    const { bus, followingBus, following, handled, followed } = await readers(topic, { remakes: true });
    await publishAll(bus, topic, numbered("before", 5));
    await vi.waitFor(() => expect([handled.length, followed.length]).toEqual([5, 5]), soon);
    await remove(topic);
    await vi.waitFor(() => expect(bus.health().detail).toContain(`topic ${topic}`), soon);
    await vi.waitFor(async () => expect(await isThere(topic)).toBe(true), soon);
    await vi.waitFor(() => {
      expect(bus.health()).toEqual({ healthy: true, type: "kafka" });
      expect(followingBus.health()).toEqual({ healthy: true, type: "kafka" });
      expect(following.status()).toEqual({ lag: 0, healthy: true });
    }, soon);
    const after = numbered("after", 3);
    await publishAll(await startedBus(), topic, after);
    await vi.waitFor(() => {
      expect(handled.slice(5).toSorted()).toEqual(after);
      expect(followed.slice(5).map(read)).toEqual(after);
    }, soon);
  }, 60_000);

  test("is waited for by name where it may not be made, and read from its beginning when it is there", async () => {
    const topic = uniqueTopic();
    await make(topic);
    const { bus, followingBus, following, handled, followed } = await readers(topic, { remakes: false });
    const publisher = await startedBus();
    await publishAll(publisher, topic, numbered("before", 5));
    await vi.waitFor(() => expect([handled.length, followed.length]).toEqual([5, 5]), soon);
    await remove(topic);
    await vi.waitFor(() => {
      expect(bus.health()).toMatchObject({
        healthy: false,
        detail: expect.stringContaining(`topic ${topic} does not exist and may not be created`),
      });
      expect(followingBus.health()).toMatchObject({
        healthy: false,
        detail: expect.stringContaining(`topic ${topic} does not exist`),
      });
      expect(following.status()).toMatchObject({
        healthy: false,
        detail: expect.stringContaining(`topic ${topic} does not exist`),
      });
    }, soon);
    await make(topic);
    const after = numbered("after", 8);
    await publishAll(publisher, topic, after);
    await vi.waitFor(() => {
      expect(handled.slice(5).toSorted()).toEqual(after);
      expect(followed.slice(5).map(read)).toEqual(after);
      expect(bus.health().healthy).toBe(true);
      expect(followingBus.health().healthy).toBe(true);
    }, soon);
  }, 60_000);

  test("and made anew at once loses nothing of what is published on the new one", async () => {
    const topic = uniqueTopic();
    await make(topic);
    const { handled, followed } = await readers(topic, { remakes: false });
    await publishAll(await startedBus(), topic, numbered("before", 5));
    await vi.waitFor(() => expect([handled.length, followed.length]).toEqual([5, 5]), soon);
    await remove(topic);
    await make(topic);
    const after = numbered("after", 40);
    await publishAtOnce(topic, after);
    await vi.waitFor(() => {
      expect(new Set(handled.slice(5))).toEqual(new Set(after));
      expect(new Set(followed.slice(5).map(read))).toEqual(new Set(after));
    }, soon);
    expect(followed.slice(5).some(({ isHistory }) => isHistory)).toBe(false);
  }, 60_000);

  test("what a group committed of the one before says nothing of the one that has its name now", async () => {
    const topic = uniqueTopic();
    await make(topic);
    const publisher = await startedBus();
    await publishAll(publisher, topic, numbered("new", 5));
    await commitAs(topic, "3", "topic_id=00000000000000000000000000000001");
    const handled: string[] = [];
    const bus = await startedBus();
    await bus.subscribe(topic, topic, async (message) => void handled.push(read(message)));
    await vi.waitFor(() => expect(handled.toSorted()).toEqual(numbered("new", 5)), soon);
    await bus.close();
    // What it committed of this one holds.
    const next = await startedBus();
    const again: string[] = [];
    await next.subscribe(topic, topic, async (message) => void again.push(read(message)));
    await publishAll(publisher, topic, ["last"]);
    await vi.waitFor(() => expect(again).toEqual(["last"]), soon);
  }, 60_000);
});
