import { describe, expect, test, vi } from "vitest";
import type { FollowedMessage } from "../../src/bus/bus.ts";
import { describeWithKafka } from "../services/index.ts";
import { read, startedBus, text, uniqueTopic, withAdmin } from "./kafka.ts";

const soon = { timeout: 15_000 };
const create = { partitions: 3, compacted: true };

/** The groups there are; with `client`, those that have a member of this client. */
const groups = (client?: string): Promise<string[]> =>
  withAdmin(async (admin) => {
    const ids = (await admin.listGroups()).groups.map(({ groupId }) => groupId);
    if (client === undefined) return ids;
    const described = (await admin.describeGroups(ids)).groups;
    return described
      .filter(({ members }) => members.some(({ clientId }) => clientId === client))
      .map(({ groupId }) => groupId);
  });

describeWithKafka("following a topic", () => {
  test("from its beginning: all of it, marked as history, before caughtUp; then what comes, in order", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ partitions: 3 });
    for (let index = 0; index < 30; index += 1)
      await bus.publish(topic, text(`k${index % 7}`, String(index)));
    const got: FollowedMessage[] = [];
    const following = await bus.follow(topic, {
      replay: true,
      onMessages: (messages) => void got.push(...messages),
    });
    await following.caughtUp;
    expect(
      got
        .map(read)
        .map(Number)
        .toSorted((a, b) => a - b),
    ).toEqual(Array.from({ length: 30 }, (_, index) => index));
    expect(got.every(({ isHistory }) => isHistory)).toBe(true);
    for (let index = 30; index < 40; index += 1)
      await bus.publish(topic, text(`k${index % 7}`, String(index)));
    await vi.waitFor(() => expect(got).toHaveLength(40), soon);
    expect(got.slice(30).some(({ isHistory }) => isHistory)).toBe(false);
    const byKey = Map.groupBy(got, ({ key }) => key);
    for (const messages of byKey.values()) {
      const order = messages.map(read).map(Number);
      expect(order).toEqual(order.toSorted((a, b) => a - b));
    }
    expect(following.status()).toEqual({ lag: 0, healthy: true });
  });

  test("from now on: nothing from before, and it has caught up at once", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus();
    await bus.publish(topic, text("k", "before"));
    const got: string[] = [];
    const following = await bus.follow(topic, {
      replay: false,
      onMessages: (messages) => void got.push(...messages.map(read)),
    });
    await following.caughtUp;
    await bus.publish(topic, text("k", "after"));
    await vi.waitFor(() => expect(got).toEqual(["after"]), soon);
  });

  test.each([true, false])(
    "misses none of 108 events published while it joins (replay: %s)",
    async (replay) => {
      const topic = uniqueTopic();
      const publisher = await startedBus({ partitions: 3 });
      await publisher.publish(topic, text("k", "first"));
      for (let round = 0; round < 3; round += 1) {
        const bus = await startedBus();
        const got: string[] = [];
        const joining = bus.follow(topic, {
          replay,
          onMessages: (messages) => void got.push(...messages.map(read)),
        });
        const before = Array.from({ length: 54 }, (_, index) => `${round} before ${index}`);
        for (const value of before) await publisher.publish(topic, text(value, value));
        await joining;
        const after = Array.from({ length: 54 }, (_, index) => `${round} after ${index}`);
        for (const value of after) await publisher.publish(topic, text(value, value));
        await vi.waitFor(() => expect(got).toEqual(expect.arrayContaining(after)), soon);
        // Whatever came since following began; with a replay that is all.
        const missed = before.filter((value) => !got.includes(value));
        if (replay) expect(missed).toEqual([]);
        else expect(before.slice(0, missed.length)).toEqual(missed);
        expect(new Set(got).size).toBe(got.length);
        await bus.close();
      }
    },
  );

  test("every follower gets every message, beside the groups of subscribers", async () => {
    const topic = uniqueTopic();
    const got: string[][] = [[], [], []];
    const buses = [await startedBus(), await startedBus(), await startedBus()] as const;
    for (const [at, bus] of buses.slice(0, 2).entries()) {
      await bus.follow(topic, {
        replay: true,
        create,
        onMessages: (messages) => void got[at]!.push(...messages.map(read)),
      });
    }
    await buses[2].subscribe(topic, topic, async (message) => void got[2]!.push(read(message)));
    for (const value of ["1", "2", "3"]) await buses[2].publish(topic, text("k", value));
    await vi.waitFor(
      () =>
        expect(got).toEqual([
          ["1", "2", "3"],
          ["1", "2", "3"],
          ["1", "2", "3"],
        ]),
      soon,
    );
  });

  test("a topic that is absent is made, compacted, where that is asked for", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus();
    const following = await bus.follow(topic, { replay: true, create, onMessages: () => undefined });
    await following.caughtUp;
    const { ConfigResourceTypes } = await import("kafkajs");
    await withAdmin(async (admin) => {
      const { resources } = await admin.describeConfigs({
        includeSynonyms: false,
        resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: ["cleanup.policy"] }],
      });
      expect(resources[0]?.configEntries[0]?.configValue).toBe("compact");
      expect(await admin.fetchTopicOffsets(topic)).toHaveLength(3);
    });
  });

  describe("its group", () => {
    test("is gone when it is closed, and when its bus is", async () => {
      const topic = uniqueTopic();
      const bus = await startedBus({ source: topic });
      const first = await bus.follow(topic, { replay: true, create, onMessages: () => undefined });
      await bus.follow(topic, { replay: true, create, onMessages: () => undefined });
      const own = await groups(topic);
      expect(own).toHaveLength(2);
      await Promise.all([first.close(), first.close()]);
      expect(await groups(topic)).toHaveLength(1);
      await bus.close();
      const left = await groups();
      expect(own.filter((id) => left.includes(id))).toEqual([]);
    });
  });

  test("a follower whose handler rejects goes on with the next messages", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus();
    const got: string[] = [];
    await bus.follow(topic, {
      replay: true,
      create,
      onMessages: async (messages) => {
        got.push(...messages.map(read));
        if (got.length === 1) throw new Error("cannot");
      },
    });
    await bus.publish(topic, text("k", "1"));
    await vi.waitFor(() => expect(got).toEqual(["1"]), soon);
    await bus.publish(topic, text("k", "2"));
    await vi.waitFor(() => expect(got).toEqual(["1", "2"]), soon);
  });

  test("while its handler works, what is left is its lag", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ partitions: 1 });
    for (let index = 0; index < 5; index += 1) await bus.publish(topic, text("k", String(index)));
    const gate = Promise.withResolvers<undefined>();
    const following = await bus.follow(topic, { replay: true, onMessages: () => gate.promise });
    let caughtUp = false;
    void following.caughtUp.then(() => (caughtUp = true));
    expect(following.status().lag).toBe(5);
    expect(caughtUp).toBe(false);
    gate.resolve(undefined);
    await following.caughtUp;
    expect(following.status().lag).toBe(0);
  });

  test("a topic that was made anew before its history was read has none any more: what is there is new", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ partitions: 1, publishRetries: 20 });
    // More than one read takes.
    for (let index = 0; index < 8; index += 1) await bus.publish(topic, text("k", "x".repeat(400_000)));
    const [began, gate] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
    const got: FollowedMessage[] = [];
    const following = await bus.follow(topic, {
      replay: true,
      onMessages: async (messages) => {
        got.push(...messages);
        began.resolve(undefined);
        await gate.promise;
      },
    });
    await began.promise;
    expect(following.status().lag).toBe(8);
    await withAdmin((admin) => admin.deleteTopics({ topics: [topic] }));
    await vi.waitFor(async () => expect(await withAdmin((admin) => admin.listTopics())).not.toContain(topic));
    await bus.publish(topic, text("k", "new"));
    gate.resolve(undefined);
    await following.caughtUp;
    await vi.waitFor(() => expect(read(got.at(-1)!)).toBe("new"), soon);
    expect(got.at(-1)).toMatchObject({ offset: "0", isHistory: false });
    expect(got.length).toBeLessThan(8);
    expect(following.status()).toEqual({ lag: 0, healthy: true });
  });

  test("one that is closed first has not caught up", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus();
    await bus.publish(topic, text("k", "x"));
    const gate = Promise.withResolvers<undefined>();
    const following = await bus.follow(topic, { replay: true, onMessages: () => gate.promise });
    const outcome = expect(following.caughtUp).rejects.toThrow(/ended before it caught up/);
    const closing = following.close();
    gate.resolve(undefined);
    await closing;
    await outcome;
    expect(following.status()).toMatchObject({
      healthy: false,
      detail: expect.stringContaining("has ended"),
    });
  });

  test("a message that a follower cannot take is a dead letter of the category it names", async () => {
    const topic = uniqueTopic();
    const environment = topic.slice(5);
    const bus = await startedBus({ environment, source: "follower" });
    const letters: unknown[] = [];
    await bus.follow(`${environment}.dlq.events.v1`, {
      replay: true,
      create,
      onMessages: (messages) => void letters.push(...messages.map((message) => JSON.parse(read(message)))),
    });
    await bus.follow(topic, {
      replay: true,
      create,
      onMessages: async (messages) => {
        for (const message of messages) await bus.deadLetter(message, new Error("no event"), "events");
      },
    });
    await bus.publish(topic, text("k", "bad"));
    await vi.waitFor(() => expect(letters).toHaveLength(1), soon);
    expect(letters[0]).toMatchObject({
      original_topic: topic,
      original_message: { key: "k", value: "bad" },
      failure_reason: "no event",
    });
  });
});
