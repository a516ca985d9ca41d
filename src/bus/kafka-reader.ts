/**
 * One member of a consumer group that reads one topic, for as long as it takes. Owns: the library's consumer, building
 * it anew when it gave up, and which partitions it was given. Does not own: where a partition is read from, what
 * happens to messages, what is committed when (`kafka-consumer.ts`, `kafka-follow.ts`).
 *
 * 1. `onAssigned` is called before anything of the partitions is read, so that what it seeks or pauses holds.
 * 2. Nothing is read past a batch that `onBatch` did not take.
 * 3. A commit is one attempt, under the membership of this moment: one repeated later could rewind a partition that
 *    another member has gone on with.
 * 4. A topic that was deleted is made again where that is allowed, else waited for. One that was made anew is read from
 *    its beginning: whether it was is asked whenever partitions are shared out, before anything of them is handed over;
 *    when offsets come that had come before; and now and then.
 */
import type { Broker, Cluster, Consumer, EachBatchPayload } from "kafkajs";
import { abortable, sleep, within } from "../core/abort.ts";
import { backoffMs } from "../core/backoff.ts";
import { InfraUnavailableError, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { stickyAssigner } from "./kafka-assigner.ts";
import { KafkaLink, type LinkOptions } from "./kafka-link.ts";
import type { DeliveredMessage } from "./bus.ts";
import { commitNote, type KafkaTopics, type NewTopic } from "./kafka-topics.ts";

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
  /** How the topic is made again; undefined: it is waited for. (4) */
  readonly create: NewTopic | undefined;
  /** The topic was made anew: no position in it holds any more. Is called while the member has no partitions. (4) */
  readonly onRemade: () => void;
  /** The member's partitions, at every change. (1) */
  readonly onAssigned: (partitions: readonly number[]) => void;
  /** The group is about to share its partitions out again, and waits for this; never rejects. */
  readonly onRebalance?: () => Promise<void>;
  /** `isMember` is true again, or still. */
  readonly onHeartbeat?: () => void;
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
const restart = { firstMs: 500, maxMs: 2000 };
const leaveMs = 3000;
const hastyLeaveMs = 1000;

/** Between questions whether the topic is still the same. (4) */
const lookMs = 2000;
/** For whoever deleted a topic to make it anew himself. (4) */
const remakeMs = 2000;

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
  /** Ends it. */
  readonly fail: (reason: Error) => void;
  /** Whether the topic is the same, asked when partitions were shared out. (4) */
  looking: Promise<boolean>;
}

/** (4) */
class TopicGone extends Error {}

export class KafkaReader {
  readonly #options: ReaderOptions;
  readonly #stopped = new AbortController();
  readonly #joined = Promise.withResolvers<undefined>();
  #assigned: readonly number[] = [];
  /** As which it joined the group last. */
  #memberId: string | undefined;
  /** When its group last said that it is a member, in milliseconds of `performance.now`. */
  #memberAt = -Infinity;
  /** Why the library gave up; undefined once the member is in its group again. */
  #failure: string | undefined;
  #failures = 0;
  #running: Running | undefined;
  /** Of the topic that is read. (4) */
  #identity = "";
  /** By partition, what the next message must lie beyond. (4) */
  readonly #reached = new Map<number, bigint>();
  #loop: Promise<void> | undefined;

  constructor(options: ReaderOptions) {
    this.#options = options;
    this.#joined.promise.catch(() => undefined);
  }

  /**
   * Resolves when the member has its partitions for the first time.
   *
   * @param identity of the topic, from before its offsets were asked for
   */
  async start(identity: string, signal: AbortSignal): Promise<void> {
    this.#identity = identity;
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

  /** Of the topic that is read; `""` where it is not known. */
  get identity(): string {
    return this.#identity;
  }

  get isReached(): boolean {
    return this.#running !== undefined && this.#running.link.unreachableSince === undefined;
  }

  /** False where its session may be over, and its partitions another one's, because nothing was heard for as long. */
  get isMember(): boolean {
    return performance.now() - this.#memberAt < sessionTimeout;
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
      [...offsets].map(([partition, offset]) => ({
        topic,
        partition,
        offset: String(offset),
        metadata: commitNote(this.#identity),
      })),
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
      try {
        await this.#awaitTopic(signal);
        await this.#consume(signal);
        await sleep(backoffMs(this.#failures, restart), signal);
      } catch {
        // It has ended.
      }
    }
  }

  /** (4) */
  async #awaitTopic(signal: AbortSignal): Promise<void> {
    const { topics, topic, create, onRemade, log } = this.#options;
    if (create !== undefined) await topics.ensure(topic, create, signal);
    const identity = await topics.identity(topic, signal);
    if (isAnother(identity, this.#identity)) {
      log.warn({ topic }, `Topic ${topic} was made anew: it is read from its beginning`);
      this.#assigned = [];
      this.#reached.clear();
      onRemade();
    }
    if (identity !== "") this.#identity = identity;
  }

  /** False where the topic is gone or another one: then reading begins anew. Never rejects. (4) */
  async #look(running: Running): Promise<boolean> {
    const { topics, topic } = this.#options;
    const { identity } = this;
    let found: string | undefined;
    try {
      found = await topics.look(topic);
    } catch {
      // Its brokers are away, which is told elsewhere.
      return true;
    }
    if (found === undefined) running.fail(new TopicGone(`topic ${topic} does not exist any more`));
    else if (isAnother(found, identity)) running.fail(new Error(`topic ${topic} was made anew`));
    else return true;
    return false;
  }

  async #watch(running: Running, signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        await sleep(lookMs, signal);
        await this.#look(running);
      }
    } catch {
      // It is over.
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
    const crashed = Promise.withResolvers<never>();
    const running: Running = {
      link,
      consumer,
      isJoined: false,
      commit: undefined,
      fail: crashed.reject,
      looking: Promise.resolve(true),
    };
    const over = new AbortController();
    crashed.promise.catch(() => undefined);
    consumer.on("consumer.crash", ({ payload }) => crashed.reject(payload.error));
    consumer.on("consumer.group_join", ({ payload }) => {
      running.isJoined = true;
      running.looking = this.#look(running);
      this.#memberId = payload.memberId;
      this.#memberAt = performance.now();
      this.#failure = undefined;
      this.#failures = 0;
      this.#assigned = payload.memberAssignment[topic] ?? [];
      this.#options.onAssigned(this.#assigned);
      this.#joined.resolve(undefined);
    });
    consumer.on("consumer.heartbeat", () => {
      this.#memberAt = performance.now();
      this.#options.onHeartbeat?.();
    });
    consumer.on("consumer.end_batch_process", ({ payload: { partition, lastOffset, batchSize } }) => {
      if (batchSize === 0) this.#options.onSkipped?.(partition, BigInt(lastOffset) + 1n);
    });
    this.#running = running;
    void this.#watch(running, AbortSignal.any([signal, over.signal]));
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
    let isGone = false;
    try {
      await abortable(Promise.race([work(), crashed.promise]), signal);
    } catch (thrown) {
      if (!signal.aborted) this.#gaveUp(thrown);
      isGone = thrown instanceof TopicGone;
    }
    over.abort();
    link.cut();
    if (this.#running === running) this.#running = undefined;
    await leave(consumer, hastyLeaveMs);
    if (isGone) await sleep(remakeMs, signal).catch(() => undefined);
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
      const metadata = commitNote(this.#identity);
      const partitions = [...offsets].map(([id, offset]) => ({
        partition: id,
        offset: String(offset),
        metadata,
      }));
      await payload.commitOffsetsIfNecessary({ topics: [{ topic, partitions }] });
    };
    const [first] = batch.messages;
    const last = batch.messages.at(-1);
    const end = BigInt(batch.highWatermark);
    const reached = this.#reached.get(partition) ?? 0n;
    const isBehind = end < reached || (first !== undefined && BigInt(first.offset) < reached);
    if (isBehind) running.looking = this.#look(running);
    if ((await within(running.looking, lookMs)) === false) return; // (4)
    if (this.#running !== running) return;
    // A seek since the read wins over what was read.
    if (last === undefined || payload.isStale() || this.#stopped.signal.aborted) return;
    const next = BigInt(batch.lastOffset()) + 1n;
    const taken = await this.#options.onBatch({
      partition,
      messages: batch.messages.map((message) => delivered(topic, partition, message)),
      next,
      end,
    });
    if (!taken || payload.isStale()) return;
    payload.resolveOffset(last.offset); // (2)
    this.#reached.set(partition, next);
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

/** Where one of the two is not known they are taken for the same. */
const isAnother = (one: string, other: string): boolean => one !== "" && other !== "" && one !== other;

const notJoined = (topic: string): InfraUnavailableError =>
  new InfraUnavailableError(`the reader of ${topic} is not in its group at the moment`, { retryable: true });
