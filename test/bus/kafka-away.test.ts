/** Members that are away for longer than their session, and come back. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test, vi } from "vitest";
import { describeWithKafka, kafkaServers } from "../services/index.ts";
import { startedBus, text, uniqueTopic, withAdmin } from "./kafka.ts";

const soon = { timeout: 40_000 };

interface Member {
  /** `partition/offset` of each message, as its handler began. */
  readonly seen: readonly string[];
  signal(name: NodeJS.Signals): void;
}

async function startMember(topic: string, workMs = 0): Promise<Member> {
  const script = new URL("kafka-member.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [script, kafkaServers(), topic, String(workMs)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const seen: string[] = [];
  const ready = Promise.withResolvers<undefined>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (line === "ready") ready.resolve(undefined);
    else seen.push(line);
  });
  child.once("exit", () => ready.reject(new Error("the member ended")));
  await ready.promise;
  return { seen, signal: (name) => void child.kill(name) };
}

/** What the group has committed, by partition. */
const committed = (topic: string): Promise<Map<number, number>> =>
  withAdmin(async (admin) => {
    const [found] = await admin.fetchOffsets({ groupId: topic, topics: [topic] });
    return new Map(found?.partitions.map(({ partition, offset }) => [partition, Number(offset)]));
  });

describeWithKafka("a member that was away for longer than its session", () => {
  test("does nothing again that another one did meanwhile, and takes no committed offset back", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ partitions: 6 });
    await bus.publish(topic, text("k", "makes the topic"));
    const [away, sibling] = [await startMember(topic), await startMember(topic)];
    const publish = async (count: number): Promise<void> => {
      await Promise.all(
        Array.from({ length: count }, (_, index) => bus.publish(topic, text(`k${index}`, "x"))),
      );
    };
    /** All that is on the topic is done. */
    const done = async (): Promise<void> => {
      const end = sum(await ends(topic));
      expect(new Set([...away.seen, ...sibling.seen]).size).toBe(end - 1);
      expect(sum(await committed(topic))).toBe(end);
    };
    // Both have a share.
    await vi.waitFor(async () => {
      await publish(60);
      expect(away.seen.length).toBeGreaterThan(0);
      expect(sibling.seen.length).toBeGreaterThan(0);
    }, soon);
    await vi.waitFor(done, soon);
    const before = away.seen.length;
    away.signal("SIGSTOP");
    await publish(300);
    await vi.waitFor(done, soon);
    away.signal("SIGCONT");
    // It is back, with a share, when it handles something again.
    const lowest = await committed(topic);
    await vi.waitFor(async () => {
      await publish(20);
      expect(away.seen.length).toBeGreaterThan(before);
      for (const [partition, offset] of await committed(topic)) {
        expect(offset).toBeGreaterThanOrEqual(lowest.get(partition)!);
        lowest.set(partition, offset);
      }
    }, soon);
    const others = new Set(sibling.seen);
    expect(away.seen.slice(before).filter((message) => others.has(message))).toEqual([]);
  }, 90_000);

  test("drops what it had taken and another one did, also where it gets the partition back unawares", async () => {
    const topic = uniqueTopic();
    const bus = await startedBus({ partitions: 1 });
    await bus.publish(topic, text("k", "makes the topic"));
    const away = await startMember(topic, 20);
    for (let index = 0; index < 400; index += 1) await bus.publish(topic, text(`k${index}`, "x"));
    await vi.waitFor(() => expect(away.seen.length).toBeGreaterThan(20), soon);
    away.signal("SIGSTOP");
    const sibling = await startMember(topic);
    await vi.waitFor(async () => expect(sum(await committed(topic))).toBe(401), soon);
    const before = away.seen.length;
    // Without a word: the partition goes back to the one who was away, who never heard that it had lost it.
    sibling.signal("SIGKILL");
    away.signal("SIGCONT");
    await vi.waitFor(async () => {
      await bus.publish(topic, text("k", "later"));
      expect(offsetOf(away.seen.at(-1)!)).toBeGreaterThan(400);
    }, soon);
    expect(away.seen.slice(before).filter((message) => offsetOf(message) <= 400)).toEqual([]);
  }, 90_000);
});

const sum = (offsets: ReadonlyMap<number, number>): number =>
  [...offsets.values()].reduce((total, offset) => total + offset, 0);

const ends = (topic: string): Promise<Map<number, number>> =>
  withAdmin(async (admin) => {
    const offsets = await admin.fetchTopicOffsets(topic);
    return new Map(offsets.map(({ partition, high }) => [partition, Number(high)]));
  });

const offsetOf = (message: string): number => Number(message.split("/")[1]);
