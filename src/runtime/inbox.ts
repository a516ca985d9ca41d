/**
 * The way of one message of the bus: from its bytes to the published answer. Owns: where the answer goes, and how long
 * it is tried. Does not own: the answer (`dispatch.ts`), the subscription (`host.ts`), dead letters (the bus).
 *
 * 1. A message is done, for the bus, when its answer is out: this resolves then. It rejects with why it cannot be
 *    answered, which is for the dead letter.
 * 2. Nothing that is published here comes back as an envelope.
 * 3. Where the bus delivers a message again its answers carry the same ids each time, and a message that the end of
 *    this process interrupted is left unanswered for the next one.
 */
import { createHash } from "node:crypto";
import { isTooLarge, type DeliveredMessage, type EventBus } from "../bus/bus.ts";
import {
  errorAnswer,
  parseEnvelope,
  type Answer,
  type AnswerAddress,
  type EnvelopeResult,
  type MakeId,
} from "../bus/envelope.ts";
import { abortReason, sleep } from "../core/abort.ts";
import { backoffMs } from "../core/backoff.ts";
import { EnvelopeValidationError, RuntimeHostError, toOnexError, type OnexError } from "../core/errors.ts";
import type { LogFields } from "../core/log.ts";
import { dispatch, type DispatchParts } from "./dispatch.ts";

export interface InboxOptions {
  /** Sender of the answers. */
  readonly name: string;
  readonly inputTopic: string;
  readonly outputTopic: string;
  readonly bus: EventBus;
  /** Takes the fields of a log line each time that an answer could not be published. */
  readonly onLate: (fields: LogFields) => void;
}

const encoder = new TextEncoder();
/** Between attempts to publish an answer, each of which already was several. */
const pause = { firstMs: 500, maxMs: 2000 };

/** Answers one message. (1) */
export async function answerMessage(
  message: DeliveredMessage,
  options: InboxOptions,
  parts: DispatchParts,
  signal: AbortSignal,
): Promise<void> {
  const { redelivers } = options.bus;
  const bytes = message.value ?? new Uint8Array();
  const read = refuseLoop(
    redelivers ? parseEnvelope(bytes, idOf(message)) : parseEnvelope(bytes),
    options.inputTopic,
  );
  if (!read.ok && !read.answerable) throw read.error;
  const { message_id: messageId } = message.headers;
  const answer = await dispatch(parts, read, signal, messageId === "" ? undefined : messageId);
  if (redelivers && signal.aborted && !answer.success) throw abortReason(signal); // (3)
  const topic = addressOf(read).reply_to ?? options.outputTopic;
  try {
    await publish(topic, answer, options, signal);
  } catch (thrown) {
    if (!isTooLarge(thrown)) throw thrown;
    const { handler_id: handlerId, processing_time_ms: processingTimeMs } = answer;
    const error = new RuntimeHostError(
      `the answer has ${encode(answer).length} bytes, more than the event bus takes on topic ${topic}`,
    );
    const instead = errorAnswer(addressOf(read), error, { handlerId, processingTimeMs });
    await publish(topic, instead, options, signal);
  }
}

/** Resolves when the answer is out, however long its brokers are away. @throws what no further attempt would change */
async function publish(
  topic: string,
  answer: Answer,
  { bus, name, onLate }: InboxOptions,
  signal: AbortSignal,
): Promise<void> {
  const message = {
    key: answer.correlation_id,
    value: encode(answer),
    headers: {
      content_type: "application/json",
      correlation_id: answer.correlation_id,
      // The same for every answer to one message, so that a receiver can drop the second.
      message_id: answer.message_id ?? answer.envelope_id,
      timestamp: answer.timestamp,
      source: name,
      event_type: "envelope.answer",
      schema_version: "1.0.0",
    },
  };
  for (let retries = 0; ; retries += 1) {
    try {
      await bus.publish(topic, message);
      return;
    } catch (thrown) {
      const error = toOnexError(thrown);
      if (isTooLarge(error)) throw error;
      if (!error.retryable) throw notPublished(topic, answer, error, retries);
      const { correlation_id } = answer;
      // Of what is known the message is enough.
      onLate({ topic, correlation_id, ...(thrown === error ? { error: error.message } : { err: thrown }) });
      await sleep(backoffMs(retries + 1, pause), signal);
    }
  }
}

function notPublished(topic: string, answer: Answer, error: OnexError, retries: number): RuntimeHostError {
  return new RuntimeHostError(`its answer could not be published to ${topic}: ${error.message}`, {
    cause: error,
    facts: { ...error.facts, correlation_id: answer.correlation_id, retry_count: retries },
  });
}

const encode = (answer: Answer): Uint8Array => encoder.encode(JSON.stringify(answer));

/** What is known of the sender, whether or not the envelope could be read. */
export const addressOf = (read: EnvelopeResult): AnswerAddress => (read.ok ? read.envelope : read.partial);

/** A UUID (version 8) from where the message lies. The time tells a topic from one that had its name before. (3) */
function idOf({ topic, partition, offset, timestamp }: DeliveredMessage): MakeId {
  return (field) => {
    const hash = createHash("sha256")
      .update(`${topic}/${partition}/${offset}/${timestamp}/${field}`)
      .digest();
    hash[6] = ((hash[6] ?? 0) & 0x0f) | 0x80;
    hash[8] = ((hash[8] ?? 0) & 0x3f) | 0x80;
    const hex = hash.toString("hex");
    return [
      [0, 8],
      [8, 12],
      [12, 16],
      [16, 20],
      [20, 32],
    ]
      .map(([from, to]) => hex.slice(from, to))
      .join("-");
  };
}

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
