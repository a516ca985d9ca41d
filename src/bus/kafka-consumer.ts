/**
 * A subscription on Kafka. Owns: from where a group reads, running messages by key, dead letters, and what is committed.
 * Does not own: connections and membership (`kafka-reader.ts`), order by key (`kafka-chains.ts`).
 *
 * 1. A partition is read only from an offset that its group has committed: a group that is new gets the offsets that
 *    the topic had before it joined, at once, so that no change of members skips a message.
 * 2. An offset is committed when every message before it is done: handled, or on the dead-letter topic.
 * 3. A partition that was taken away aborts what runs of it: another member begins with what was not committed.
 * 4. A message is handed out at most once per assignment of its partition.
 * 5. What was taken and is not done is bounded; beyond it the partition is paused.
 * 6. Before partitions are shared out anew, what runs may end and is committed, so that it does not run again elsewhere.
 */
import { abortReason, sleep, within } from "../core/abort.ts";
import { monotonicClock } from "../core/clock.ts";
import { InfraUnavailableError, messageOf } from "../core/errors.ts";
import type { LogFields, Logger } from "../core/log.ts";
import { thinned } from "../core/thinned-log.ts";
import type { BusMessage, DeadLetterCategory, DeliveredMessage, MessageHandler } from "./bus.ts";
import { deadLetter } from "./dead-letter.ts";
import { Chains } from "./kafka-chains.ts";
import { isTooLarge } from "./kafka-errors.ts";
import type { LinkOptions } from "./kafka-link.ts";
import { Progress } from "./kafka-progress.ts";
import { KafkaReader, type ReadBatch } from "./kafka-reader.ts";
import type { KafkaTopics } from "./kafka-topics.ts";

export interface SubscriptionParts {
  readonly link: LinkOptions;
  readonly topics: KafkaTopics;
  readonly publish: (topic: string, message: BusMessage) => Promise<void>;
  readonly concurrency: number;
  readonly environment: string;
  readonly source: string;
  readonly deadLetter: boolean;
  readonly partitions: number | undefined;
  readonly log: Logger;
}

export interface SubscriptionOptions {
  readonly topic: string;
  readonly group: string;
  readonly handler: MessageHandler;
  readonly category: DeadLetterCategory;
}

/** One assignment of a partition to this member. */
interface Assignment {
  readonly partition: number;
  readonly progress: Progress;
  /** Aborted when it was taken away, or the subscription gave up. */
  readonly abort: AbortController;
  /** False until it is known where to read from. (1) */
  isSettled: boolean;
  isPaused: boolean;
  /** Bytes of what is not done. */
  bytes: number;
  committed: bigint | undefined;
}

interface Item {
  readonly message: DeliveredMessage;
  readonly assignment: Assignment;
}

/** Per partition. (5) */
const maxUnfinished = 2000;
const maxUnfinishedBytes = 16 * 1024 * 1024;
/** Commits wait so long for others to join them. */
const commitDelayMs = 50;
const failedCommitDelayMs = 500;
const finalCommitMs = 3000;
/** For running handlers to end before a rebalance, which all members of the group wait for. */
const rebalanceMs = 3000;
/** For handlers that were aborted to end. */
const abortedHandlersMs = 1000;
const letterPauseMs = { first: 500, longest: 5000 };

export class KafkaSubscription {
  readonly #options: SubscriptionOptions;
  readonly #parts: SubscriptionParts;
  readonly #reader: KafkaReader;
  readonly #chains: Chains<Item>;
  /** Nothing more is handed out. */
  readonly #stopping = new AbortController();
  readonly #ended = new AbortController();
  readonly #assignments = new Map<number, Assignment>();
  /** Where the topic ended when the subscription began. (1) */
  #ends: ReadonlyMap<number, bigint> = new Map();
  #settling: Promise<void> = Promise.resolve();
  #commitTimer: NodeJS.Timeout | undefined;
  #committing: Promise<void> = Promise.resolve();
  #stuckLetters = 0;
  readonly #onStuckLetter: (fields: LogFields) => void;
  #stopped: Promise<void> | undefined;

  constructor(options: SubscriptionOptions, parts: SubscriptionParts) {
    this.#options = options;
    this.#parts = parts;
    this.#onStuckLetter = thinned(
      (fields) => parts.log.warn(fields, "A dead letter could not be published yet"),
      monotonicClock,
    );
    this.#chains = new Chains(parts.concurrency, (item) => this.#work(item));
    this.#reader = new KafkaReader({
      link: parts.link,
      topics: parts.topics,
      log: parts.log,
      topic: options.topic,
      group: options.group,
      onAssigned: (partitions) => this.#assigned(partitions),
      onRebalance: () => this.#beforeRebalance(),
      onBatch: (batch) => this.#take(batch),
      onSkipped: (partition, next) => this.#assignments.get(partition)?.progress.passed(next),
    });
  }

  /** Resolves once messages published from now on will be delivered. Waits for brokers and topic. */
  async start(signal: AbortSignal): Promise<void> {
    const { topic } = this.#options;
    const { topics, partitions } = this.#parts;
    const either = AbortSignal.any([signal, this.#ended.signal]);
    await topics.ensure(topic, { ...(partitions !== undefined && { partitions }) }, either);
    const bounds = await topics.bounds(topic, either);
    this.#ends = new Map([...bounds].map(([partition, { high }]) => [partition, high]));
    await this.#reader.start(either);
    await this.#settling;
  }

  /** What is wrong with it. */
  get problems(): string[] {
    const { topic } = this.#options;
    const { problem } = this.#reader;
    return [
      ...(problem === undefined ? [] : [problem]),
      ...(this.#stuckLetters === 0
        ? []
        : [`${topic}: ${this.#stuckLetters} dead letters cannot be published`]),
    ];
  }

  /** Hands out nothing more, waits for what runs, commits and leaves. `signal` aborts what runs. Never rejects. */
  stop(signal?: AbortSignal): Promise<void> {
    const abort = (): void => this.#abort(abortReason(signal));
    if (signal?.aborted === true) abort();
    else signal?.addEventListener("abort", abort, { once: true });
    this.#stopped ??= this.#stop();
    return this.#stopped.finally(() => signal?.removeEventListener("abort", abort));
  }

  /** Aborts what runs and closes now. */
  async destroy(reason: Error): Promise<void> {
    this.#stopping.abort(new InfraUnavailableError("the subscription ends", { retryable: false }));
    this.#abort(reason);
    clearTimeout(this.#commitTimer);
    await this.#reader.destroy();
  }

  async #stop(): Promise<void> {
    this.#stopping.abort(new InfraUnavailableError("the subscription ends", { retryable: false }));
    this.#chains.hold();
    this.#reader.pause([...this.#assignments.keys()]);
    const aborted = new Promise<void>((resolve) => {
      if (this.#ended.signal.aborted) resolve();
      else this.#ended.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    await Promise.race([this.#chains.idle(), aborted]);
    await within(this.#chains.idle(), abortedHandlersMs);
    await within(this.#commitNow(), finalCommitMs);
    this.#abort(new InfraUnavailableError("the subscription has ended", { retryable: false }));
    await this.#reader.stop();
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  #abort(reason: Error): void {
    this.#chains.hold();
    this.#ended.abort(reason);
    for (const { abort } of this.#assignments.values()) abort.abort(reason);
  }

  /** Begins nothing more, lets what runs end, and commits it, within a limit. (6) */
  async #beforeRebalance(): Promise<void> {
    this.#chains.hold();
    await within(this.#chains.idle(), rebalanceMs);
    await within(this.#commitNow(), rebalanceMs);
  }

  /** (3) (4) */
  #assigned(partitions: readonly number[]): void {
    for (const [partition, assignment] of this.#assignments) {
      if (partitions.includes(partition)) continue;
      this.#assignments.delete(partition);
      assignment.abort.abort(
        new InfraUnavailableError(
          `partition ${partition} of ${this.#options.topic} went to another member of the group`,
          { retryable: true },
        ),
      );
    }
    const added: number[] = [];
    for (const partition of partitions) {
      const known = this.#assignments.get(partition);
      const next = known?.isSettled === true ? known.progress.next : undefined;
      if (next === undefined) added.push(partition);
      // The library would begin again with what was committed.
      else this.#reader.seek(partition, next);
      if (known?.isPaused === true) this.#reader.pause([partition]);
      if (known === undefined) this.#assignments.set(partition, newAssignment(partition));
    }
    // What runs of an earlier assignment in this process still has its lanes.
    if (!this.#isStopping && !this.#ended.signal.aborted) this.#chains.release();
    if (added.length === 0) return;
    this.#reader.pause(added);
    this.#settling = this.#settle(added.flatMap((id) => this.#assignments.get(id) ?? []));
    this.#settling.catch(() => undefined);
  }

  /** (1) */
  async #settle(added: readonly Assignment[]): Promise<void> {
    const { topic, group } = this.#options;
    const { topics, log } = this.#parts;
    const { signal } = this.#ended;
    const isOurs = (assignment: Assignment): boolean =>
      this.#assignments.get(assignment.partition) === assignment && !assignment.abort.signal.aborted;
    for (;;) {
      const committed = await topics.committed(group, topic, signal);
      const ours = added.filter((assignment) => isOurs(assignment) && !assignment.isSettled);
      const settled: number[] = [];
      const without = new Map<number, bigint>();
      for (const assignment of ours) {
        const { partition } = assignment;
        const offset = committed.get(partition) ?? -1n;
        if (offset >= 0n) {
          assignment.isSettled = true;
          assignment.committed = offset;
          assignment.progress.passed(offset);
          this.#reader.seek(partition, offset);
          settled.push(partition);
        } else without.set(partition, this.#ends.get(partition) ?? 0n);
      }
      if (!this.#isStopping) this.#reader.resume(settled);
      if (without.size === 0) return;
      try {
        await this.#reader.commit(without);
      } catch (thrown) {
        log.debug(
          { topic, group, err: thrown },
          `The first offsets were not committed: ${messageOf(thrown)}`,
        );
        await sleep(100, signal);
      }
    }
  }

  #take({ partition, messages, next, end }: ReadBatch): boolean {
    let assignment = this.#assignments.get(partition);
    if (assignment?.isSettled !== true || this.#isStopping) return false;
    if (end < (assignment.progress.next ?? 0n)) {
      // The topic was deleted and made anew.
      assignment.abort.abort(new InfraUnavailableError("the topic was made anew", { retryable: true }));
      assignment = { ...newAssignment(partition), isSettled: true };
      this.#assignments.set(partition, assignment);
    }
    for (const message of messages) {
      if (!assignment.progress.take(BigInt(message.offset))) continue;
      assignment.bytes += message.value?.length ?? 0;
      this.#chains.add(
        { message, assignment },
        message.key === null ? undefined : `${partition} ${message.key}`,
      );
    }
    assignment.progress.passed(next);
    this.#bound(assignment);
    return true;
  }

  async #work({ message, assignment }: Item): Promise<void> {
    const { signal } = assignment.abort;
    if (signal.aborted) return;
    try {
      await this.#options.handler(message, signal);
    } catch (thrown) {
      if (assignment.abort.signal.aborted || !(await this.#bury(message, thrown, signal))) return;
    }
    assignment.progress.finish(BigInt(message.offset));
    assignment.bytes -= message.value?.length ?? 0;
    this.#bound(assignment);
    this.#commitSoon();
  }

  /** Puts the message on the dead-letter topic, however long that takes. False where the subscription ended first. */
  async #bury(message: DeliveredMessage, thrown: unknown, signal: AbortSignal): Promise<boolean> {
    const { topic, partition, offset, key } = message;
    const { environment, source, log, publish, deadLetter: isWanted } = this.#parts;
    const { group, category } = this.#options;
    const options = { environment, source, category };
    let letter = deadLetter(message, thrown, options);
    log.error(
      { topic, partition, offset, key, group, ...letter.fields, err: thrown },
      `A message handler failed: ${messageOf(thrown)}`,
    );
    // A letter about a letter would come back here.
    if (!isWanted || letter.topic === topic) return true;
    this.#stuckLetters += 1;
    const until = AbortSignal.any([signal, this.#stopping.signal]);
    try {
      for (let pauseMs = letterPauseMs.first; ; pauseMs = Math.min(pauseMs * 2, letterPauseMs.longest)) {
        try {
          await publish(letter.topic, letter.message);
          return true;
        } catch (failure) {
          if (isTooLarge(failure)) letter = deadLetter(message, thrown, options, false);
          this.#onStuckLetter({ topic: letter.topic, error: messageOf(failure) });
          await sleep(pauseMs, until);
        }
      }
    } catch {
      return false;
    } finally {
      this.#stuckLetters -= 1;
    }
  }

  /** (5) */
  #bound(assignment: Assignment): void {
    const { partition, progress, bytes } = assignment;
    if (this.#assignments.get(partition) !== assignment || this.#isStopping) return;
    const share = Math.max(progress.unfinished / maxUnfinished, bytes / maxUnfinishedBytes);
    if (!assignment.isPaused && share >= 1) {
      assignment.isPaused = true;
      this.#reader.pause([partition]);
    } else if (assignment.isPaused && share <= 0.5) {
      assignment.isPaused = false;
      this.#reader.resume([partition]);
    }
  }

  #commitSoon(delayMs = commitDelayMs): void {
    // A timer, not a promise: within one turn of the loop membership and assignment cannot be of different age.
    this.#commitTimer ??= setTimeout(() => void this.#commitNow(), delayMs);
  }

  /** Commits what is done. Never rejects: what fails is committed next time, or read again by another member. (2) */
  #commitNow(): Promise<void> {
    clearTimeout(this.#commitTimer);
    this.#commitTimer = undefined;
    const offsets = new Map<number, bigint>();
    for (const { partition, progress, committed, isSettled } of this.#assignments.values()) {
      const { committable } = progress;
      if (!isSettled || committable === undefined || committable === committed) continue;
      offsets.set(partition, committable);
    }
    if (offsets.size === 0) return this.#committing;
    const commit = async (): Promise<void> => {
      const { topic, group } = this.#options;
      const assignments = new Map(this.#assignments);
      try {
        await this.#reader.commit(offsets);
        for (const [partition, offset] of offsets) {
          const assignment = assignments.get(partition);
          if (assignment !== undefined) assignment.committed = offset;
        }
      } catch (thrown) {
        this.#parts.log.debug({ topic, group, err: thrown }, `A commit failed: ${messageOf(thrown)}`);
        if (!this.#ended.signal.aborted) this.#commitSoon(failedCommitDelayMs);
      }
    };
    this.#committing = commit();
    return this.#committing;
  }
}

const newAssignment = (partition: number): Assignment => ({
  partition,
  progress: new Progress(),
  abort: new AbortController(),
  isSettled: false,
  isPaused: false,
  bytes: 0,
  committed: undefined,
});
