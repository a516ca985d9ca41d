/**
 * Following a topic: every message, to everyone. Owns: a group of its own for each follower, removed when it closes;
 * where following begins, and when it has caught up. Does not own: what messages mean.
 *
 * 1. The offsets that the topic had when following began are recorded before the group is joined, and every partition
 *    is read from them: joining at "latest" would lose what is published in between.
 * 2. The position is kept here, not in the group: after any interruption reading goes on exactly where it stopped.
 * 3. A topic that was made anew is read from its beginning, and what was read of it before that was noticed, again.
 */
import { randomUUID } from "node:crypto";
import { InfraUnavailableError, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { FollowOptions, FollowedMessage, Following } from "./bus.ts";
import type { LinkOptions } from "./kafka-link.ts";
import { KafkaReader, type ReadBatch } from "./kafka-reader.ts";
import type { KafkaTopics } from "./kafka-topics.ts";

export interface FollowParts {
  readonly link: LinkOptions;
  readonly topics: KafkaTopics;
  readonly log: Logger;
  /** Those that are open. */
  readonly followers: Set<Follower>;
}

interface Position {
  /** The next message that is handed over. */
  next: bigint;
  /** Where the partition ended when following began; 0 where the topic was made anew since. */
  historyEnd: bigint;
  /** Where it ends now, as last known. */
  end: bigint;
}

/** For removing the group at the end; the brokers remove it in time where this fails. */
const deleteGroupMs = 2000;

/** Resolves once every message published from now on will be handed over. Rejects with the signal's reason. */
export async function followTopic(
  topic: string,
  options: FollowOptions,
  parts: FollowParts,
  signal: AbortSignal,
): Promise<Following> {
  const { create } = options;
  if (create !== undefined) await parts.topics.ensure(topic, create, signal);
  const identity = await parts.topics.identity(topic, signal);
  const bounds = await parts.topics.bounds(topic, signal);
  const positions = new Map<number, Position>();
  for (const [partition, { low, high }] of bounds) {
    positions.set(partition, { next: options.replay ? low : high, historyEnd: high, end: high });
  }
  const follower = new Follower(topic, options, parts, positions);
  parts.followers.add(follower);
  try {
    await follower.start(identity, signal);
  } catch (thrown) {
    await follower.close();
    throw thrown;
  }
  return follower;
}

export class Follower implements Following {
  readonly #topic: string;
  readonly #options: FollowOptions;
  readonly #parts: FollowParts;
  readonly #positions: Map<number, Position>;
  readonly #group = `onex-follow-${randomUUID()}`;
  readonly #reader: KafkaReader;
  readonly #caughtUp = Promise.withResolvers<undefined>();
  #closed: Promise<void> | undefined;

  constructor(topic: string, options: FollowOptions, parts: FollowParts, positions: Map<number, Position>) {
    this.#topic = topic;
    this.#options = options;
    this.#parts = parts;
    this.#positions = positions;
    this.#caughtUp.promise.catch(() => undefined);
    this.#reader = new KafkaReader({
      link: parts.link,
      topics: parts.topics,
      log: parts.log,
      topic,
      group: this.#group,
      create: options.create,
      onRemade: () => {
        this.#positions.clear(); // (3)
        this.#checkCaughtUp();
      },
      onAssigned: (partitions) => {
        // (2); a partition that was added to the topic since is all new.
        for (const partition of partitions) this.#reader.seek(partition, this.#position(partition).next);
      },
      onBatch: async (batch) => await this.#take(batch),
      onSkipped: (partition, next) => this.#advance(partition, next),
    });
  }

  get caughtUp(): Promise<void> {
    return this.#caughtUp.promise;
  }

  async start(identity: string, signal: AbortSignal): Promise<void> {
    await this.#reader.start(identity, signal);
    this.#checkCaughtUp();
  }

  status(): { readonly lag: number; readonly healthy: boolean; readonly detail?: string } {
    let lag = 0n;
    for (const { next, end } of this.#positions.values()) lag += end > next ? end - next : 0n;
    const detail = this.#closed === undefined ? this.#reader.problem : `following ${this.#topic} has ended`;
    return { lag: Number(lag), healthy: detail === undefined, ...(detail !== undefined && { detail }) };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** Closes now. */
  async destroy(): Promise<void> {
    this.#closed ??= Promise.resolve();
    this.#end();
    await this.#reader.destroy();
  }

  async #close(): Promise<void> {
    this.#end();
    this.#parts.followers.delete(this);
    const { isReached } = this.#reader;
    await this.#reader.stop();
    if (isReached) await this.#parts.topics.deleteGroup(this.#group, deleteGroupMs);
  }

  #end(): void {
    this.#caughtUp.reject(
      new InfraUnavailableError(`following ${this.#topic} has ended before it caught up`, {
        retryable: false,
      }),
    );
  }

  #position(partition: number): Position {
    const known = this.#positions.get(partition);
    if (known !== undefined) return known;
    const added: Position = { next: 0n, historyEnd: 0n, end: 0n };
    this.#positions.set(partition, added);
    return added;
  }

  async #take({ partition, messages, next, end }: ReadBatch): Promise<boolean> {
    const position = this.#position(partition);
    // Made anew, as it is known where brokers tell no ids: what is there now is all new. (3)
    if (end < position.next) {
      position.next = 0n;
      position.historyEnd = 0n;
    }
    position.end = end;
    const fresh = messages.flatMap((message): FollowedMessage[] => {
      const offset = BigInt(message.offset);
      return offset < position.next ? [] : [{ ...message, isHistory: offset < position.historyEnd }];
    });
    if (fresh.length > 0) await this.#handOver(fresh);
    this.#advance(partition, next);
    return true;
  }

  async #handOver(messages: readonly FollowedMessage[]): Promise<void> {
    try {
      await this.#options.onMessages(messages);
    } catch (thrown) {
      const { topic, partition, offset } = messages[0] ?? {};
      this.#parts.log.error(
        { topic, partition, offset, messages: messages.length, err: thrown },
        `A follower of ${this.#topic} failed: ${messageOf(thrown)}`,
      );
    }
  }

  #advance(partition: number, next: bigint): void {
    const position = this.#position(partition);
    if (next > position.next) position.next = next;
    if (next > position.end) position.end = next;
    this.#checkCaughtUp();
  }

  #checkCaughtUp(): void {
    for (const { next, historyEnd } of this.#positions.values()) if (next < historyEnd) return;
    this.#caughtUp.resolve(undefined);
  }
}
