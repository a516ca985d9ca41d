/**
 * One member of a consumer group that reads one topic, for as long as it takes. Owns: the library's consumer, building
 * it anew when it gave up, and which partitions it was given. Does not own: where a partition is read from, what
 * happens to messages, what is committed when (`kafka-consumer.ts`, `kafka-follow.ts`).
 *
 * 1. `onAssigned` is called before anything of the partitions is read, so that what it seeks or pauses holds.
 * 2. Nothing is read past a batch that `onBatch` did not take.
 * 3. A commit is one attempt, under the membership of this moment: one repeated later could rewind a partition that
 *    another member has gone on with.
 */
import type { Broker, Cluster, Consumer, EachBatchPayload } from "kafkajs";
import { abortable, sleep, within } from "../core/abort.ts";
import { InfraUnavailableError, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { stickyAssigner } from "./kafka-assigner.ts";
import { KafkaLink, type LinkOptions } from "./kafka-link.ts";
import type { DeliveredMessage } from "./bus.ts";
import type { KafkaTopics } from "./kafka-topics.ts";

export interface ReadBatch {
  readonly partition: number;
  readonly messages: readonly DeliveredMessage[];
  /** Where the next batch begins. */
  readonly next: bigint;
  /** What the partition's next message will get, as the broker said with this batch. */
  readonly end: bigint;
}

export interface ReaderOptions {
  readonly link: LinkOptions;
  readonly topics: KafkaTopics;
  readonly topic: string;
  readonly group: string;
  readonly log: Logger;
  /** The member's partitions, at every change. (1) */
  readonly onAssigned: (partitions: readonly number[]) => void;
  /** The group is about to share its partitions out again, and waits for this; never rejects. */
  readonly onRebalance?: () => Promise<void>;
  /** False leaves the batch to be read again. (2) */
  readonly onBatch: (batch: ReadBatch) => boolean | Promise<boolean>;
  /** Records without messages (of transactions) went by. */
  readonly onSkipped?: (partition: number, next: bigint) => void;
}

/** Reconnecting goes on inside the library, without end; the reader itself starts anew where the library gives up. */
const forEver = { initialRetryTime: 100, maxRetryTime: 2000, retries: 1_000_000 };
/** How long a read waits for messages; also how long leaving waits for the read under way. */
const maxWaitTimeInMs = 250;
/** A member that died without a word is missed after this time. */
const sessionTimeout = 10_000;
const heartbeatInterval = 1000;
const rebalanceTimeout = 30_000;
/** For partitions that are added to a topic to be seen. */
const metadataMaxAge = 30_000;
const restartMs = 250;
const longestRestartMs = 2000;
const leaveMs = 3000;
const hastyLeaveMs = 1000;

/** The library's brokers can do so; its types leave it out. */
interface LeavesGroups {
  leaveGroup(request: { readonly groupId: string; readonly memberId: string }): Promise<unknown>;
}

type Commit = (offsets: ReadonlyMap<number, bigint>) => Promise<void>;

interface Running {
  readonly link: KafkaLink;
  readonly consumer: Consumer;
  /** In its group, as far as is known here. */
  isJoined: boolean;
  commit: Commit | undefined;
}

export class KafkaReader {
  readonly #options: ReaderOptions;
  readonly #stopped = new AbortController();
  readonly #joined = Promise.withResolvers<undefined>();
  #assigned: readonly number[] = [];
  /** As which it joined the group last. */
  #memberId: string | undefined;
  /** Why the library gave up; undefined once the member is in its group again. */
  #failure: string | undefined;
  #failures = 0;
  #running: Running | undefined;
  #loop: Promise<void> | undefined;

  constructor(options: ReaderOptions) {
    this.#options = options;
    this.#joined.promise.catch(() => undefined);
  }

  /** Resolves when the member has its partitions for the first time. */
  async start(signal: AbortSignal): Promise<void> {
    this.#loop ??= this.#run();
    await abortable(this.#joined.promise, signal);
  }

  /** Why nothing is read at the moment; undefined where something is, or nothing was begun. */
  get problem(): string | undefined {
    const { topic } = this.#options;
    const since = this.#running?.link.unreachableSince;
    if (since !== undefined) return `${topic}: no Kafka broker is reached since ${since.toISOString()}`;
    return this.#failure === undefined ? undefined : `${topic}: reading begins anew: ${this.#failure}`;
  }

  get isReached(): boolean {
    return this.#running !== undefined && this.#running.link.unreachableSince === undefined;
  }

  seek(partition: number, offset: bigint): void {
    const { topic } = this.#options;
    this.#tell((consumer) => consumer.seek({ topic, partition, offset: String(offset) }));
  }

  pause(partitions: readonly number[]): void {
    const { topic } = this.#options;
    this.#tell((consumer) => consumer.pause([{ topic, partitions: [...partitions] }]));
  }

  resume(partitions: readonly number[]): void {
    const { topic } = this.#options;
    this.#tell((consumer) => consumer.resume([{ topic, partitions: [...partitions] }]));
  }

  /** Rejects where the member is not in the group at this moment. (3) */
  async commit(offsets: ReadonlyMap<number, bigint>): Promise<void> {
    if (offsets.size === 0) return;
    const { topic } = this.#options;
    const running = this.#running;
    if (running?.isJoined !== true) throw notJoined(topic);
    if (running.commit !== undefined) {
      await running.commit(offsets);
      return;
    }
    // Before the first batch the library has this way only, which repeats the attempt.
    await running.consumer.commitOffsets(
      [...offsets].map(([partition, offset]) => ({ topic, partition, offset: String(offset) })),
    );
  }

  /** Leaves the group. Never rejects. Idempotent. */
  async stop(): Promise<void> {
    await this.#end(leaveMs);
  }

  /** The same in less time: where leaving fails the group waits until the member's session is over. */
  async destroy(): Promise<void> {
    await this.#end(hastyLeaveMs);
  }

  async #end(limitMs: number): Promise<void> {
    const running = this.#running;
    if (running !== undefined && !this.#stopped.signal.aborted) await leave(running.consumer, limitMs);
    const reason = new InfraUnavailableError("the subscription has ended", { retryable: false });
    this.#joined.reject(reason);
    this.#stopped.abort(reason);
    this.#running?.link.cut();
    await this.#loop;
  }

  /** Without effect where there is no member; the next one is told all of it when it has its partitions. (1) */
  #tell(what: (consumer: Consumer) => void): void {
    const running = this.#running;
    if (running?.isJoined !== true) return;
    try {
      what(running.consumer);
    } catch (thrown) {
      // The library gave up a moment ago, and has not said so yet.
      this.#options.log.debug({ err: thrown }, `Kafka consumer: ${messageOf(thrown)}`);
    }
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      await this.#consume(signal);
      const pauseMs = Math.min(restartMs * 2 ** this.#failures, longestRestartMs);
      await sleep(pauseMs * (0.75 + Math.random() / 2), signal).catch(() => undefined);
    }
  }

  #gaveUp(thrown: unknown): void {
    const { topic, group, log } = this.#options;
    this.#failure = messageOf(thrown);
    this.#failures += 1;
    log.warn({ topic, group }, `Reading ${topic} begins anew: ${this.#failure}`);
  }

  /** Resolves when the library gave up, or the reader ended. */
  async #consume(signal: AbortSignal): Promise<void> {
    const { link: linkOptions, topics, topic, group } = this.#options;
    const { onRebalance = () => Promise.resolve() } = this.#options;
    const link = new KafkaLink(linkOptions, forEver, onRebalance);
    let cluster: Cluster | undefined;
    const consumer = link.kafka.consumer({
      groupId: group,
      partitionAssigners: [
        stickyAssigner({
          library: linkOptions.library,
          owned: () => this.#assigned,
          partitionsOf: (other) => topics.partitions(other),
          onCluster: (known) => (cluster = known),
        }),
      ],
      retry: { ...forEver, restartOnFailure: async () => false },
      maxWaitTimeInMs,
      sessionTimeout,
      heartbeatInterval,
      rebalanceTimeout,
      metadataMaxAge,
      allowAutoTopicCreation: false,
    });
    const running: Running = { link, consumer, isJoined: false, commit: undefined };
    const crashed = Promise.withResolvers<never>();
    crashed.promise.catch(() => undefined);
    consumer.on("consumer.crash", ({ payload }) => crashed.reject(payload.error));
    consumer.on("consumer.group_join", ({ payload }) => {
      running.isJoined = true;
      this.#memberId = payload.memberId;
      this.#failure = undefined;
      this.#failures = 0;
      this.#assigned = payload.memberAssignment[topic] ?? [];
      this.#options.onAssigned(this.#assigned);
      this.#joined.resolve(undefined);
    });
    consumer.on("consumer.end_batch_process", ({ payload: { partition, lastOffset, batchSize } }) => {
      if (batchSize === 0) this.#options.onSkipped?.(partition, BigInt(lastOffset) + 1n);
    });
    this.#running = running;
    const work = async (): Promise<never> => {
      await consumer.connect();
      // Where an offset is no longer there reading goes on at the earliest that is: nothing more is lost.
      await consumer.subscribe({ topic, fromBeginning: true });
      if (cluster !== undefined) await this.#dismissFormer(cluster);
      await consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        eachBatch: (payload) => this.#batch(running, payload),
      });
      return await crashed.promise;
    };
    try {
      await abortable(Promise.race([work(), crashed.promise]), signal);
    } catch (thrown) {
      if (!signal.aborted) this.#gaveUp(thrown);
    }
    link.cut();
    if (this.#running === running) this.#running = undefined;
    await leave(consumer, hastyLeaveMs);
  }

  /**
   * Takes the member that the library gave up out of the group, which would wait until its session is over before it
   * gives out its partitions.
   */
  async #dismissFormer(cluster: Cluster): Promise<void> {
    const { group: groupId, log } = this.#options;
    const memberId = this.#memberId;
    if (memberId === undefined) return;
    this.#memberId = undefined;
    const leaving = (async () => {
      const coordinator = (await cluster.findGroupCoordinator({ groupId })) as Broker & LeavesGroups;
      await coordinator.leaveGroup({ groupId, memberId });
    })();
    await within(
      leaving.catch((thrown: unknown) => {
        // It had left, or its session was over.
        log.debug({ group: groupId, err: thrown }, `No former member to dismiss: ${messageOf(thrown)}`);
      }),
      hastyLeaveMs,
    );
  }

  async #batch(running: Running, payload: EachBatchPayload): Promise<void> {
    const { batch } = payload;
    const { topic, partition } = batch;
    running.commit = async (offsets) => {
      const partitions = [...offsets].map(([id, offset]) => ({ partition: id, offset: String(offset) }));
      await payload.commitOffsetsIfNecessary({ topics: [{ topic, partitions }] });
    };
    const last = batch.messages.at(-1);
    // A seek since the read wins over what was read.
    if (last === undefined || payload.isStale() || this.#stopped.signal.aborted) return;
    const taken = await this.#options.onBatch({
      partition,
      messages: batch.messages.map((message) => delivered(topic, partition, message)),
      next: BigInt(batch.lastOffset()) + 1n,
      end: BigInt(batch.highWatermark),
    });
    if (taken && !payload.isStale()) payload.resolveOffset(last.offset); // (2)
  }
}

type Raw = EachBatchPayload["batch"]["messages"][number];

const decoder = new TextDecoder();

function delivered(topic: string, partition: number, message: Raw): DeliveredMessage {
  const { key, value, offset, timestamp, headers = {} } = message;
  return {
    topic,
    partition,
    offset,
    key: key === null ? null : decoder.decode(key),
    value,
    headers: Object.fromEntries(
      Object.entries(headers).flatMap(([name, header]) => {
        const first = Array.isArray(header) ? header[0] : header;
        if (first === undefined) return [];
        return [[name, typeof first === "string" ? first : decoder.decode(first)]];
      }),
    ),
    timestamp: Number(timestamp),
  };
}

async function leave(consumer: Consumer, limitMs: number): Promise<void> {
  await within(
    consumer.disconnect().catch(() => undefined),
    limitMs,
  );
}

const notJoined = (topic: string): InfraUnavailableError =>
  new InfraUnavailableError(`the reader of ${topic} is not in its group at the moment`, { retryable: true });
