/**
 * What the bus asks brokers about topics and groups. Owns: creating topics, their offsets, those a group committed, and
 * which topics are waited for. Does not own: messages, and when a client is replaced (`kafka-clients.ts`).
 *
 * 1. What takes a signal waits for brokers for as long as it takes, and ends when the signal aborts.
 * 2. Publishers that need the same topic at once share one attempt to have it; a few topics are seen to at once.
 */
import type { Admin, Cluster, ITopicConfig } from "kafkajs";
import { abortable, sleep, within } from "../core/abort.ts";
import { backoffMs } from "../core/backoff.ts";
import { InfraUnavailableError, OnexError, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { Chains } from "./kafka-chains.ts";
import { KafkaClients } from "./kafka-clients.ts";
import { brokerCode, kafkaError, transient } from "./kafka-errors.ts";
import { KafkaLink, type LinkOptions } from "./kafka-link.ts";
import { clusterOf, topicId } from "./kafka-topic-id.ts";

export interface NewTopic {
  /** Default: the broker's own. */
  readonly partitions?: number;
  readonly compacted?: boolean;
}

interface Client {
  readonly link: KafkaLink;
  readonly admin: Promise<Admin>;
  /** Connected on the first call; undefined where the library shows none. */
  readonly cluster: () => Promise<Cluster | undefined>;
}

/** The first offset there is, and the one that the next message gets. */
export interface Bounds {
  readonly low: bigint;
  readonly high: bigint;
}

const unknownTopic = "UNKNOWN_TOPIC_OR_PARTITION";

/** After a failed attempt. */
const pause = { firstMs: 100, maxMs: 2000 };
/** For the broker to elect the leaders of a new topic. */
const creationMs = 10_000;
const creationPollMs = 50;
/** (2) */
const concurrentTopics = 8;
/** The line about what is waited for is repeated after so many attempts, about once a minute. */
const attemptsPerLine = 30;

export class KafkaTopics {
  readonly #log: Logger;
  readonly #waiting = new Map<string, string>();
  /** The reasons that were logged, by topic. */
  readonly #told = new Map<string, string>();
  readonly #clients: KafkaClients<Client>;
  readonly #having = new Map<string, Promise<void>>();
  readonly #turns = new Chains<() => Promise<void>>(concurrentTopics, (work) => work());
  #isClosed = false;

  constructor(options: LinkOptions, log: Logger) {
    this.#log = log;
    // A client that failed once keeps what it knew then: a topic that is gone makes all its later questions fail.
    this.#clients = new KafkaClients(
      () => connect(options),
      () => true,
    );
  }

  /** What is waited for, and why: topics by name, the brokers as `brokers`. */
  get waiting(): ReadonlyMap<string, string> {
    return this.#waiting;
  }

  /** Resolves when the topic is there; creates it where that is allowed. */
  async ensure(topic: string, create: NewTopic, signal: AbortSignal): Promise<void> {
    await this.#persist(topic, signal, async (admin) => {
      if (await isThere(admin, topic)) return;
      const refusal = await createTopic(admin, topic, create);
      if (refusal !== undefined) throw new Absent(`topic ${topic} does not exist and ${refusal}`);
      this.#log.info({ topic, ...create }, `Topic ${topic} was created`);
    });
  }

  /** Creates the topic if it is absent, in one attempt. @throws OnexError where it is not there afterwards. (2) */
  have(topic: string, create: NewTopic): Promise<void> {
    const known = this.#having.get(topic);
    if (known !== undefined) return known;
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const having = promise.finally(() => this.#having.delete(topic));
    this.#having.set(topic, having);
    this.#turns.add(() => this.#have(topic, create).then(() => resolve(undefined), reject), undefined);
    return having;
  }

  async #have(topic: string, create: NewTopic): Promise<void> {
    try {
      const refusal = await this.#ask(async (admin) =>
        (await isThere(admin, topic)) ? undefined : await createTopic(admin, topic, create),
      );
      if (refusal === undefined) return;
      throw new InfraUnavailableError(`topic ${topic} does not exist and ${refusal}; create it`, {
        retryable: false,
        facts: { transport: "kafka", target: topic },
      });
    } catch (thrown) {
      throw kafkaError(thrown, `create topic ${topic}`, topic);
    }
  }

  /** None where the topic is absent. One attempt. @throws what the library throws where no broker is reached */
  async partitions(topic: string): Promise<number[]> {
    try {
      const { topics } = await this.#ask((admin) => admin.fetchTopicMetadata({ topics: [topic] }));
      return topics.flatMap(({ partitions }) => partitions.map(({ partitionId }) => partitionId));
    } catch (thrown) {
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

  /** Tells the topic from others that have had its name; `""` where the brokers do not say. Waits for the topic. */
  async identity(topic: string, signal: AbortSignal): Promise<string> {
    return await this.#persist(topic, signal, async (_admin, client) => {
      const id = await identityOf(client, topic);
      if (id === undefined) throw new Absent(`topic ${topic} does not exist`);
      return id;
    });
  }

  /** The same in one attempt; undefined where the topic is absent. @throws what the library throws */
  async look(topic: string): Promise<string | undefined> {
    return await this.#ask((_admin, client) => identityOf(client, topic));
  }

  /**
   * What the group committed, by partition; negative where it committed nothing. What it committed of another topic that
   * had the name says nothing of this one, which is read from its beginning.
   *
   * @param identity the topic's; `""` where it is not known
   */
  async committed(
    group: string,
    topic: string,
    identity: string,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<number, bigint>> {
    return await this.#persist(topic, signal, async (admin) => {
      const topics = await admin.fetchOffsets({ groupId: group, topics: [topic] });
      const found = topics.find((entry) => entry.topic === topic)?.partitions ?? [];
      return new Map(
        found.map(({ partition, offset, metadata }) => [
          partition,
          isOfAnother(metadata, identity) ? 0n : BigInt(offset),
        ]),
      );
    });
  }

  /**
   * Whether a broker answers, in one attempt; with a topic: whether all leaders of its partitions do, unless it is gone.
   *
   * @throws what the library throws where not
   */
  async reach(topic?: string): Promise<void> {
    try {
      await this.#ask(async (admin) => {
        if (topic === undefined) await admin.describeCluster();
        else await admin.fetchTopicOffsets(topic);
      });
    } catch (thrown) {
      if (brokerCode(thrown) !== unknownTopic) throw thrown;
    }
  }

  /** One attempt; a group that stays behind is removed by the brokers in time. Never rejects. */
  async deleteGroup(group: string, limitMs: number): Promise<void> {
    const deleted = this.#ask((admin) => admin.deleteGroups([group]));
    await within(
      deleted.catch((thrown: unknown) => {
        this.#log.debug({ group, err: thrown }, `Group ${group} was not deleted: ${messageOf(thrown)}`);
      }),
      limitMs,
    );
  }

  /** Closes connections at once. */
  close(): void {
    this.#isClosed = true;
    this.#clients.cut();
  }

  /** (1) */
  async #persist<T>(
    topic: string,
    signal: AbortSignal,
    ask: (admin: Admin, client: Client) => Promise<T>,
  ): Promise<T> {
    try {
      for (let attempt = 0; ; attempt += 1) {
        signal.throwIfAborted();
        try {
          const answer = await abortable(this.#ask(ask), signal);
          if (this.#told.delete(topic)) this.#log.info({ topic }, `Topic ${topic} is there`);
          return answer;
        } catch (thrown) {
          if (signal.aborted) throw thrown;
          this.#wait(topic, reasonOf(thrown, topic), attempt);
          await sleep(backoffMs(attempt + 1, pause), signal);
        }
      }
    } finally {
      this.#waiting.delete(topic);
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

  async #ask<T>(question: (admin: Admin, client: Client) => Promise<T>): Promise<T> {
    if (this.#isClosed) throw new Error("the event bus is closed");
    return await this.#clients.use(async (client) => await question(await client.admin, client));
  }
}

function connect(options: LinkOptions): Client {
  const link = new KafkaLink(options, { retries: 1, initialRetryTime: 100 });
  const admin = link.kafka.admin();
  const connected = admin.connect().then(() => admin);
  connected.catch(() => undefined);
  let cluster: Promise<Cluster | undefined> | undefined;
  return { link, admin: connected, cluster: () => (cluster ??= clusterOf(link)) };
}

async function identityOf({ admin, cluster }: Client, topic: string): Promise<string | undefined> {
  return await topicId(await cluster(), topic, async () => await isThere(await admin, topic));
}

/** Is committed with each offset. */
export const commitNote = (identity: string): string => (identity === "" ? "" : `${notePrefix}${identity}`);
const notePrefix = "topic_id=";

const isOfAnother = (note: string | null, identity: string): boolean =>
  note?.startsWith(notePrefix) === true && identity !== "" && note !== commitNote(identity);

class Absent extends Error {}

function reasonOf(thrown: unknown, topic: string): string {
  if (thrown instanceof Absent || thrown instanceof OnexError) return thrown.message;
  const code = brokerCode(thrown);
  if (code === unknownTopic) return `topic ${topic} does not exist`;
  if (code !== undefined) return `topic ${topic} cannot be had: ${messageOf(thrown)} (${code})`;
  return `its brokers are not reached: ${messageOf(thrown)}`;
}

async function isThere(admin: Admin, topic: string): Promise<boolean> {
  try {
    await admin.fetchTopicMetadata({ topics: [topic] });
    return true;
  } catch (thrown) {
    if (brokerCode(thrown) !== unknownTopic) throw thrown;
    return false;
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
    // The library, waiting for leaders, would take a broker that has not heard of the topic yet for a refusal.
    await admin.createTopics({ topics: [config], timeout: creationMs, waitForLeaders: false });
  } catch (thrown) {
    const code = brokerCode(thrown);
    if (code === undefined) throw thrown;
    const passing = transient(thrown);
    // The part, which says more than the whole: "Topic creation errors".
    if (passing !== undefined) throw passing;
    return `may not be created (${code})`;
  }
  const until = performance.now() + creationMs;
  while (performance.now() < until) {
    try {
      if (await isThere(admin, topic)) return undefined;
    } catch (thrown) {
      if (brokerCode(thrown) !== "LEADER_NOT_AVAILABLE") throw thrown;
    }
    await sleep(creationPollMs);
  }
  throw new InfraUnavailableError(
    `topic ${topic} has no leaders ${creationMs / 1000} s after it was created`,
    {
      retryable: true,
      facts: { transport: "kafka", target: topic },
    },
  );
}
