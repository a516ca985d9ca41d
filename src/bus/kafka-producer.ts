/**
 * Publishing on Kafka. Owns: the library's producer, retries, the breaker, and creating a topic that is not there. Does
 * not own: what is published.
 *
 * 1. The producer has a client of its own that gives up soon: consumers wait through an outage, and a publish that did
 *    the same would never tell the breaker of it.
 * 2. No failure ends the producer: the next message is tried anew.
 */
import type { Message, Producer } from "kafkajs";
import { abortable, abortReason, sleep, within } from "../core/abort.ts";
import { InfraUnavailableError, messageOf, type OnexError } from "../core/errors.ts";
import { CircuitBreaker } from "../resilience/circuit-breaker.ts";
import type { BusMessage } from "./bus.ts";
import { brokerCode, kafkaError } from "./kafka-errors.ts";
import { KafkaLink, type LinkOptions } from "./kafka-link.ts";
import type { ResolvedKafkaOptions } from "./kafka-options.ts";
import type { KafkaTopics } from "./kafka-topics.ts";

interface Client {
  readonly link: KafkaLink;
  readonly producer: Producer;
  readonly connected: Promise<void>;
}

/** (1) */
const impatient = { retries: 1, initialRetryTime: 50 };
const ackOf = { all: -1, 1: 1, 0: 0 } as const;
/** For a topic that was just created to be known to every broker. */
const newTopicMs = 100;
const longestBackoffMs = 30_000;
const disconnectMs = 2000;

export class KafkaProducer {
  readonly #link: LinkOptions;
  readonly #options: ResolvedKafkaOptions;
  readonly #topics: KafkaTopics;
  readonly #breaker: CircuitBreaker;
  readonly #closed = new AbortController();
  #client: Client | undefined;
  #failure: string | undefined;

  constructor(link: LinkOptions, options: ResolvedKafkaOptions, topics: KafkaTopics) {
    this.#link = link;
    this.#options = options;
    this.#topics = topics;
    this.#breaker = new CircuitBreaker("Kafka", {
      failureThreshold: options.circuitBreakerThreshold,
      resetSeconds: options.circuitBreakerResetSeconds,
      successThreshold: 1,
      halfOpenRequests: 1,
    });
  }

  /** Why the latest attempt to reach a broker failed; undefined where it did not. */
  get problem(): string | undefined {
    if (this.#failure === undefined) return undefined;
    const { kind } = this.#breaker.state;
    return kind === "closed" ? this.#failure : `${this.#failure}; the circuit breaker is ${kind}`;
  }

  /** Reaches a broker, in one attempt. @throws OnexError */
  async connect(): Promise<void> {
    try {
      await this.#connected().connected;
      this.#failure = undefined;
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
    for (let attempt = 0; ; attempt += 1) {
      this.#closed.signal.throwIfAborted();
      const permit = this.#breaker.admit();
      try {
        await this.#send(topic, message);
        permit.success();
        this.#failure = undefined;
        return;
      } catch (thrown) {
        if (this.#closed.signal.aborted) {
          permit.release();
          throw abortReason(this.#closed.signal);
        }
        const isUnknown = brokerCode(thrown) === "UNKNOWN_TOPIC_OR_PARTITION";
        const error = this.#failed(thrown, `publish to ${topic}`, topic);
        if (error.countsForBreaker && !isUnknown) permit.failure();
        else permit.release();
        if (isUnknown || !isOfKafka(thrown)) this.#renew();
        if (!error.retryable || attempt >= publishRetries) throw error;
        if (isUnknown) await this.#topics.createOnce(topic, this.#newTopic);
        const backoffMs = retryBackoffBaseSeconds * 1000 * 2 ** attempt * (0.75 + Math.random() / 2);
        await sleep(isUnknown ? newTopicMs : Math.min(backoffMs, longestBackoffMs), this.#closed.signal);
      }
    }
  }

  /** Lets what is being sent arrive, within a limit. */
  async close(): Promise<void> {
    const client = this.#client;
    if (client !== undefined && !this.#closed.signal.aborted)
      await within(
        client.producer.disconnect().catch(() => undefined),
        disconnectMs,
      );
    this.destroy(new InfraUnavailableError("the event bus is closed", { retryable: false }));
  }

  destroy(reason: Error): void {
    this.#closed.abort(reason);
    this.#client?.link.cut();
    this.#client = undefined;
  }

  get #newTopic(): { readonly partitions?: number } {
    const { partitions } = this.#options;
    return partitions === undefined ? {} : { partitions };
  }

  async #send(topic: string, { key, value, headers }: BusMessage): Promise<void> {
    const { connected, producer } = this.#connected();
    await abortable(connected, this.#closed.signal);
    const message: Message = {
      key,
      value: value === null ? null : Buffer.from(value.buffer, value.byteOffset, value.byteLength),
      headers: { ...headers },
    };
    const sent = producer.send({ topic, messages: [message], acks: ackOf[this.#options.acks] });
    await abortable(sent, this.#closed.signal);
  }

  #failed(thrown: unknown, doing: string, target: string): OnexError {
    const error = kafkaError(thrown, doing, target);
    // An error with a broker's code came from a broker.
    if (brokerCode(thrown) === undefined) {
      const since = new Date().toISOString();
      this.#failure ??= `no Kafka broker could be reached since ${since}: ${messageOf(thrown)}`;
    }
    return error;
  }

  #connected(): Client {
    if (this.#client !== undefined) return this.#client;
    const { library } = this.#link;
    const link = new KafkaLink(this.#link, impatient);
    const producer = link.kafka.producer({
      createPartitioner: library.Partitioners.DefaultPartitioner,
      allowAutoTopicCreation: false,
      retry: impatient,
    });
    const client: Client = { link, producer, connected: producer.connect() };
    client.connected.catch(() => {
      link.cut();
      if (this.#client === client) this.#client = undefined;
    });
    this.#client = client;
    return client;
  }

  /** Another client for what comes: one that once sent to a topic that is gone now fails for every topic. */
  #renew(): void {
    const client = this.#client;
    this.#client = undefined;
    client?.producer.disconnect().then(
      () => client.link.cut(),
      () => client.link.cut(),
    );
  }
}

const isOfKafka = (thrown: unknown): boolean =>
  thrown instanceof Error && (thrown.name.startsWith("KafkaJS") || thrown.name.startsWith("Infra"));
