/**
 * Publishing on Kafka. Owns: the library's producer, retries, the breaker, trying brokers that were not reached, and
 * creating a topic that is not there. Does not own: what is published, and when a client is replaced (`kafka-clients.ts`).
 *
 * 1. The producer has a client of its own that gives up soon: consumers wait through an outage, and a publish that did
 *    the same would never tell the breaker of it.
 * 2. No failure ends the producer: the next message is tried anew.
 * 3. A topic is seen to before the first message to it is sent, and holds no trial of the breaker meanwhile. Only brokers
 *    that cannot be reached, or do not answer in time, count for the breaker: not what they say of one topic.
 * 4. Once anything on the bus reaches a broker again the breaker lets a message through, whatever is left of its time;
 *    where that one fails no other broker's answer shortens the breaker's time again.
 * 5. Senders choose where their answers go, and so how many topics there are: so many are remembered, and the library's
 *    client, which asks the brokers for all that it knows at each new one and forgets none, is then replaced.
 * 6. Brokers that were not reached are tried until they are, whether or not anyone publishes: health tells of the present.
 *    Where a message could not be sent these are the leaders of its topic: that another broker answers says nothing of them.
 */
import type { Message, Producer } from "kafkajs";
import { abortable, abortReason, sleep, within } from "../core/abort.ts";
import { backoffMs } from "../core/backoff.ts";
import { monotonicClock } from "../core/clock.ts";
import { InfraTimeoutError, InfraUnavailableError, messageOf, type OnexError } from "../core/errors.ts";
import { CircuitBreaker } from "../resilience/circuit-breaker.ts";
import type { BusMessage } from "./bus.ts";
import { KafkaClients } from "./kafka-clients.ts";
import { brokerCode, kafkaError } from "./kafka-errors.ts";
import { KafkaLink, type LinkOptions } from "./kafka-link.ts";
import type { ResolvedKafkaOptions } from "./kafka-options.ts";
import { partitioner } from "./kafka-partitioner.ts";
import type { KafkaTopics } from "./kafka-topics.ts";
import { RecentSet } from "./recent-set.ts";

interface Client {
  readonly link: KafkaLink;
  readonly producer: Producer;
  readonly connected: Promise<void>;
  /** Sent to. (5) */
  readonly topics: Set<string>;
}

/** (1) */
const impatient = { retries: 1, initialRetryTime: 50 };
const ackOf = { all: -1, 1: 1, 0: 0 } as const;
/** For a topic that was just created to be known to every broker. */
const newTopicMs = 100;
const longestBackoffMs = 30_000;
const disconnectMs = 2000;
/** Between attempts to reach a broker again. (6) */
const reconnectMs = 2000;
/** (5) */
const rememberedTopics = 1000;

export class KafkaProducer {
  readonly #link: LinkOptions;
  readonly #options: ResolvedKafkaOptions;
  readonly #topics: KafkaTopics;
  readonly #breaker: CircuitBreaker;
  readonly #closed = new AbortController();
  readonly #clients: KafkaClients<Client>;
  /** Topics that were there when they were last looked at. (3) (5) */
  readonly #there = new RecentSet(rememberedTopics);
  #failure: string | undefined;
  /** To which a message could not be sent, since the failure; undefined where no broker was reached at all. (6) */
  #lostTopic: string | undefined;
  /** When a broker's answer last shortened the breaker's time, unless a message got through since. (4) */
  #shortenedAt = -Infinity;
  #isTrying = false;

  constructor(link: LinkOptions, options: ResolvedKafkaOptions, topics: KafkaTopics) {
    this.#link = link;
    this.#options = options;
    this.#topics = topics;
    // One that once sent to a topic that is gone now fails for every topic.
    this.#clients = new KafkaClients(
      () => connect(link),
      (thrown) => thrown instanceof NotConnected || isUnknownTopic(thrown) || !isOfKafka(thrown),
    );
    this.#breaker = new CircuitBreaker("Kafka", {
      failureThreshold: options.circuitBreakerThreshold,
      resetSeconds: options.circuitBreakerResetSeconds,
      successThreshold: 1,
      halfOpenRequests: 1,
    });
    link.reach.onReached(() => this.#halfOpen());
  }

  /** Why the latest attempt to reach a broker failed; undefined where it did not. */
  get problem(): string | undefined {
    if (this.#failure === undefined) return undefined;
    const { kind } = this.#breaker.state;
    return kind === "closed" ? this.#failure : `${this.#failure}; the circuit breaker is ${kind}`;
  }

  /**
   * Reaches a broker, in one attempt; after a failure it is tried on. (6)
   *
   * @throws OnexError
   */
  async connect(limitMs: number): Promise<void> {
    try {
      const connected = this.#clients.use((client) => client.connected);
      if ((await within(connected, limitMs)) === "timeout") {
        connected.catch(() => undefined);
        throw new InfraTimeoutError(`no broker answered within ${limitMs / 1000} s`, {
          facts: { operation: "reach a broker", timeout_seconds: limitMs / 1000 },
        });
      }
      this.#recovered();
    } catch (thrown) {
      throw this.#failed(thrown, "reach a broker", this.#link.servers.join(","));
    }
  }

  /**
   * Resolves when the brokers have the message, as `acks` wants it.
   *
   * @throws InfraUnavailableError at once while the breaker is open; where the topic is absent and may not be created
   * @throws InfraConnectionError, InfraAuthenticationError, RuntimeHostError after the last attempt
   */
  async publish(topic: string, message: BusMessage): Promise<void> {
    const { publishRetries, retryBackoffBaseSeconds } = this.#options;
    for (let attempt = 0; ;) {
      this.#closed.signal.throwIfAborted();
      const permit = this.#breaker.admit();
      const isThere = this.#there.has(topic);
      if (!isThere) permit.release(); // (3)
      try {
        if (isThere) {
          await this.#send(topic, message);
          permit.success();
          this.#shortenedAt = -Infinity;
          this.#recovered();
          this.#link.reach.reached();
          return;
        }
        await abortable(this.#topics.have(topic, this.#newTopic), this.#closed.signal);
        this.#there.add(topic);
      } catch (thrown) {
        if (this.#closed.signal.aborted) {
          permit.release();
          throw abortReason(this.#closed.signal);
        }
        const isUnknown = isUnknownTopic(thrown);
        if (isThere && isOutage(thrown) && !(thrown instanceof NotConnected)) this.#lostTopic = topic;
        const error = this.#failed(thrown, `publish to ${topic}`, topic);
        if (!error.countsForBreaker || !isOutage(thrown)) permit.release();
        else if (isThere) permit.failure();
        else this.#countOutage();
        if (isUnknown) this.#there.delete(topic);
        if (!error.retryable || attempt >= publishRetries) throw error;
        attempt += 1;
        const pauseMs = isUnknown
          ? newTopicMs
          : backoffMs(attempt, { firstMs: retryBackoffBaseSeconds * 1000, maxMs: longestBackoffMs });
        await sleep(pauseMs, this.#closed.signal);
      }
    }
  }

  /** (4) */
  #halfOpen(): void {
    const now = monotonicClock.now();
    const isOpen = this.#breaker.state.kind === "open";
    if (!isOpen || now - this.#shortenedAt < this.#options.circuitBreakerResetSeconds * 1000) return;
    this.#shortenedAt = now;
    this.#breaker.halfOpen();
  }

  #recovered(): void {
    this.#failure = undefined;
    this.#lostTopic = undefined;
  }

  #countOutage(): void {
    try {
      this.#breaker.admit().failure();
    } catch {
      // It is open already.
    }
  }

  /** Lets what is being sent arrive, within a limit. */
  async close(): Promise<void> {
    if (!this.#closed.signal.aborted) {
      const ended = this.#clients.open.map(({ producer }) => producer.disconnect());
      await within(Promise.allSettled(ended), disconnectMs);
    }
    this.destroy(new InfraUnavailableError("the event bus is closed", { retryable: false }));
  }

  destroy(reason: Error): void {
    this.#closed.abort(reason);
    this.#clients.cut();
  }

  get #newTopic(): { readonly partitions?: number } {
    const { partitions } = this.#options;
    return partitions === undefined ? {} : { partitions };
  }

  async #send(topic: string, { key, value, headers }: BusMessage): Promise<void> {
    const message: Message = {
      key,
      value: value === null ? null : Buffer.from(value.buffer, value.byteOffset, value.byteLength),
      headers: { ...headers },
    };
    const sent = this.#clients.use(async (client) => {
      await client.connected;
      client.topics.add(topic);
      if (client.topics.size >= rememberedTopics) this.#clients.retire(client); // (5)
      await client.producer.send({ topic, messages: [message], acks: ackOf[this.#options.acks] });
    });
    await abortable(sent, this.#closed.signal);
  }

  #failed(thrown: unknown, doing: string, target: string): OnexError {
    const error = kafkaError(thrown, doing, target);
    if (isOutage(thrown)) {
      const since = new Date().toISOString();
      this.#failure ??= `no Kafka broker could be reached since ${since}: ${messageOf(thrown)}`;
      // A broker that refuses the login is reached.
      if (error.countsForBreaker) this.#link.reach.lost(messageOf(thrown));
      void this.#tryOn();
    }
    return error;
  }

  /** (6) */
  async #tryOn(): Promise<void> {
    if (this.#isTrying) return;
    this.#isTrying = true;
    const { signal } = this.#closed;
    try {
      while (this.#failure !== undefined) {
        await sleep(reconnectMs, signal);
        // Not by the client that publishes: what it connected once says nothing of now.
        const isReached = await abortable(this.#topics.reach(this.#lostTopic), signal).then(
          () => true,
          () => false,
        );
        if (!isReached) continue;
        this.#recovered();
        this.#link.reach.reached();
      }
    } catch {
      // It was closed.
    } finally {
      this.#isTrying = false;
    }
  }
}

function connect(options: LinkOptions): Client {
  const link = new KafkaLink(options, impatient);
  const producer = link.kafka.producer({
    createPartitioner: partitioner(options.library.Partitioners.DefaultPartitioner),
    allowAutoTopicCreation: false,
    retry: impatient,
  });
  const connected = producer.connect().catch((thrown: unknown) => {
    throw new NotConnected(messageOf(thrown), { cause: thrown });
  });
  connected.catch(() => undefined);
  return { link, producer, connected, topics: new Set() };
}

/** A client whose first attempt failed makes no other by itself. */
class NotConnected extends Error {}

const isUnknownTopic = (thrown: unknown): boolean => brokerCode(thrown) === "UNKNOWN_TOPIC_OR_PARTITION";

/** An error with a broker's code came from a broker, an unavailable one is about a topic. (3) */
const isOutage = (thrown: unknown): boolean => {
  const code = brokerCode(thrown);
  if (thrown instanceof NotConnected) return true;
  return code === undefined ? !(thrown instanceof InfraUnavailableError) : code === "REQUEST_TIMED_OUT";
};

const isOfKafka = (thrown: unknown): boolean =>
  thrown instanceof Error && (thrown.name.startsWith("KafkaJS") || thrown.name.startsWith("Infra"));
