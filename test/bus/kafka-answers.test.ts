/** What brokers say of topics, where real ones rarely say it. */
import { expect, onTestFinished, test, vi } from "vitest";
import { resolveKafkaOptions } from "../../src/bus/kafka-options.ts";
import { KafkaProducer } from "../../src/bus/kafka-producer.ts";
import { FakeKafka } from "./fake-kafka.ts";
import { text } from "./kafka.ts";

/** As the library throws it: the broker's part within an error about all topics. */
function refusal(type: string, retriable: boolean): Error {
  const part = Object.assign(new Error(`the broker says ${type}`), { type, retriable });
  return Object.assign(new Error("Topic creation errors"), { errors: [part] });
}

const absent = (): Promise<never> =>
  Promise.reject(Object.assign(new Error("no such topic"), { type: "UNKNOWN_TOPIC_OR_PARTITION" }));

test.each(["NOT_CONTROLLER", "REQUEST_TIMED_OUT", "THROTTLING_QUOTA_EXCEEDED"])(
  "a topic that could not be created because of %s is tried again, and is no refusal",
  async (type) => {
    const kafka = new FakeKafka();
    kafka.admin.fetchTopicMetadata = absent;
    kafka.admin.createTopics = () => Promise.reject(refusal(type, true));
    await expect(kafka.topics.have("t", {})).rejects.toMatchObject({
      name: "InfraConnectionError",
      retryable: true,
      message: expect.stringContaining(`the broker says ${type}`),
    });
    let attempts = 0;
    kafka.admin.createTopics = () => {
      attempts += 1;
      kafka.admin.fetchTopicMetadata = () => Promise.resolve({ topics: [] });
      return Promise.resolve(true);
    };
    await kafka.topics.have("t", {});
    expect(attempts).toBe(1);
  },
);

test("a topic that may not be created is a refusal, which no other attempt would change", async () => {
  const kafka = new FakeKafka();
  kafka.admin.fetchTopicMetadata = absent;
  kafka.admin.createTopics = () => Promise.reject(refusal("POLICY_VIOLATION", false));
  await expect(kafka.topics.have("t", {})).rejects.toMatchObject({
    retryable: false,
    message: expect.stringContaining("may not be created (POLICY_VIOLATION)"),
  });
});

test("a topic that nobody waits for any more is told by nobody, whatever was under way", async () => {
  const kafka = new FakeKafka();
  const asked = vi
    .fn<() => Promise<unknown>>()
    .mockRejectedValueOnce(new Error("connection lost"))
    .mockReturnValue(Promise.withResolvers<unknown>().promise);
  kafka.admin.fetchTopicOffsets = asked;
  const enough = new AbortController();
  const outcome = expect(kafka.topics.bounds("t", enough.signal)).rejects.toThrow("enough");
  await vi.waitFor(() => expect(asked).toHaveBeenCalledTimes(2));
  expect([...kafka.topics.waiting.keys()]).toEqual(["t"]);
  enough.abort(new Error("enough"));
  await outcome;
  expect([...kafka.topics.waiting.keys()]).toEqual([]);
});

test("brokers that were not reached are tried until they answer, without anyone publishing", async () => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const kafka = new FakeKafka();
  const producer = new KafkaProducer(
    kafka.link,
    resolveKafkaOptions({ publishRetries: 0, bootstrapServers: ["127.0.0.1:9"] }),
    kafka.topics,
  );
  onTestFinished(() => producer.destroy(new Error("the test is over")));
  const lost = (): Promise<never> => Promise.reject(new Error("connection lost"));
  kafka.admin.fetchTopicMetadata = lost;
  kafka.admin.describeCluster = lost;
  await expect(producer.publish("t", text("k", "x"))).rejects.toThrow("connection lost");
  await vi.advanceTimersByTimeAsync(20_000);
  expect(producer.problem).toContain("connection lost");
  kafka.admin.describeCluster = () => Promise.resolve({});
  await vi.advanceTimersByTimeAsync(5000);
  expect(producer.problem).toBeUndefined();
});
