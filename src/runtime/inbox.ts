/**
 * The way of one message of the bus: from its bytes to the published answer. Owns: where the answer goes, and that a
 * message without one becomes a dead letter. Does not own: the answer (`dispatch.ts`), the subscription (`host.ts`).
 *
 * 1. A message is done, for the bus, when its answer is out: this rejects where the answer could not be published.
 * 2. Nothing that is published here comes back as an envelope.
 */
import type { DeliveredMessage } from "../bus/bus.ts";
import { parseEnvelope, type AnswerAddress, type EnvelopeResult } from "../bus/envelope.ts";
import { EnvelopeValidationError, messageOf, toOnexError } from "../core/errors.ts";
import { deadLetter, type DeadLetterOptions } from "./dead-letter.ts";
import { dispatch, type DispatchParts } from "./dispatch.ts";

/** `name` is the sender of the answers too. */
export interface InboxOptions extends DeadLetterOptions {
  readonly inputTopic: string;
  readonly outputTopic: string;
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
    const { message: reason, name } = read.error;
    const { correlation_id: correlationId } = read.partial;
    await deadLetter(message, { reason, errorType: name, correlationId }, options);
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
    const { name } = toOnexError(thrown);
    await deadLetter(message, { reason, errorType: name, correlationId: answer.correlation_id }, options);
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
