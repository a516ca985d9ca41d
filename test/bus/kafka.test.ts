import { describe, expect, test, vi } from "vitest";
import type { DeliveredMessage } from "../../src/bus/bus.ts";
import { KafkaBus } from "../../src/bus/kafka.ts";
import { silentLogger, type LogFields, type Logger } from "../../src/core/log.ts";
import { redact } from "../../src/core/redact.ts";
import { describeWithKafka, kafkaServers } from "../services/index.ts";
import { busSuite } from "../suites/bus.ts";
import { makeBus, read, startedBus, text, uniqueTopic, withAdmin } from "./kafka.ts";

const soon = { timeout: 15_000 };

describeWithKafka("the Kafka bus", () => {
  busSuite("kafka", (options) => new KafkaBus({ bootstrapServers: kafkaServers().split(","), ...options }));

  describe("a new group", () => {
    test("gets every message that is published once subscribing resolved, and none from before", async () => {
      const topic = uniqueTopic();
      const publisher = await startedBus();
      await publisher.publish(topic, text("k", "before"));
      for (let round = 0; round < 5; round += 1) {
        const bus = await startedBus();
        const got: string[] = [];
        await bus.subscribe(topic, `${topic}.${round}`, async (message) => void got.push(read(message)));
        const sent = Array.from({ length: 20 }, (_, index) => `${round} ${index}`);
        await Promise.all(sent.map((value, index) => publisher.publish(topic, text(`k${index}`, value))));
        await vi.waitFor(() => expect(got.toSorted()).toEqual(sent.toSorted()), soon);
        await bus.close();
      }
    });

    test("that a second member joins misses nothing that came while partitions moved", async () => {
      const topic = uniqueTopic();
      const [first, second, publisher] = [await startedBus(), await startedBus(), await startedBus()];
      const got: string[] = [];
      const take = async (message: { value: Uint8Array | null }): Promise<void> =>
        void got.push(read(message));
      await first.subscribe(topic, topic, take);
      const sent: string[] = [];
      const joined = new AbortController();
      const joining = second.subscribe(topic, topic, take).then(() => joined.abort());
      const publishUntil = async (signal: AbortSignal): Promise<void> => {
        while (!signal.aborted) {
          sent.push(`m${sent.length}`);
          await publisher.publish(topic, text(`k${sent.length}`, sent.at(-1)!));
        }
      };
      await publishUntil(joined.signal);
      await joining;
      await vi.waitFor(() => expect(new Set(got)).toEqual(new Set(sent)), soon);
    });
  });

  test("keeps the order of each of 50 keys while 32 messages run at once, in any order across keys", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ partitions: 4 });
    const byKey = new Map<string, number[]>();
    let running = 0;
    let most = 0;
    await bus.subscribe(topic, topic, async (message) => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 4));
      byKey.set(message.key!, [...(byKey.get(message.key!) ?? []), Number(read(message))]);
      running -= 1;
    });
    await Promise.all(
      Array.from({ length: 2000 }, (_, index) => bus.publish(topic, text(`k${index % 50}`, String(index)))),
    );
    await vi.waitFor(() => expect([...byKey.values()].flat()).toHaveLength(2000), soon);
    for (const order of byKey.values()) expect(order).toEqual(order.toSorted((a, b) => a - b));
    expect(most).toBeGreaterThan(8);
    expect(most).toBeLessThanOrEqual(32);
  });

  test("takes no more than it can hold while handlers are stuck, and all of it afterwards", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ partitions: 1, concurrency: 10_000 });
    const gate = Promise.withResolvers<undefined>();
    let begun = 0;
    let done = 0;
    await bus.subscribe(topic, topic, async () => {
      begun += 1;
      await gate.promise;
      done += 1;
    });
    const value = "x".repeat(1000);
    for (let sent = 0; sent < 12_000; sent += 500) {
      await Promise.all(Array.from({ length: 500 }, () => bus.publish(topic, text(null, value))));
    }
    await vi.waitFor(() => expect(begun).toBeGreaterThanOrEqual(2000), soon);
    // The batches that were on their way when the limit was reached are taken.
    expect(begun).toBeLessThan(8000);
    gate.resolve(undefined);
    await vi.waitFor(() => expect(done).toBe(12_000), soon);
  });

  describe("what was not handled", () => {
    test("is delivered to the next member, from the first that was not done", async () => {
      const topic = uniqueTopic();
      const bus = await startedBus({ partitions: 1 });
      const first = await startedBus();
      const stuck = Promise.withResolvers<undefined>();
      const begun: string[] = [];
      await first.subscribe(topic, topic, async (message, signal) => {
        begun.push(read(message));
        if (read(message) !== "2") return;
        await Promise.race([
          stuck.promise,
          new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("stopped")))),
        ]);
      });
      for (const value of ["1", "2", "3", "4"]) await bus.publish(topic, text(`k${value}`, value));
      await vi.waitFor(() => expect(begun.toSorted()).toEqual(["1", "2", "3", "4"]), soon);
      await first.destroy(new Error("killed"));
      const again: string[] = [];
      const second = await startedBus();
      await second.subscribe(topic, topic, async (message) => void again.push(read(message)));
      await bus.publish(topic, text("k5", "5"));
      await vi.waitFor(() => expect(again).toContain("5"), soon);
      // "1" may be there where the first died before it committed.
      expect(again.filter((value) => value !== "1").toSorted()).toEqual(["2", "3", "4", "5"]);
    });

    test("what was handled before an orderly end is not delivered again, what ran until its end neither", async () => {
      const topic = uniqueTopic();
      const bus = await startedBus();
      const got: string[] = [];
      for (let round = 0; round < 4; round += 1) {
        const member = await startedBus();
        const leave = await member.subscribe(topic, topic, async (message) => {
          await new Promise((resolve) => setTimeout(resolve, 20));
          got.push(read(message));
        });
        await Promise.all(
          Array.from({ length: 10 }, (_, index) =>
            bus.publish(topic, text(`k${index}`, `${round} ${index}`)),
          ),
        );
        await vi.waitFor(() => expect(got.length).toBeGreaterThan(round * 10), soon);
        await (round % 2 === 0 ? leave() : member.close());
      }
      const last = await startedBus();
      await last.subscribe(topic, topic, async (message) => void got.push(read(message)));
      await vi.waitFor(() => expect(new Set(got).size).toBe(40), soon);
      expect(got).toHaveLength(40);
    });

    test("a message that was aborted at the end of a subscription is no dead letter and comes again", async () => {
      const topic = uniqueTopic();
      const environment = topic.slice(5);
      const bus = await startedBus({ environment });
      const letters: string[] = [];
      await bus.subscribe(
        `${environment}.dlq.events.v1`,
        topic,
        async (message) => void letters.push(read(message)),
      );
      const began = Promise.withResolvers<undefined>();
      const leave = await bus.subscribe(topic, topic, async (_message, signal) => {
        began.resolve(undefined);
        await new Promise((_, reject) =>
          signal.addEventListener("abort", () => reject(new Error("stopped"))),
        );
      });
      await bus.publish(topic, text("k", "again"));
      await began.promise;
      await leave(AbortSignal.abort(new Error("enough")));
      const got: string[] = [];
      await bus.subscribe(topic, topic, async (message) => void got.push(read(message)));
      await vi.waitFor(() => expect(got).toEqual(["again"]), soon);
      expect(letters).toEqual([]);
    });
  });

  test("members that come and go lose no message, and keep the order of each key", async () => {
    const topic = uniqueTopic();
    const publisher = await startedBus({ partitions: 6 });
    const seen = new Map<string, number[]>();
    const join = async () => {
      const bus = await startedBus();
      await bus.subscribe(topic, topic, async (message) => {
        await new Promise((resolve) => setTimeout(resolve, 1));
        seen.set(message.key!, [...(seen.get(message.key!) ?? []), Number(read(message))]);
      });
      return bus;
    };
    const members = [await join()];
    let sent = 0;
    const enough = new AbortController();
    const publishUntil = async (signal: AbortSignal): Promise<void> => {
      while (!signal.aborted) {
        await publisher.publish(topic, text(`k${sent % 20}`, String(sent)));
        sent += 1;
      }
    };
    const load = publishUntil(enough.signal);
    members.push(await join());
    members.push(await join());
    await members.shift()!.close();
    members.push(await join());
    await members.shift()!.destroy(new Error("killed"));
    await members.shift()!.close();
    enough.abort();
    await load;
    const all = Array.from({ length: sent }, (_, index) => index);
    await vi.waitFor(
      () => expect([...new Set([...seen.values()].flat())].toSorted((a, b) => a - b)).toEqual(all),
      { timeout: 25_000 },
    );
    for (const order of seen.values()) {
      // First deliveries, in publishing order; a message may come again.
      const first = [...new Set(order)];
      expect(first).toEqual(first.toSorted((a, b) => a - b));
    }
  }, 60_000);

  test("a group reads the partitions that it has offsets for and those that were added since", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ partitions: 1 });
    const got: string[] = [];
    const take = async (message: DeliveredMessage): Promise<void> => void got.push(read(message));
    const leave = await bus.subscribe(topic, topic, take);
    await bus.publish(topic, text("k", "first"));
    await vi.waitFor(() => expect(got).toEqual(["first"]), soon);
    await leave();
    await withAdmin((admin) => admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] }));
    const next = await startedBus();
    await next.subscribe(topic, topic, take);
    const sent = Array.from({ length: 30 }, (_, index) => `m${index}`);
    await Promise.all(sent.map((value) => next.publish(topic, text(value, value))));
    await vi.waitFor(() => expect(got.slice(1).toSorted()).toEqual(sent.toSorted()), soon);
  });

  test("a member that joins takes nothing from handlers that run: none is aborted, none runs again", async () => {
    const topic = uniqueTopic();
    const [first, second] = [await startedBus({ partitions: 4, concurrency: 100 }), await startedBus()];
    const begun: string[] = [];
    let [ended, aborted] = [0, 0];
    const take = async (message: DeliveredMessage, signal: AbortSignal): Promise<void> => {
      begun.push(read(message));
      // Longer than it takes a member to hear of the other one.
      await new Promise((resolve) => setTimeout(resolve, 2500));
      if (signal.aborted) aborted += 1;
      ended += 1;
    };
    await first.subscribe(topic, topic, take);
    const sent = Array.from({ length: 40 }, (_, index) => `m${index}`);
    await Promise.all(sent.map((value) => first.publish(topic, text(value, value))));
    await vi.waitFor(() => expect(begun).toHaveLength(40), soon);
    await second.subscribe(topic, topic, take);
    await vi.waitFor(() => expect(ended).toBe(begun.length), soon);
    // Whatever was not committed would begin again, with the next message of its partition at the latest.
    await Promise.all(sent.map((value) => first.publish(topic, text(value, "last"))));
    await vi.waitFor(() => expect(begun.filter((value) => value === "last")).toHaveLength(40), soon);
    expect(begun).toHaveLength(2 * sent.length);
    expect(aborted).toBe(0);
  });

  test("the library does not ask idle connections once a millisecond whether requests wait", async () => {
    const timers = vi.spyOn(globalThis, "setTimeout");
    const bus = await startedBus();
    await bus.publish(uniqueTopic(), text("k", "x"));
    await bus.close();
    const delays = timers.mock.calls.map(([, delay]) => delay ?? 0);
    timers.mockRestore();
    expect(delays.length).toBeGreaterThan(0);
    expect(delays.filter((delay) => delay < 0)).toEqual([]);
  });

  describe("a topic that is absent", () => {
    test("is made by whoever publishes first, with the partitions that were asked for", async () => {
      const topic = uniqueTopic();
      const bus = await startedBus({ partitions: 5 });
      await bus.publish(topic, text("k", "x"));
      const seen = new Set<number>();
      const following = await bus.follow(topic, {
        replay: true,
        onMessages: (messages) => messages.forEach(({ partition }) => seen.add(partition)),
      });
      await Promise.all(
        Array.from({ length: 100 }, (_, index) => bus.publish(topic, text(`k${index}`, "x"))),
      );
      await vi.waitFor(() => expect([...seen].toSorted()).toEqual([0, 1, 2, 3, 4]), soon);
      await following.close();
    });

    test("is waited for by a follower that may not make it, told by health, and is no crash", async () => {
      const topic = uniqueTopic();
      const bus = await startedBus();
      const got: string[] = [];
      const following = bus.follow(topic, {
        replay: true,
        onMessages: (messages) => void got.push(...messages.map(read)),
      });
      await vi.waitFor(() => expect(bus.health().detail).toContain(`topic ${topic} does not exist`), soon);
      expect(bus.health().healthy).toBe(false);
      await (await startedBus()).publish(topic, text("k", "now"));
      await (
        await following
      ).caughtUp;
      await vi.waitFor(() => expect(got).toEqual(["now"]), soon);
      expect(bus.health()).toEqual({ healthy: true, type: "kafka" });
    });

    test("that was deleted does not spoil publishing to others, and is made anew", async () => {
      const [gone, other] = [uniqueTopic(), uniqueTopic()];
      const bus = await startedBus();
      await bus.publish(gone, text("k", "x"));
      await bus.publish(other, text("k", "x"));
      await withAdmin((admin) => admin.deleteTopics({ topics: [gone] }));
      await bus.publish(other, text("k", "y"));
      await bus.publish(gone, text("k", "y"));
    });
  });

  test("waiting for a topic ends with the signal, and with the bus", async () => {
    const bus = await startedBus();
    const abort = new AbortController();
    const options = { replay: true, onMessages: () => undefined };
    const first = bus.follow(uniqueTopic(), options, abort.signal);
    const second = bus.follow(uniqueTopic(), options);
    const outcomes = Promise.allSettled([first, second]);
    abort.abort(new Error("enough"));
    await bus.close();
    const [one, two] = await outcomes;
    expect(one).toMatchObject({ status: "rejected", reason: { message: "enough" } });
    expect(two).toMatchObject({ status: "rejected", reason: { message: "the event bus is closed" } });
  });

  test("a message that is larger than the topic takes is refused with the remedy; the next one goes through", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus();
    await bus.publish(topic, text("k", "x"));
    await expect(bus.publish(topic, text("k", "x".repeat(2_000_000)))).rejects.toThrow(
      /larger than the max message size.*raise max\.message\.bytes/,
    );
    await bus.publish(topic, text("k", "y"));
    expect(bus.health().healthy).toBe(true);
  });

  test("a dead letter that would be too large leaves the value out and says so", async () => {
    const topic = uniqueTopic();
    const environment = topic.slice(5);
    const bus = await startedBus({ environment });
    const letters: { original_message: Record<string, unknown> }[] = [];
    await bus.subscribe(`${environment}.dlq.events.v1`, topic, async (message) => {
      letters.push(JSON.parse(read(message)));
    });
    await bus.subscribe(topic, topic, async () => {
      throw new Error("cannot");
    });
    // In base64 it exceeds what the topic takes.
    await bus.publish(topic, { key: "k", value: new Uint8Array(900_000).fill(0xff), headers: {} });
    await vi.waitFor(() => expect(letters).toHaveLength(1), soon);
    expect(letters[0]?.original_message).toMatchObject({ key: "k", value: null, value_omitted: true });
  });

  test("a message that failed is told in the log by its key, which is not redacted there", async () => {
    const topic = uniqueTopic();
    const lines: LogFields[] = [];
    const log: Logger = { ...silentLogger, error: (fields) => void lines.push(fields) };
    const bus = await startedBus({ environment: topic.slice(5), log });
    await bus.subscribe(topic, topic, async () => {
      throw new Error("cannot");
    });
    await bus.publish(topic, text("orders-1", "x"));
    await vi.waitFor(() => expect(lines).toHaveLength(1), soon);
    expect(redact(lines[0])).toMatchObject({
      topic,
      offset: "0",
      keyed_by: "orders-1",
      dead_letter: { original_message: { keyed_by: "orders-1" } },
    });
    expect(JSON.stringify(redact({ ...lines[0], err: "" }))).not.toContain("redacted");
  });

  test("a dead letter that no topic will ever take never blocks the next message: it is logged and counted", async () => {
    const topic = uniqueTopic();
    const environment = topic.replace(".", "-");
    const lines: Record<string, unknown>[] = [];
    const log: Logger = {
      ...silentLogger,
      error: (fields, message) => void lines.push({ ...fields, message }),
    };
    const bus = await startedBus({ environment, partitions: 1, concurrency: 1, log });
    // Brokers refuse a topic that differs from another one by dots and underscores only.
    await bus.publish(`${environment}_dlq.events.v1`, text("k", "x"));
    const got: string[] = [];
    await bus.subscribe(topic, topic, async (message) => {
      if (read(message) === "secret") throw new Error("cannot");
      got.push(read(message));
    });
    await bus.publish(topic, text("k", "secret"));
    await bus.publish(topic, text("k", "next"));
    await vi.waitFor(() => expect(got).toEqual(["next"]), soon);
    expect(bus.health()).toEqual({
      healthy: true,
      type: "kafka",
      detail: `${topic}: 1 dead letters are in the log only: their topic does not take them`,
    });
    const line = lines.find(({ message }) => String(message).startsWith("A dead letter cannot be put on"));
    expect(line).toMatchObject({
      topic,
      partition: 0,
      offset: "0",
      error: expect.stringContaining(`${environment}.dlq.events.v1`),
      dead_letter: { failure_reason: "cannot" },
    });
    expect(JSON.stringify(lines)).not.toContain("secret");
    await vi.waitFor(async () => {
      const [found] = await withAdmin((admin) => admin.fetchOffsets({ groupId: topic, topics: [topic] }));
      expect(found?.partitions).toMatchObject([{ offset: "2" }]);
    }, soon);
  });

  test("a dead letter that is too large without the message's value, too, is logged and blocks nothing", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ environment: topic, partitions: 1, concurrency: 1 });
    const got: string[] = [];
    await bus.subscribe(topic, topic, async (message) => {
      if (read(message) === "bad") throw new Error("cannot");
      got.push(read(message));
    });
    // The letter has the key twice.
    await bus.publish(topic, text("k".repeat(700_000), "bad"));
    await bus.publish(topic, text("k", "next"));
    await vi.waitFor(() => expect(got).toEqual(["next"]), soon);
    expect(bus.health().detail).toContain("1 dead letters are in the log only");
  });

  test("a group whose other members share partitions out differently is waited for, told by health, and joined", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus();
    await bus.publish(topic, text("k", "x"));
    const { Kafka, logLevel } = await import("kafkajs");
    const stranger = new Kafka({ brokers: kafkaServers().split(","), logLevel: logLevel.NOTHING }).consumer({
      groupId: topic,
    });
    await stranger.connect();
    await stranger.subscribe({ topic });
    await stranger.run({ eachMessage: async () => undefined });
    const got: string[] = [];
    const subscribing = bus.subscribe(topic, topic, async (message) => void got.push(read(message)));
    await vi.waitFor(() => expect(bus.health().detail).toContain(`${topic}: reading begins anew`), soon);
    await stranger.disconnect();
    await subscribing;
    await bus.publish(topic, text("k", "y"));
    await vi.waitFor(() => expect(got).toContain("y"), soon);
    expect(bus.health().healthy).toBe(true);
  });

  test("acks of 1 and of 0 publish as well", async () => {
    const topic = uniqueTopic();
    const got: string[] = [];
    const bus = await startedBus({ acks: 1 });
    await bus.subscribe(topic, topic, async (message) => void got.push(read(message)));
    await bus.publish(topic, text("k", "one"));
    await (await startedBus({ acks: 0 })).publish(topic, text("k", "none"));
    await vi.waitFor(() => expect(got.toSorted()).toEqual(["none", "one"]), soon);
  });

  test("closing before it is started, and starting after that", async () => {
    const bus = makeBus();
    await bus.close();
    await expect(bus.start()).rejects.toThrow(/closed/);
  });
});
