/**
 * One registration topic, followed. Owns: beginning to follow for as long as it takes, whether its history has been read,
 * and what is wrong with it. Does not own: what its messages mean.
 *
 * 1. Nothing that Kafka lacks is an error here: brokers and topic are waited for, and the status says so.
 * 2. After `close` no message is handed on.
 */
import type { EventBus, EventLog, FollowedMessage, Following } from "../bus/bus.ts";
import { sleep, within } from "../core/abort.ts";
import { messageOf } from "../core/errors.ts";

/** A bus that tells what it waits for, where it can. */
export type FollowedBus = EventLog & Partial<Pick<EventBus, "health">>;

export interface RegistrationTopicOptions {
  readonly log: FollowedBus;
  readonly topic: string;
  readonly replay: boolean;
  /** Of the topic, if it is made here. Absent: it is waited for. */
  readonly partitions?: number;
  readonly onMessages: (messages: readonly FollowedMessage[]) => void;
  /** The partition is read from its beginning again: it, or its whole topic, was made anew. */
  readonly onRestart: (partition: number) => void;
  readonly onCaughtUp: () => void;
}

/** Milliseconds after which a topic that cannot be followed yet keeps nobody waiting. */
const patienceMs = 2000;
/** Milliseconds before following is tried again where it failed outright. */
const retryMs = 1000;

type State =
  | { readonly kind: "waiting"; readonly reason: string | undefined }
  | { readonly kind: "reading" | "caught-up"; readonly following: Following }
  | { readonly kind: "closed" };

export class RegistrationTopic {
  readonly #options: RegistrationTopicOptions;
  readonly #closing = new AbortController();
  #state: State = { kind: "waiting", reason: undefined };
  #running: Promise<void> = Promise.resolve();
  /** The last offset of each partition. */
  readonly #offsets = new Map<number, number>();

  constructor(options: RegistrationTopicOptions) {
    this.#options = options;
  }

  /** Resolves once the history has been handed on, or Kafka is seen to be out of reach: then it goes on by itself. (1) */
  async start(): Promise<void> {
    this.#running = this.#run();
    while ((await within(this.#running, patienceMs)) === "timeout") {
      if (this.#state.kind !== "reading" || !this.#state.following.status().healthy) return;
    }
  }

  get name(): string {
    return this.#options.topic;
  }

  get isCaughtUp(): boolean {
    return this.#state.kind === "caught-up";
  }

  /** Messages that are there and were not read yet, as last known. */
  get lag(): number {
    return "following" in this.#state ? this.#state.following.status().lag : 0;
  }

  /** What keeps it from being current; undefined where nothing does. */
  get trouble(): string | undefined {
    const state = this.#state;
    if (state.kind === "closed") return undefined;
    if (state.kind === "waiting") {
      const health = this.#options.log.health?.();
      const reason = (health?.healthy === false ? health.detail : undefined) ?? state.reason;
      return this.#named(reason ?? "brokers or topic are waited for");
    }
    const { healthy, detail } = state.following.status();
    return healthy ? undefined : this.#named(detail ?? "it cannot be read at the moment");
  }

  #named(reason: string): string {
    return reason.includes(this.#options.topic) ? reason : `${this.#options.topic}: ${reason}`;
  }

  /** Ends following, its group included. Idempotent. (2) */
  async close(): Promise<void> {
    const state = this.#state;
    this.#state = { kind: "closed" };
    this.#closing.abort();
    if ("following" in state) await state.following.close();
    await this.#running;
  }

  #isOpen(): boolean {
    return this.#state.kind !== "closed";
  }

  async #run(): Promise<void> {
    while (this.#isOpen()) {
      try {
        await this.#follow();
        return;
      } catch (error) {
        if (!this.#isOpen()) return;
        this.#state = { kind: "waiting", reason: messageOf(error) };
        await sleep(retryMs, this.#closing.signal).catch(() => undefined);
      }
    }
  }

  async #follow(): Promise<void> {
    const { log, topic, replay, partitions, onCaughtUp } = this.#options;
    const following = await log.follow(
      topic,
      {
        replay,
        ...(partitions !== undefined && { create: { partitions, compacted: true } }),
        onMessages: (messages) => {
          if (this.#isOpen()) this.#handOn(messages); // (2)
        },
      },
      this.#closing.signal,
    );
    if (!this.#isOpen()) return following.close();
    this.#state = { kind: "reading", following };
    try {
      await following.caughtUp;
    } catch (error) {
      await following.close();
      throw error;
    }
    if (!this.#isOpen()) return;
    this.#state = { kind: "caught-up", following };
    onCaughtUp();
  }

  #handOn(messages: readonly FollowedMessage[]): void {
    for (const { partition, offset } of messages) {
      // Nothing is read twice, so an offset that comes again is another message.
      if (Number(offset) <= (this.#offsets.get(partition) ?? -1)) this.#options.onRestart(partition);
      this.#offsets.set(partition, Number(offset));
    }
    this.#options.onMessages(messages);
  }
}
