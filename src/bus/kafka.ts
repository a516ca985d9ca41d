/**
 * The event bus on Kafka. Owns: the bus's state, and what is open on it. Does not own: publishing
 * (`kafka-producer.ts`), subscriptions (`kafka-consumer.ts`), following (`kafka-follow.ts`), topics (`kafka-topics.ts`).
 *
 * 1. The library is loaded by `start`: who runs without Kafka does not pay for it.
 * 2. `start` does not wait for brokers; `subscribe` and `follow` do, for as long as it takes, until the bus closes.
 * 3. Brokers that come and go end nothing: everything open goes on by itself.
 */
import {
  InfraAuthenticationError,
  InfraUnavailableError,
  ProtocolConfigurationError,
  RuntimeHostError,
} from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { isTopicName } from "../core/topic-name.ts";
import { isTooLarge } from "./bus.ts";
import type {
  BusHealth,
  BusMessage,
  DeadLetterCategory,
  DeliveredMessage,
  EventBus,
  EventLog,
  FollowOptions,
  Following,
  MessageHandler,
  SubscribeOptions,
  Unsubscribe,
} from "./bus.ts";
import { deadLetter } from "./dead-letter.ts";
import { KafkaSubscription } from "./kafka-consumer.ts";
import { followTopic, type Follower } from "./kafka-follow.ts";
import { libraryLog, loadLibrary, type LinkOptions } from "./kafka-link.ts";
import {
  resolveKafkaOptions,
  securityOf,
  type KafkaBusOptions,
  type ResolvedKafkaOptions,
} from "./kafka-options.ts";
import { KafkaProducer } from "./kafka-producer.ts";
import { KafkaReach } from "./kafka-reach.ts";
import { KafkaTopics } from "./kafka-topics.ts";

export type { KafkaBusOptions, KafkaSasl, KafkaTls, SaslMechanism } from "./kafka-options.ts";

interface Parts {
  readonly link: LinkOptions;
  readonly topics: KafkaTopics;
  readonly producer: KafkaProducer;
}

type State =
  | { readonly kind: "new" }
  | { readonly kind: "starting"; readonly done: Promise<void> }
  | { readonly kind: "started"; readonly parts: Parts }
  | { readonly kind: "closing"; readonly parts: Parts; readonly done: Promise<void> }
  | { readonly kind: "closed" };

/** For brokers that take connections and say nothing; the attempt goes on behind it. */
const connectMs = 3000;

export class KafkaBus implements EventBus, EventLog {
  readonly redelivers = true;
  readonly #options: ResolvedKafkaOptions;
  readonly #log: Logger;
  readonly #reach: KafkaReach;
  readonly #abort = new AbortController();
  readonly #subscriptions = new Set<KafkaSubscription>();
  readonly #followers = new Set<Follower>();
  #state: State = { kind: "new" };

  /** @throws ProtocolConfigurationError where an option is missing or out of its range */
  constructor(options: KafkaBusOptions) {
    this.#options = resolveKafkaOptions(options);
    this.#log = this.#options.log;
    this.#reach = new KafkaReach(this.#log);
  }

  /**
   * Resolves also where no broker is reached: that is told by `health`, and tried on. One that failed may be repeated. (2)
   *
   * @throws ProtocolConfigurationError where a certificate's file cannot be read
   */
  async start(): Promise<void> {
    if (this.#state.kind === "new") {
      const starting: State = { kind: "starting", done: this.#start() };
      this.#state = starting;
      starting.done.catch(() => {
        if (this.#state === starting) this.#state = { kind: "new" };
      });
    }
    if (this.#state.kind === "starting") await this.#state.done;
    else if (this.#state.kind !== "started") throw closedError();
  }

  async publish(topic: string, message: BusMessage): Promise<void> {
    checkTopic(topic);
    // While the bus closes its handlers may still publish what they finish with.
    const { producer } = this.#state.kind === "closing" ? this.#state.parts : this.#started();
    await producer.publish(topic, message);
  }

  /** Waits for brokers and topic for as long as it takes. @throws InfraUnavailableError where the bus closes meanwhile */
  async subscribe(
    topic: string,
    group: string,
    handler: MessageHandler,
    options: SubscribeOptions = {},
  ): Promise<Unsubscribe> {
    checkTopic(topic);
    const { link, topics } = this.#started();
    const { environment, source, deadLetter, concurrency, partitions } = this.#options;
    const subscription = new KafkaSubscription(
      { topic, group, handler, category: options.deadLetters ?? "events" },
      {
        link,
        topics,
        publish: (target, message) => this.publish(target, message),
        concurrency,
        environment,
        source,
        deadLetter,
        partitions,
        log: this.#log,
      },
    );
    this.#subscriptions.add(subscription);
    const end: Unsubscribe = async (signal) => {
      await subscription.stop(signal);
      this.#subscriptions.delete(subscription);
    };
    try {
      await subscription.start(this.#abort.signal);
    } catch (thrown) {
      await end();
      throw thrown;
    }
    return end;
  }

  async follow(topic: string, options: FollowOptions, signal?: AbortSignal): Promise<Following> {
    checkTopic(topic);
    const { link, topics } = this.#started();
    const either = signal === undefined ? this.#abort.signal : AbortSignal.any([signal, this.#abort.signal]);
    return await followTopic(
      topic,
      options,
      {
        link,
        topics,
        log: this.#log,
        followers: this.#followers,
      },
      either,
    );
  }

  async deadLetter(message: DeliveredMessage, thrown: unknown, category: DeadLetterCategory): Promise<void> {
    const { environment, source, deadLetter: isWanted } = this.#options;
    if (!isWanted) return;
    const options = { environment, source, category };
    const letter = deadLetter(message, thrown, options);
    try {
      await this.publish(letter.topic, letter.message);
    } catch (failure) {
      if (!isTooLarge(failure)) throw failure;
      await this.publish(letter.topic, deadLetter(message, thrown, options, false).message);
    }
  }

  health(): BusHealth {
    const state = this.#state;
    if (state.kind !== "started") {
      return {
        healthy: false,
        type: "kafka",
        detail: `the bus is ${state.kind === "new" ? "not started" : state.kind}`,
      };
    }
    const { producer, topics } = state.parts;
    const problems = [
      producer.problem,
      ...[...this.#subscriptions].flatMap((subscription) => subscription.problems),
      ...[...this.#followers].map((follower) => follower.status().detail),
      ...topics.waiting.values(),
    ].filter((problem) => problem !== undefined);
    const notices = [...this.#subscriptions].flatMap(({ notice }) => notice ?? []);
    const detail = [...new Set([...problems, ...notices])].join("; ");
    return { healthy: problems.length === 0, type: "kafka", ...(detail !== "" && { detail }) };
  }

  async close(): Promise<void> {
    const state = this.#state;
    if (state.kind === "starting") {
      await state.done.catch(() => undefined);
      await this.close();
    } else if (state.kind === "started") {
      this.#state = { kind: "closing", parts: state.parts, done: this.#close(state.parts) };
      await this.#state.done;
    } else if (state.kind === "closing") await state.done;
    else this.#state = { kind: "closed" };
  }

  async destroy(reason: Error): Promise<void> {
    const state = this.#state;
    this.#state = { kind: "closed" };
    this.#reach.close();
    this.#abort.abort(reason);
    if ("parts" in state) state.parts.producer.destroy(reason);
    const open = [...this.#subscriptions, ...this.#followers];
    this.#subscriptions.clear();
    this.#followers.clear();
    await Promise.all(open.map((each) => each.destroy(reason)));
    if ("parts" in state) state.parts.topics.close();
  }

  async #start(): Promise<void> {
    const options = this.#options;
    const link: LinkOptions = {
      library: await loadLibrary(), // (1)
      clientId: options.source,
      servers: options.bootstrapServers,
      security: await securityOf(options),
      write: libraryLog(this.#log),
      reach: this.#reach,
    };
    const topics = new KafkaTopics(link, this.#log);
    const producer = new KafkaProducer(link, options, topics);
    try {
      await producer.connect(connectMs);
    } catch (thrown) {
      if (thrown instanceof InfraAuthenticationError)
        this.#log.warn({}, `Kafka refuses the login and is tried on: ${thrown.message}`);
    }
    if (this.#abort.signal.aborted) {
      producer.destroy(closedError());
      throw closedError();
    }
    this.#state = { kind: "started", parts: { link, topics, producer } };
  }

  async #close({ producer, topics }: Parts): Promise<void> {
    const starting = closedError();
    this.#reach.close();
    // What still waits for brokers gives up; what runs is waited for.
    const following = [...this.#followers].map((follower) => follower.close());
    const subscribed = [...this.#subscriptions].map((subscription) => subscription.stop());
    this.#abort.abort(starting);
    await Promise.all([...following, ...subscribed]);
    await producer.close();
    topics.close();
    this.#subscriptions.clear();
    this.#followers.clear();
    this.#state = { kind: "closed" };
  }

  #started(): Parts {
    const { kind } = this.#state;
    if (this.#state.kind === "started") return this.#state.parts;
    if (kind === "new" || kind === "starting")
      throw new RuntimeHostError("the event bus is not started; call start() first");
    throw closedError();
  }
}

function checkTopic(name: string): void {
  if (isTopicName(name)) return;
  throw new ProtocolConfigurationError(
    `invalid topic ${JSON.stringify(name)}: expected 1 to 249 of a-z A-Z 0-9 . _ -`,
  );
}

const closedError = (): InfraUnavailableError =>
  new InfraUnavailableError("the event bus is closed", { retryable: false, facts: { transport: "kafka" } });
