/**
 * Dead letters: messages that could not be handled, with the reason. Owns: their topics and their form. Does not own:
 * when a message becomes one (`memory.ts`, `kafka-consumer.ts`, whoever follows a topic).
 */
import { OnexError, messageOf, toOnexError } from "../core/errors.ts";
import type { LogFields } from "../core/log.ts";
import type { BusMessage, DeadLetterCategory, DeliveredMessage } from "./bus.ts";

export interface DeadLetterOptions {
  /** First part of the topic's name. */
  readonly environment: string;
  readonly category: DeadLetterCategory;
  /** Who sends the letter. */
  readonly source: string;
}

export interface DeadLetter {
  readonly topic: string;
  readonly message: BusMessage;
  /** What a log line says of it; without the message's value, which may hold secrets. */
  readonly fields: LogFields;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** `<environment>.dlq.<category>.v1` */
export const deadLetterTopic = (environment: string, category: DeadLetterCategory): string =>
  `${environment}.dlq.${category}.v1`;

/**
 * The letter for a message. Of an `OnexError` the facts `correlation_id` and `retry_count` are used.
 *
 * @param withValue false where the letter would be too large with it
 */
export function deadLetter(
  message: DeliveredMessage,
  thrown: unknown,
  options: DeadLetterOptions,
  withValue = true,
): DeadLetter {
  const { topic, partition, offset, key, value, headers } = message;
  const facts = thrown instanceof OnexError ? thrown.facts : {};
  const { correlation_id: fromHeaders } = headers;
  const letter = {
    original_topic: topic,
    failure_reason: messageOf(thrown),
    failure_timestamp: new Date().toISOString(),
    correlation_id: facts.correlation_id ?? (fromHeaders === "" ? undefined : fromHeaders) ?? null,
    retry_count: typeof facts.retry_count === "number" ? facts.retry_count : 0,
    error_type: thrown instanceof Error ? thrown.name : toOnexError(thrown).name,
  };
  const original = { key, ...(withValue ? readable(value) : { value: null, value_omitted: true }) };
  return {
    topic: deadLetterTopic(options.environment, options.category),
    message: {
      key,
      value: encoder.encode(
        JSON.stringify({ ...letter, original_message: { ...original, offset, partition } }),
      ),
      headers: {
        content_type: "application/json",
        ...(letter.correlation_id !== null && { correlation_id: letter.correlation_id }),
        // The same for every letter about one message, so that a receiver can drop the second.
        message_id: `${topic}/${partition}/${offset}`,
        timestamp: letter.failure_timestamp,
        source: options.source,
        event_type: "dead_letter",
        schema_version: "1.0.0",
      },
    },
    fields: {
      dead_letter: {
        ...letter,
        // Under a name that ends in "key" it would be redacted.
        original_message: { keyed_by: key, offset, partition, bytes: value?.length ?? null },
      },
    },
  };
}

/** As text where it is UTF-8, else in base64, which says so. */
function readable(value: Uint8Array | null): { value: string | null; value_encoding?: "base64" } {
  if (value === null) return { value: null };
  try {
    return { value: decoder.decode(value) };
  } catch {
    return { value: Buffer.from(value).toString("base64"), value_encoding: "base64" };
  }
}
