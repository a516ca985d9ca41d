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
 * 7. A member that was away for longer than its session may have lost a partition and got it back without being told:
 *    whenever partitions were shared out, what the group has committed is asked for before anything of them begins or
 *    is committed. What others did meanwhile is not done again; what nobody did goes on where it was. Until it is
 *    heard that it still is a member, nothing begins.
 * 8. A message whose dead letter no topic will ever take is done: it is in the log, and never blocks the next one.
 * 9. A topic that was made anew is read from its beginning, whatever of the one before was read or committed.
 */
import { abortable, abortReason, sleep, within } from "../core/abort.ts";
import { monotonicClock } from "../core/clock.ts";
import { InfraAuthenticationError, InfraUnavailableError, OnexError, messageOf } from "../core/errors.ts";
import type { LogFields, Logger } from "../core/log.ts";
import { thinned } from "../core/thinned-log.ts";
import {
  isTooLarge,
  type BusMessage,
  type DeadLetterCategory,
  type DeliveredMessage,
  type MessageHandler,
} from "./bus.ts";
import { deadLetter } from "./dead-letter.ts";
import { Chains } from "./kafka-chains.ts";
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
  /** False until it is known where to read from. (1) (7) */
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
const finalCommitPauseMs = 100;
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
  /** Counts how often partitions were shared out. */
  #round = 0;
  #settling: Promise<void> = Promise.resolve();
  /** While partitions are about to be shared out anew. (6) */
  #rebalance: PromiseWithResolvers<undefined> | undefined;
  #commitTimer: NodeJS.Timeout | undefined;
  #committing: Promise<void> = Promise.resolve();
  #stuckLetters = 0;
  #lostLetters = 0;
  readonly #onStuckLetter: (fields: LogFields) => void;
  #stopped: Promise<void> | undefined;

  constructor(options: SubscriptionOptions, parts: SubscriptionParts) {
    this.#options = options;
    this.#parts = parts;
    this.#onStuckLetter = thinned(
      (fields) => parts.log.warn(fields, "A dead letter could not be published yet"),
      monotonicClock,
    );
    this.#chains = new Chains(
      parts.concurrency,
      (item) => this.#work(item),
      () => this.#reader.isMember,
    );
    this.#reader = new KafkaReader({
      link: parts.link,
      topics: parts.topics,
      log: parts.log,
      topic: options.topic,
      group: options.group,
      create: { ...(parts.partitions !== undefined && { partitions: parts.partitions }) },
      onRemade: () => this.#remade(),
      onAssigned: (partitions) => this.#assigned(partitions),
      onRebalance: () => this.#beforeRebalance(),
      onHeartbeat: () => this.#chains.check(),
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
    const identity = await topics.identity(topic, either);
    const bounds = await topics.bounds(topic, either);
    this.#ends = new Map([...bounds].map(([partition, { high }]) => [partition, high]));
    await this.#reader.start(identity, either);
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

  /** What an operator should see, although it works. (8) */
  get notice(): string | undefined {
    if (this.#lostLetters === 0) return undefined;
    return `${this.#options.topic}: ${this.#lostLetters} dead letters are in the log only: their topic does not take them`;
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
    await within(this.#commitAll(), finalCommitMs);
    this.#abort(new InfraUnavailableError("the subscription has ended", { retryable: false }));
    clearTimeout(this.#commitTimer);
    await this.#reader.stop();
  }

  /** Tried until it is done: while members come and go the brokers refuse commits. */
  async #commitAll(): Promise<void> {
    const { signal } = this.#ended;
    while (!signal.aborted) {
      await this.#commitNow();
      if ([...this.#assignments.values()].every(isCommitted)) return;
      await sleep(finalCommitPauseMs, signal).catch(() => undefined);
    }
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
    this.#rebalance ??= Promise.withResolvers();
    this.#chains.hold();
    await within(this.#chains.idle(), rebalanceMs);
    await within(this.#commitNow(), rebalanceMs);
  }

  /** (9) */
  #remade(): void {
    for (const { abort } of this.#assignments.values()) abort.abort(madeAnew());
    this.#assignments.clear();
    this.#ends = new Map();
  }

  /** (3) (4) (7) */
  #assigned(partitions: readonly number[]): void {
    for (const [partition, assignment] of this.#assignments) {
      if (partitions.includes(partition)) continue;
      this.#assignments.delete(partition);
      assignment.abort.abort(this.#goneTo(partition));
    }
    for (const partition of partitions) {
      const known = this.#assignments.get(partition);
      if (known === undefined) this.#assignments.set(partition, newAssignment(partition));
      else known.isSettled = false;
    }
    this.#round += 1;
    this.#rebalance?.resolve(undefined);
    this.#rebalance = undefined;
    this.#chains.hold();
    this.#reader.pause(partitions);
    this.#settling = this.#settle(this.#round);
    this.#settling.catch(() => undefined);
  }

  /** Asks what the group has committed, and begins there, or where this member was. (1) (7) */
  async #settle(round: number): Promise<void> {
    const { topic, group } = this.#options;
    const { topics, log } = this.#parts;
    const { signal } = this.#ended;
    for (;;) {
      const isDone = [...this.#assignments.values()].every(({ isSettled }) => isSettled);
      const committed = isDone
        ? new Map<number, bigint>()
        : await topics.committed(group, topic, this.#reader.identity, signal);
      if (this.#rebalance !== undefined) await abortable(this.#rebalance.promise, signal); // (6)
      // Partitions were shared out again, which asks again: this answer may be older.
      if (round !== this.#round) {
        await this.#settling;
        return;
      }
      const without = new Map<number, bigint>();
      for (const assignment of this.#assignments.values()) {
        const { partition, isSettled, progress } = assignment;
        if (isSettled) continue;
        const offset = committed.get(partition) ?? -1n;
        // One whose offsets were removed from the group goes on as well.
        if (offset >= 0n || progress.next !== undefined) this.#begin(assignment, offset);
        else without.set(partition, this.#ends.get(partition) ?? 0n);
      }
      // What runs of an earlier assignment in this process still has its lanes.
      if (!this.#isStopping) this.#chains.release();
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

  /** @param committed negative: nothing (7) */
  #begin(known: Assignment, committed: bigint): void {
    const { partition } = known;
    let assignment = known;
    if (known.progress.next !== undefined && committed > known.progress.next) {
      known.abort.abort(this.#goneTo(partition));
      assignment = newAssignment(partition);
      this.#assignments.set(partition, assignment);
    }
    const { progress } = assignment;
    progress.skip(committed);
    assignment.isSettled = true;
    assignment.committed = committed < 0n ? undefined : committed;
    // The library would begin again with what was committed.
    this.#reader.seek(partition, progress.next ?? committed);
    if (!assignment.isPaused && !this.#isStopping) this.#reader.resume([partition]);
    this.#commitSoon();
  }

  #goneTo(partition: number): InfraUnavailableError {
    return new InfraUnavailableError(
      `partition ${partition} of ${this.#options.topic} went to another member of the group`,
      { retryable: true },
    );
  }

  #take({ partition, messages, next, end }: ReadBatch): boolean {
    let assignment = this.#assignments.get(partition);
    if (assignment?.isSettled !== true || this.#isStopping || !this.#reader.isMember) return false;
    if (end < (assignment.progress.next ?? 0n)) {
      // Where brokers tell no ids this is how it is known. (9)
      assignment.abort.abort(madeAnew());
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
    const { progress, abort } = assignment;
    const { signal } = abort;
    const offset = BigInt(message.offset);
    if (signal.aborted) return;
    try {
      // Another member may have done it. (7)
      if (progress.isOpen(offset)) await this.#options.handler(message, signal);
    } catch (thrown) {
      if (abort.signal.aborted) return;
      if (progress.isOpen(offset) && !(await this.#bury(message, thrown, signal))) return;
    }
    progress.finish(offset);
    assignment.bytes -= message.value?.length ?? 0;
    this.#bound(assignment);
    this.#commitSoon();
  }

  /** Puts the message on the dead-letter topic, however long that takes. False where the subscription ended first. (8) */
  async #bury(message: DeliveredMessage, thrown: unknown, signal: AbortSignal): Promise<boolean> {
    const { topic, partition, offset, key } = message;
    const { environment, source, log, publish, deadLetter: isWanted } = this.#parts;
    const { group, category } = this.#options;
    const options = { environment, source, category };
    let letter = deadLetter(message, thrown, options);
    log.error(
      { topic, partition, offset, keyed_by: key, group, ...letter.fields, err: thrown },
      `A message handler failed: ${messageOf(thrown)}`,
    );
    // A letter about a letter would come back here.
    if (!isWanted || letter.topic === topic) return true;
    this.#stuckLetters += 1;
    const until = AbortSignal.any([signal, this.#stopping.signal]);
    let isShort = false;
    try {
      for (let pauseMs = letterPauseMs.first; ; pauseMs = Math.min(pauseMs * 2, letterPauseMs.longest)) {
        try {
          await publish(letter.topic, letter.message);
          return true;
        } catch (failure) {
          if (until.aborted) return false;
          if (isTooLarge(failure) && !isShort) {
            letter = deadLetter(message, thrown, options, false);
            isShort = true;
          } else if (isHopeless(failure)) {
            this.#lostLetters += 1;
            log.error(
              {
                topic,
                partition,
                offset,
                keyed_by: key,
                group,
                ...letter.fields,
                error: messageOf(failure),
              },
              `A dead letter cannot be put on ${letter.topic}; its message is done without it`,
            );
            return true;
          } else {
            this.#onStuckLetter({ topic: letter.topic, error: messageOf(failure) });
            await sleep(pauseMs, until);
          }
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
      if (assignment.isSettled) this.#reader.resume([partition]);
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
    for (const assignment of this.#assignments.values()) {
      const { committable } = assignment.progress;
      if (!assignment.isSettled || committable === undefined || isCommitted(assignment)) continue;
      offsets.set(assignment.partition, committable);
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

const madeAnew = (): InfraUnavailableError =>
  new InfraUnavailableError("the topic was made anew", { retryable: true });

function isCommitted({ progress: { committable }, committed }: Assignment): boolean {
  return committable === undefined || (committed !== undefined && committable <= committed);
}

/** What no further attempt would change. A login that is refused is the bus's trouble, not the letter's. */
function isHopeless(failure: unknown): boolean {
  if (!(failure instanceof OnexError) || failure.retryable) return false;
  const { broker_code: code } = failure.facts;
  return (
    !(failure instanceof InfraAuthenticationError) ||
    /(TOPIC|CLUSTER)_AUTHORIZATION_FAILED$/.test(String(code))
  );
}
