/**
 * The event bus port. Two implementations: `memory` and `kafka`; one shared test suite runs on both.
 *
 * 1. Every group subscribed to a topic gets every message; within a group each message goes to one subscriber.
 * 2. Messages with one key are handled one after the other, in publishing order; different keys run side by side.
 * 3. A handler that throws never stops the subscription: the message is reported and the next one is delivered.
 */

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

export type MessageHandler = (message: DeliveredMessage, signal: AbortSignal) => Promise<void>;

export interface EventBus {
  start(): Promise<void>;
  publish(topic: string, message: BusMessage): Promise<void>;
  /** Resolves once messages published from now on will be delivered; the value ends the subscription. */
  subscribe(topic: string, group: string, handler: MessageHandler): Promise<() => Promise<void>>;
  health(): BusHealth;
  /** Stops taking messages, lets running handlers finish, then closes. Idempotent. */
  close(): Promise<void>;
  /** Aborts running handlers and closes now. Idempotent. */
  destroy(reason: Error): Promise<void>;
}
