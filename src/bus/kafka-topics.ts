/**
 * What the bus asks brokers about topics and groups. Owns: creating topics, their offsets, those a group committed, and
 * which topics are waited for. Does not own: messages.
 *
 * 1. Everything here waits for brokers for as long as it takes, and ends when its signal aborts.
 */
import type { Admin, ITopicConfig } from "kafkajs";
import { abortable, sleep, within } from "../core/abort.ts";
import { InfraUnavailableError, OnexError, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { brokerCode, kafkaError } from "./kafka-errors.ts";
import { KafkaLink, type LinkOptions } from "./kafka-link.ts";

export interface NewTopic {
  /** Default: the broker's own. */
  readonly partitions?: number;
  readonly compacted?: boolean;
}

/** The first offset there is, and the one that the next message gets. */
export interface Bounds {
  readonly low: bigint;
  readonly high: bigint;
}

const unknownTopic = "UNKNOWN_TOPIC_OR_PARTITION";

type Presence = { readonly kind: "there" } | { readonly kind: "absent"; readonly why: string };

/** Of the pause after a failed attempt; it doubles, from the first value to the second. */
const firstPauseMs = 100;
const longestPauseMs = 2000;
/** For the broker to elect the leaders of a new topic. */
const creationMs = 10_000;
/** The line about what is waited for is repeated after so many attempts, about once a minute. */
const attemptsPerLine = 30;

export class KafkaTopics {
  readonly #options: LinkOptions;
  readonly #log: Logger;
  readonly #waiting = new Map<string, string>();
  /** The reasons that were logged, by topic. */
  readonly #told = new Map<string, string>();
  #client: { readonly link: KafkaLink; readonly admin: Promise<Admin> } | undefined;
  #isClosed = false;

  constructor(options: LinkOptions, log: Logger) {
    this.#options = options;
    this.#log = log;
  }

  /** What is waited for, and why: topics by name, the brokers as `brokers`. */
  get waiting(): ReadonlyMap<string, string> {
    return this.#waiting;
  }

  /** Resolves when the topic is there; creates it where that is allowed. */
  async ensure(topic: string, create: NewTopic, signal: AbortSignal): Promise<void> {
    await this.#persist(topic, signal, async (admin) => {
      const presence = await presenceOf(admin, topic);
      if (presence.kind === "there") return;
      const refusal = await createTopic(admin, topic, create);
      if (refusal !== undefined) throw new Absent(`topic ${topic} does not exist and ${refusal}`);
      this.#log.info({ topic, ...create }, `Topic ${topic} was created`);
    });
  }

  /** Creates the topic if it is absent, in one attempt. @throws OnexError where it is not there afterwards */
  async createOnce(topic: string, create: NewTopic): Promise<void> {
    try {
      const admin = await this.#admin();
      if ((await presenceOf(admin, topic)).kind === "there") return;
      const refusal = await createTopic(admin, topic, create);
      if (refusal === undefined) return;
      throw new InfraUnavailableError(`topic ${topic} does not exist and ${refusal}; create it`, {
        retryable: false,
        facts: { transport: "kafka", target: topic },
      });
    } catch (thrown) {
      this.#forget();
      throw kafkaError(thrown, `create topic ${topic}`, topic);
    }
  }

  /** None where the topic is absent. One attempt. @throws what the library throws where no broker is reached */
  async partitions(topic: string): Promise<number[]> {
    try {
      const { topics } = await (await this.#admin()).fetchTopicMetadata({ topics: [topic] });
      return topics.flatMap(({ partitions }) => partitions.map(({ partitionId }) => partitionId));
    } catch (thrown) {
      this.#forget();
      if (brokerCode(thrown) === unknownTopic) return [];
      throw thrown;
    }
  }

  /** By partition. */
  async bounds(topic: string, signal: AbortSignal): Promise<ReadonlyMap<number, Bounds>> {
    return await this.#persist(topic, signal, async (admin) => {
      const offsets = await admin.fetchTopicOffsets(topic);
      return new Map(
        offsets.map(({ partition, low, high }) => [partition, { low: BigInt(low), high: BigInt(high) }]),
      );
    });
  }

  /** What the group committed, by partition; negative where it committed nothing. */
  async committed(group: string, topic: string, signal: AbortSignal): Promise<ReadonlyMap<number, bigint>> {
    return await this.#persist(topic, signal, async (admin) => {
      const topics = await admin.fetchOffsets({ groupId: group, topics: [topic] });
      const found = topics.find((entry) => entry.topic === topic)?.partitions ?? [];
      return new Map(found.map(({ partition, offset }) => [partition, BigInt(offset)]));
    });
  }

  /** One attempt; a group that stays behind is removed by the brokers in time. Never rejects. */
  async deleteGroup(group: string, limitMs: number): Promise<void> {
    const deleted = (async () => await (await this.#admin()).deleteGroups([group]))();
    const outcome = await within(
      deleted.catch((thrown: unknown) => {
        this.#log.debug({ group, err: thrown }, `Group ${group} was not deleted: ${messageOf(thrown)}`);
        this.#forget();
      }),
      limitMs,
    );
    if (outcome === "timeout") this.#forget();
  }

  /** Closes the connection at once. */
  close(): void {
    this.#isClosed = true;
    this.#forget();
  }

  /** (1) */
  async #persist<T>(topic: string, signal: AbortSignal, ask: (admin: Admin) => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt += 1) {
      signal.throwIfAborted();
      try {
        const answer = await abortable((async () => await ask(await this.#admin()))(), signal);
        this.#waiting.delete(topic);
        if (this.#told.delete(topic)) this.#log.info({ topic }, `Topic ${topic} is there`);
        return answer;
      } catch (thrown) {
        if (signal.aborted) throw thrown;
        this.#forget();
        this.#wait(topic, reasonOf(thrown, topic), attempt);
        const pauseMs = Math.min(firstPauseMs * 2 ** attempt, longestPauseMs) * (0.75 + Math.random() / 2);
        await sleep(pauseMs, signal).finally(() => signal.aborted && this.#waiting.delete(topic));
      }
    }
  }

  #wait(topic: string, reason: string, attempt: number): void {
    this.#waiting.set(topic, reason);
    // A topic that was just created, or a leader that moves, is no news.
    const isNews = this.#told.get(topic) !== reason || attempt % attemptsPerLine === 0;
    if (attempt < 2 || !isNews) return;
    this.#told.set(topic, reason);
    this.#log.warn({ topic }, `Waiting for Kafka: ${reason}`);
  }

  async #admin(): Promise<Admin> {
    if (this.#isClosed) throw new Error("the event bus is closed");
    if (this.#client === undefined) {
      const link = new KafkaLink(this.#options, { retries: 1, initialRetryTime: 100 });
      const admin = link.kafka.admin();
      const connected = admin.connect().then(() => admin);
      connected.catch(() => undefined);
      this.#client = { link, admin: connected };
    }
    return await this.#client.admin;
  }

  /** A client that failed once keeps what it knew then: a topic that is gone makes all its later questions fail. */
  #forget(): void {
    this.#client?.link.cut();
    this.#client = undefined;
  }
}

class Absent extends Error {}

function reasonOf(thrown: unknown, topic: string): string {
  if (thrown instanceof Absent || thrown instanceof OnexError) return thrown.message;
  if (brokerCode(thrown) === unknownTopic) return `topic ${topic} does not exist`;
  return `its brokers are not reached: ${messageOf(thrown)}`;
}

async function presenceOf(admin: Admin, topic: string): Promise<Presence> {
  try {
    await admin.fetchTopicMetadata({ topics: [topic] });
    return { kind: "there" };
  } catch (thrown) {
    if (brokerCode(thrown) !== unknownTopic) throw thrown;
    return { kind: "absent", why: messageOf(thrown) };
  }
}

/** Undefined when it is there, made by us or by another one in the meantime; else why not. */
async function createTopic(
  admin: Admin,
  topic: string,
  { partitions, compacted }: NewTopic,
): Promise<string | undefined> {
  const config: ITopicConfig = {
    topic,
    ...(partitions !== undefined && { numPartitions: partitions }),
    ...(compacted === true && { configEntries: [{ name: "cleanup.policy", value: "compact" }] }),
  };
  try {
    await admin.createTopics({ topics: [config], timeout: creationMs, waitForLeaders: true });
    return undefined;
  } catch (thrown) {
    const code = brokerCode(thrown);
    if (code === undefined) throw thrown;
    return `may not be created (${code})`;
  }
}
