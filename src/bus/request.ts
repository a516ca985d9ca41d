/**
 * Question and answer over the bus. Owns: the envelope that is sent, the subscriptions to reply topics, and which call an
 * answer belongs to. Does not own: what an answer means.
 *
 * 1. Every question has a correlation id and an envelope id of its own: two calls are never mixed, whatever ids their
 *    callers use.
 * 2. Nothing is sent before its reply topic is subscribed.
 * 3. Every process reads a reply topic whole, in a group of its own that ends with it: it sees all answers, and drops
 *    those it has not asked for.
 */
import { randomUUID } from "node:crypto";
import { abortable, abortReason, within } from "../core/abort.ts";
import { InfraUnavailableError, messageOf, ProtocolConfigurationError } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import { isEventLog, type DeliveredMessage, type EventBus } from "./bus.ts";

export interface BusQuestion {
  readonly topic: string;
  readonly replyTopic: string;
  /** Absent: the question's correlation id, so that questions are spread and in no order. */
  readonly key?: string;
  /** `<type>.<verb>`. */
  readonly operation?: string;
  readonly payload: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Of the message, beside the bus's own. */
  readonly headers: Readonly<Record<string, string>>;
}

interface Asked {
  readonly envelopeId: string;
  readonly answer: (value: unknown) => void;
  readonly fail: (reason: Error) => void;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

export class BusRequests {
  readonly #bus: EventBus;
  readonly #log: Logger;
  /** By reply topic; the value ends it. (2) */
  readonly #subscriptions = new Map<string, Promise<() => Promise<void>>>();
  /** Ends what is still to be subscribed: a bus without brokers waits for them. */
  readonly #abort = new AbortController();
  /** By correlation id. */
  readonly #asked = new Map<string, Asked>();
  #closed: Promise<void> | undefined;

  /** @param bus started by the time of the first request; never closed here */
  constructor(bus: EventBus, log: Logger = silentLogger) {
    this.#bus = bus;
    this.#log = log;
  }

  /** Questions without an answer yet. */
  get waiting(): number {
    return this.#asked.size;
  }

  /**
   * Sends an envelope and waits for its answer: the JSON value that came, whatever it is.
   *
   * Rejects with an `InfraUnavailableError` where the question could not be sent or all is closed, with a
   * `ProtocolConfigurationError` where a topic's name is not valid, and with the signal's reason.
   */
  async request(question: BusQuestion, signal: AbortSignal): Promise<unknown> {
    const correlationId = randomUUID(); // (1)
    const envelopeId = randomUUID();
    await this.#sent(this.#listen(question.replyTopic), signal);
    // It may have been closed meanwhile, and has then ended all that it knew of.
    if (this.#closed !== undefined) throw abortReason(this.#abort.signal);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    // A call that was given up while it was sent must not leave a rejection that nobody hears.
    promise.catch(() => undefined);
    this.#asked.set(correlationId, { envelopeId, answer: resolve, fail: reject });
    try {
      await this.#sent(this.#publish(question, correlationId, envelopeId), signal);
      return await abortable(promise, signal);
    } finally {
      this.#asked.delete(correlationId);
    }
  }

  /** Ends subscriptions; what still waits is rejected with `reason`. Takes 3 s at most. Idempotent. */
  close(reason: Error): Promise<void> {
    this.#closed ??= this.#end(reason);
    return this.#closed;
  }

  async #end(reason: Error): Promise<void> {
    this.#abort.abort(reason);
    for (const { fail } of this.#asked.values()) fail(reason);
    const ends = [...this.#subscriptions].map(async ([topic, subscribed]) => {
      const end = await subscribed.catch(() => undefined);
      await end?.().catch((error: unknown) => {
        this.#log.warn({ topic, err: error }, "a reply topic could not be given up");
      });
    });
    this.#subscriptions.clear();
    await within(Promise.all(ends), closeMs);
  }

  #listen(topic: string): Promise<unknown> {
    if (this.#closed !== undefined) return Promise.reject(new Error("the runtime is stopping"));
    let subscribed = this.#subscriptions.get(topic);
    if (subscribed === undefined) {
      subscribed = this.#subscribe(topic);
      this.#subscriptions.set(topic, subscribed);
      // The next request tries anew.
      subscribed.catch(() => this.#subscriptions.delete(topic));
    }
    return subscribed;
  }

  /** (3) */
  async #subscribe(topic: string): Promise<() => Promise<void>> {
    // On Kafka a subscription would leave its group behind; a follower takes its own away.
    if (!isEventLog(this.#bus))
      return await this.#bus.subscribe(topic, `onex-replies-${randomUUID()}`, async (message) =>
        this.#take(message),
      );
    const following = await this.#bus.follow(
      topic,
      {
        replay: false,
        create: { partitions: 1, compacted: false },
        onMessages: (messages) => {
          for (const message of messages) this.#take(message);
        },
      },
      this.#abort.signal,
    );
    return () => following.close();
  }

  #publish(
    { topic, replyTopic, key, operation, payload, metadata, headers }: BusQuestion,
    correlationId: string,
    envelopeId: string,
  ): Promise<void> {
    const envelope = {
      ...(operation !== undefined && { operation }),
      envelope_id: envelopeId,
      correlation_id: correlationId,
      source,
      payload,
      metadata,
      reply_to: replyTopic,
    };
    return this.#bus.publish(topic, {
      key: key ?? correlationId,
      value: encoder.encode(JSON.stringify(envelope)),
      headers: {
        ...headers,
        content_type: "application/json",
        correlation_id: correlationId,
        message_id: envelopeId,
        timestamp: new Date().toISOString(),
        source,
        event_type: "envelope.request",
        schema_version: "1.0.0",
      },
    });
  }

  async #sent(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
    try {
      await abortable(work, signal);
    } catch (error) {
      if (signal.aborted || error instanceof ProtocolConfigurationError) throw error;
      throw new InfraUnavailableError(`The event bus did not take the question: ${messageOf(error)}`, {
        cause: error,
        facts: { transport: this.#bus.health().type },
      });
    }
  }

  /** (3) */
  #take(message: DeliveredMessage): void {
    const { correlation_id: named } = message.headers;
    // Of another process, in all likelihood: not worth reading.
    if (named !== undefined && !this.#asked.has(named)) return;
    const value = jsonOf(message.value);
    if (value === undefined) {
      this.#log.warn(
        { topic: message.topic, offset: message.offset },
        "an answer that is not JSON is dropped",
      );
      return;
    }
    const fields = isObject(value) ? value : {};
    const id = named ?? fields.correlation_id;
    const asked = typeof id === "string" ? this.#asked.get(id) : undefined;
    if (asked === undefined) return;
    if (typeof fields.envelope_id === "string" && fields.envelope_id !== asked.envelopeId) return;
    asked.answer(value);
  }
}

const source = "mcp-adapter";

/** For the groups of reply topics to be left. */
const closeMs = 3000;

/** Undefined where it is not JSON. */
function jsonOf(bytes: Uint8Array | null): unknown {
  try {
    return bytes === null ? undefined : (JSON.parse(decoder.decode(bytes)) as unknown);
  } catch {
    return undefined;
  }
}
