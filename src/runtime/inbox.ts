/**
 * The way of one message of the bus: from its bytes to the published answer. Owns: where the answer goes, and the dead
 * letter where none can go anywhere. Does not own: the answer (`dispatch.ts`), the subscription (`host.ts`).
 *
 * 1. A message is done, for the bus, when its answer is out: this rejects where the answer could not be published.
 * 2. Nothing that is published here comes back as an envelope.
 */
import type { DeliveredMessage, EventBus } from "../bus/bus.ts";
import { parseEnvelope, type AnswerAddress, type EnvelopeResult } from "../bus/envelope.ts";
import { EnvelopeValidationError, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { dispatch, type DispatchParts } from "./dispatch.ts";

export interface InboxOptions {
  /** Sender of the answers. */
  readonly name: string;
  readonly inputTopic: string;
  readonly outputTopic: string;
  readonly bus: EventBus;
  readonly log: Logger;
}

const encoder = new TextEncoder();

/** Answers one message. Rejects only where the answer could not be published. (1) */
export async function answerMessage(
  message: DeliveredMessage,
  options: InboxOptions,
  parts: DispatchParts,
  signal: AbortSignal,
): Promise<void> {
  const read = refuseLoop(parseEnvelope(message.value ?? new Uint8Array()), options.inputTopic);
  if (!read.ok && !read.answerable) {
    deadLetter(message, read.error.message, options.log);
    return;
  }
  const { message_id: messageId } = message.headers;
  const answer = await dispatch(parts, read, signal, messageId === "" ? undefined : messageId);
  const topic = addressOf(read).reply_to ?? options.outputTopic;
  try {
    await options.bus.publish(topic, {
      key: answer.correlation_id,
      value: encoder.encode(JSON.stringify(answer)),
      headers: {
        content_type: "application/json",
        correlation_id: answer.correlation_id,
        // The same for every answer to one message, so that a receiver can drop the second.
        message_id: answer.message_id ?? answer.envelope_id,
        timestamp: answer.timestamp,
        source: options.name,
        event_type: "envelope.answer",
        schema_version: "1.0.0",
      },
    });
  } catch (thrown) {
    const reason = `its answer could not be published to ${topic}: ${messageOf(thrown)}`;
    deadLetter(message, reason, options.log, answer.correlation_id);
    throw thrown;
  }
}

/** What is known of the sender, whether or not the envelope could be read. */
export const addressOf = (read: EnvelopeResult): AnswerAddress => (read.ok ? read.envelope : read.partial);

/** (2) */
function refuseLoop(read: EnvelopeResult, inputTopic: string): EnvelopeResult {
  const { operation, correlation_id, envelope_id, message_id, reply_to } = addressOf(read);
  if (reply_to !== inputTopic) return read;
  return {
    ok: false,
    error: new EnvelopeValidationError(
      `Invalid envelope: reply_to is ${JSON.stringify(reply_to)}, the topic that envelopes are read from; name another one`,
      { facts: { correlation_id } },
    ),
    partial: {
      correlation_id,
      envelope_id,
      ...(operation !== undefined && { operation }),
      ...(message_id !== undefined && { message_id }),
    },
    answerable: read.ok || read.answerable,
  };
}

/** The last resort: the log. The message's value stays out of it, since it may hold secrets. */
function deadLetter(message: DeliveredMessage, reason: string, log: Logger, correlationId?: string): void {
  const { topic, partition, offset, key, value } = message;
  log.error(
    {
      dead_letter: {
        original_topic: topic,
        original_message: { key, offset, partition, bytes: value?.length ?? null },
        failure_reason: reason,
        failure_timestamp: new Date().toISOString(),
        correlation_id: correlationId ?? null,
      },
    },
    `Message ${topic}/${partition}/${offset} is not answered: ${reason}`,
  );
}
