/**
 * A message that cannot be answered. Owns: what is kept of it, on the dead-letter topic and in the log. Does not own:
 * why that is so (`inbox.ts`).
 */
import type { DeliveredMessage, EventBus } from "../bus/bus.ts";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";

export interface DeadLetterOptions {
  /** Sender of the letter. */
  readonly name: string;
  readonly eventBus: { readonly environment: string };
  readonly bus: EventBus;
  readonly log: Logger;
}

export interface Failure {
  readonly reason: string;
  /** Class of the error. */
  readonly errorType: string;
  readonly correlationId: string;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Envelopes are commands to handlers. */
const topicOf = (environment: string): string => `${environment}.dlq.commands.v1`;

/** Puts the message on `<environment>.dlq.commands.v1` and says so in the log. Never rejects. */
export async function deadLetter(
  message: DeliveredMessage,
  { reason, errorType, correlationId }: Failure,
  { name, eventBus, bus, log }: DeadLetterOptions,
): Promise<void> {
  const { topic, partition, offset, key, value } = message;
  const letter = {
    original_topic: topic,
    failure_reason: reason,
    failure_timestamp: new Date().toISOString(),
    correlation_id: correlationId,
    retry_count: 0,
    error_type: errorType,
  };
  // The value stays out of the log, since it may hold secrets.
  const logged = { ...letter, original_message: { key, offset, partition, bytes: value?.length ?? null } };
  log.error({ dead_letter: logged }, `Message ${topic}/${partition}/${offset} is not answered: ${reason}`);
  const original = { key, value: value === null ? null : decoder.decode(value), offset, partition };
  const target = topicOf(eventBus.environment);
  try {
    await bus.publish(target, {
      key,
      value: encoder.encode(JSON.stringify({ ...letter, original_message: original })),
      headers: {
        content_type: "application/json",
        correlation_id: correlationId,
        timestamp: letter.failure_timestamp,
        source: name,
        event_type: "envelope.dead_letter",
        schema_version: "1.0.0",
      },
    });
  } catch (thrown) {
    log.error({ topic: target, err: thrown }, `A dead letter could not be published: ${messageOf(thrown)}`);
  }
}
