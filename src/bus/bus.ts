/**
 * The event bus port. Two implementations: `memory` and `kafka`; one shared test suite runs on both.
 *
 * 1. Every group subscribed to a topic gets every message; within a group each message goes to one subscriber.
 * 2. Messages with one key are handled one after the other, in publishing order; different keys run side by side.
 * 3. A handler that throws never stops the subscription: the message becomes a dead letter, with the reason, and the
 *    next one is delivered.
 */
import { OnexError, ProtocolConfigurationError } from "../core/errors.ts";

export interface BusMessage {
  /** Ordering key; null: no order is promised. */
  readonly key: string | null;
  /** UTF-8 bytes as they arrived; null is a tombstone. */
  readonly value: Uint8Array | null;
  readonly headers: Readonly<Record<string, string>>;
}

export interface DeliveredMessage extends BusMessage {
  readonly topic: string;
  readonly partition: number;
  readonly offset: string;
  /** Milliseconds since the epoch, as the publisher or the broker set it. */
  readonly timestamp: number;
}

export interface BusHealth {
  readonly healthy: boolean;
  readonly type: "inmemory" | "kafka";
  readonly detail?: string;
}

/**
 * Works on one message. Resolved: the message is done. Rejected: it becomes a dead letter, unless `signal` was aborted
 * first; then a bus that redelivers has it handled again, by whoever reads next, and another one forgets it.
 */
export type MessageHandler = (message: DeliveredMessage, signal: AbortSignal) => Promise<void>;

/** Which dead-letter topic of the environment takes what could not be handled. */
export type DeadLetterCategory = "events" | "commands" | "intents";

export interface SubscribeOptions {
  /** Default events. */
  readonly deadLetters?: DeadLetterCategory;
}

/** Ends a subscription: resolves when its running handlers have ended. Where `signal` aborts first they are aborted, with its reason. Idempotent. */
export type Unsubscribe = (signal?: AbortSignal) => Promise<void>;

export interface EventBus {
  /** Whether a message whose handler was aborted, or whose process died, is delivered again. */
  readonly redelivers: boolean;
  start(): Promise<void>;
  publish(topic: string, message: BusMessage): Promise<void>;
  /** Resolves once messages published from now on will be delivered; the value ends the subscription. */
  subscribe(
    topic: string,
    group: string,
    handler: MessageHandler,
    options?: SubscribeOptions,
  ): Promise<Unsubscribe>;
  health(): BusHealth;
  /** Stops taking messages, lets running handlers finish, then closes. Idempotent. */
  close(): Promise<void>;
  /** Aborts running handlers and closes now. Idempotent. */
  destroy(reason: Error): Promise<void>;
}

/** A message as a follower gets it. */
export interface FollowedMessage extends DeliveredMessage {
  /** It was on the topic before following began. */
  readonly isHistory: boolean;
}

export interface Following {
  /** Resolves when all that was on the topic when following began has been handed over. Rejects where following was closed first. */
  readonly caughtUp: Promise<void>;
  /** How far it is: messages on the topic that have not been handed over, as last known; and what is wrong, if anything. */
  status(): { readonly lag: number; readonly healthy: boolean; readonly detail?: string };
  /** Ends it, its group included. Idempotent. */
  close(): Promise<void>;
}

export interface FollowOptions {
  /** From the topic's beginning; else only what is published from now on. */
  readonly replay: boolean;
  /** Made if absent, where that is allowed; else it is waited for. */
  readonly create?: { readonly partitions: number; readonly compacted: boolean };
  /** Gets the messages of one read, in order per partition. A rejection is logged; nothing is read twice for it. */
  readonly onMessages: (messages: readonly FollowedMessage[]) => void | Promise<void>;
}

/** A bus whose topics can be read whole by everyone: every follower gets every message, whatever groups do. */
export interface EventLog {
  /** Resolves once every message published from now on will be handed over; waits for brokers and topic for ever. */
  follow(topic: string, options: FollowOptions, signal?: AbortSignal): Promise<Following>;
  /** Makes a dead letter of a message that a follower cannot take. Rejects where it cannot be published. */
  deadLetter(message: DeliveredMessage, thrown: unknown, category: DeadLetterCategory): Promise<void>;
}

/** Only Kafka is such a bus. */
export const isEventLog = (bus: EventBus | undefined): bus is EventBus & EventLog =>
  bus !== undefined && "follow" in bus;

/** @throws ProtocolConfigurationError where the bus is none whose topics can be followed */
export function requireEventLog(bus: EventBus | undefined): EventLog {
  if (isEventLog(bus)) return bus;
  throw new ProtocolConfigurationError(
    `Config key 'kafka_enabled' is true, but the host's event bus is ${bus?.health().type ?? "absent"}: set kafka_enabled: false, or run the host on Kafka.`,
    { facts: { transport: "mcp", operation: "initialize" } },
  );
}

/** `broker_code` of an error about a message that is larger than its topic takes. */
export const tooLarge = "MESSAGE_TOO_LARGE";

/** True where publishing failed since the message is larger than its topic takes. */
export const isTooLarge = (thrown: unknown): boolean =>
  thrown instanceof OnexError && thrown.facts.broker_code === tooLarge;
