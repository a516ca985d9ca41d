/** What a subscription does about answers that real brokers rarely give. */
import { expect, onTestFinished, test, vi } from "vitest";
import type { MessageHandler } from "../../src/bus/bus.ts";
import { KafkaSubscription } from "../../src/bus/kafka-consumer.ts";
import { silentLogger } from "../../src/core/log.ts";
import { FakeKafka } from "./fake-kafka.ts";

async function subscribed(kafka: FakeKafka, handler: MessageHandler): Promise<KafkaSubscription> {
  const subscription = new KafkaSubscription(
    { topic: "t", group: "g", category: "events", handler },
    {
      link: kafka.link,
      topics: kafka.topics,
      publish: () => Promise.resolve(),
      concurrency: 2,
      environment: "test",
      source: "test",
      deadLetter: true,
      partitions: 1,
      log: silentLogger,
    },
  );
  onTestFinished(() => subscription.destroy(new Error("the test is over")));
  await subscription.start(new AbortController().signal);
  return subscription;
}

/** Handlers that end when they are told to. */
function byHand() {
  const begun: string[] = [];
  const aborted: string[] = [];
  const ends = new Map<string, PromiseWithResolvers<undefined>>();
  const handler: MessageHandler = async ({ offset }, signal) => {
    begun.push(offset);
    signal.addEventListener("abort", () => aborted.push(offset));
    const end = Promise.withResolvers<undefined>();
    ends.set(offset, end);
    await end.promise;
  };
  return { begun, aborted, handler, end: (offset: string) => ends.get(offset)?.resolve(undefined) };
}

/** A subscription whose handlers end when they are told to. */
async function running() {
  const kafka = new FakeKafka();
  const work = byHand();
  return { kafka, work, subscription: await subscribed(kafka, work.handler) };
}

test("a last commit that is refused while members come and go is tried until it is done", async () => {
  const { kafka, work, subscription } = await running();
  await kafka.read(0, 1);
  let attempts = 0;
  kafka.onCommit = () => {
    attempts += 1;
    if (attempts <= 3) throw new Error("The group is rebalancing, so a rejoin is needed");
  };
  const stopped = subscription.stop();
  work.end("0");
  work.end("1");
  await stopped;
  expect(kafka.committed).toBe(2);
});

test("a member that is given its partition anew goes on where it was, where nobody did more", async () => {
  const { kafka, work } = await running();
  await kafka.read(0, 3);
  expect(work.begun).toEqual(["0", "1"]);
  kafka.seeks.length = 0;
  kafka.join();
  await vi.waitFor(() => expect(kafka.seeks).toEqual([4]));
  work.end("0");
  work.end("1");
  await vi.waitFor(() => expect(work.begun).toEqual(["0", "1", "2", "3"]));
  expect(work.aborted).toEqual([]);
});

test("of what it had taken a member begins only what others have not done since", async () => {
  const { kafka, work } = await running();
  const commits: number[] = [];
  kafka.onCommit = (offset) => void commits.push(offset);
  await kafka.read(0, 9);
  kafka.seeks.length = 0;
  kafka.committed = 8;
  kafka.join();
  await vi.waitFor(() => expect(kafka.seeks).toEqual([10]));
  for (const offset of ["0", "1"]) work.end(offset);
  await vi.waitFor(() => expect(work.begun).toEqual(["0", "1", "8", "9"]));
  for (const offset of ["8", "9"]) work.end(offset);
  await vi.waitFor(() => expect(kafka.committed).toBe(10));
  expect(Math.min(...commits)).toBeGreaterThan(8);
});

test("a member that others have overtaken begins where they are, and what it ran is aborted", async () => {
  const { kafka, work } = await running();
  const commits: number[] = [];
  kafka.onCommit = (offset) => void commits.push(offset);
  await kafka.read(0, 9);
  kafka.seeks.length = 0;
  kafka.committed = 500;
  kafka.join();
  await vi.waitFor(() => expect(kafka.seeks).toEqual([500]));
  expect(work.aborted).toEqual(["0", "1"]);
  for (const offset of ["0", "1"]) work.end(offset);
  await kafka.read(500, 500);
  await vi.waitFor(() => expect(work.begun).toEqual(["0", "1", "500"]));
  work.end("500");
  await vi.waitFor(() => expect(commits).toEqual([501]));
});

test("nothing begins until it is known what the group has committed, and never is less committed", async () => {
  const { kafka, work } = await running();
  const commits: number[] = [];
  kafka.onCommit = (offset) => void commits.push(offset);
  await kafka.read(0, 3);
  const answer = Promise.withResolvers<unknown>();
  const asked = vi.fn(() => answer.promise);
  kafka.admin.fetchOffsets = asked;
  kafka.join();
  await vi.waitFor(() => expect(asked).toHaveBeenCalled());
  work.end("0");
  work.end("1");
  await new Promise((resolve) => setImmediate(resolve));
  expect(work.begun).toEqual(["0", "1"]);
  answer.resolve([{ topic: "t", partitions: [{ partition: 0, offset: "3" }] }]);
  await vi.waitFor(() => expect(work.begun).toEqual(["0", "1", "3"]));
  work.end("3");
  await vi.waitFor(() => expect(commits).toEqual([4]));
});

test("an answer about what is committed that was overtaken by another sharing out counts no more", async () => {
  const { kafka } = await running();
  await kafka.read(0, 3);
  const answers: PromiseWithResolvers<unknown>[] = [];
  kafka.admin.fetchOffsets = () => {
    const answer = Promise.withResolvers<unknown>();
    answers.push(answer);
    return answer.promise;
  };
  const say = (index: number, offset: string): void =>
    answers[index]!.resolve([{ topic: "t", partitions: [{ partition: 0, offset }] }]);
  kafka.seeks.length = 0;
  kafka.join();
  await vi.waitFor(() => expect(answers).toHaveLength(1));
  kafka.join();
  await vi.waitFor(() => expect(answers).toHaveLength(2));
  say(0, "0");
  say(1, "500");
  await vi.waitFor(() => expect(kafka.seeks).toEqual([500]));
});

test("an answer that comes while partitions are about to be shared out anew begins nothing", async () => {
  const { kafka, work } = await running();
  await kafka.read(0, 3);
  const answer = Promise.withResolvers<unknown>();
  const asked = vi.fn(() => answer.promise);
  kafka.admin.fetchOffsets = asked;
  kafka.seeks.length = 0;
  kafka.join();
  await vi.waitFor(() => expect(asked).toHaveBeenCalled());
  work.end("0");
  work.end("1");
  await kafka.askToJoin();
  answer.resolve([{ topic: "t", partitions: [{ partition: 0, offset: "0" }] }]);
  await new Promise((resolve) => setImmediate(resolve));
  expect(work.begun).toEqual(["0", "1"]);
  expect(kafka.seeks).toEqual([]);
  kafka.admin.fetchOffsets = () =>
    Promise.resolve([{ topic: "t", partitions: [{ partition: 0, offset: "3" }] }]);
  kafka.join();
  await vi.waitFor(() => expect(work.begun).toEqual(["0", "1", "3"]));
});

test("a subscription has begun only when it knows where it reads, also where partitions are shared out meanwhile", async () => {
  const kafka = new FakeKafka();
  const answer = Promise.withResolvers<unknown>();
  const asked = vi.fn(() => answer.promise);
  kafka.admin.fetchOffsets = asked;
  let isSubscribed = false;
  const subscribing = subscribed(kafka, byHand().handler).then(() => (isSubscribed = true));
  await vi.waitFor(() => expect(asked).toHaveBeenCalled());
  await kafka.askToJoin();
  answer.resolve([{ topic: "t", partitions: [{ partition: 0, offset: "5" }] }]);
  await new Promise((resolve) => setImmediate(resolve));
  expect(isSubscribed).toBe(false);
  kafka.join();
  await subscribing;
  expect(kafka.seeks).toEqual([5]);
});

test("a full partition that has room again is not read before it is known from where", async () => {
  const { kafka, work } = await running();
  await kafka.read(0, 1, Buffer.alloc(8 * 1024 * 1024));
  const answer = Promise.withResolvers<unknown>();
  kafka.admin.fetchOffsets = () => answer.promise;
  kafka.join();
  kafka.resumed = 0;
  work.end("0");
  work.end("1");
  await new Promise((resolve) => setImmediate(resolve));
  expect(kafka.resumed).toBe(0);
  answer.resolve([{ topic: "t", partitions: [{ partition: 0, offset: "0" }] }]);
  await vi.waitFor(() => expect(kafka.resumed).toBe(1));
});

test("what a member had read that the library gave up is left to the next one", async () => {
  const { kafka, work, subscription } = await running();
  kafka.crash(new Error("it gave up"));
  await vi.waitFor(() => expect(subscription.problems).toEqual([expect.stringContaining("it gave up")]));
  await kafka.read(0, 0);
  expect(work.begun).toEqual([]);
});

test("a topic's id stays known where the brokers do not tell it any more", async () => {
  const kafka = new FakeKafka();
  const { topicId, topicAnswer } = kafka;
  kafka.topicAnswer = (topic) => {
    const answer = topicAnswer(topic);
    kafka.topicId = "";
    return answer;
  };
  const work = byHand();
  await subscribed(kafka, work.handler);
  await kafka.read(0, 0);
  work.end("0");
  await vi.waitFor(() => expect(kafka.committed).toBe(1));
  expect(kafka.note).toBe(`topic_id=${topicId}`);
});

test("each commit says of which topic it is", async () => {
  const { kafka, work } = await running();
  await kafka.read(0, 0);
  work.end("0");
  await vi.waitFor(() => expect(kafka.committed).toBe(1));
  expect(kafka.note).toBe(`topic_id=${kafka.topicId}`);
});

test("what was committed of another topic that had the name says nothing of this one", async () => {
  const kafka = new FakeKafka();
  kafka.committed = 7;
  kafka.note = `topic_id=${"0b".repeat(16)}`;
  await subscribed(kafka, byHand().handler);
  expect(kafka.seeks).toEqual([0]);
});

test.each<[string, (kafka: FakeKafka) => void]>([
  ["brokers know no ids", (kafka) => (kafka.metadataVersion = 9)],
  ["the broker has no id for the topic", (kafka) => (kafka.topicId = "")],
  ["the topic may not be seen", (kafka) => (kafka.topicCode = 29)],
  ["the broker's answer leaves the topic out", (kafka) => (kafka.topicAnswer = () => nothingSaid)],
  ["the broker's answer is cut off", (kafka) => (kafka.topicAnswer = () => nothingSaid.subarray(0, 7))],
  ["the library shows no brokers", (kafka) => (kafka.showsBrokers = false)],
])("a subscription goes on where its group was where %s", async (_where, arrange) => {
  const kafka = new FakeKafka();
  arrange(kafka);
  kafka.committed = 7;
  kafka.note = `topic_id=${"0b".repeat(16)}`;
  const work = byHand();
  await subscribed(kafka, work.handler);
  expect(kafka.seeks).toEqual([7]);
  await kafka.read(7, 7);
  work.end("7");
  await vi.waitFor(() => expect(kafka.committed).toBe(8));
  expect(kafka.note).toBe("");
});

/** No throttling, brokers, cluster, controller and topics. */
const nothingSaid = Buffer.from([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
