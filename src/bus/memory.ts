/**
 * The event bus inside one process. Owns: topics, their groups and a short history. Keeps nothing beyond the process.
 * Does not own: who of a group gets a message, and when (`group.ts`); what messages mean.
 *
 * Beyond the port's own promises:
 * 1. While the bus closes, its groups work off what they have. What is published then, by handlers that finish, is
 *    accepted and given to no group.
 * 2. Topics that nobody subscribes to do not pile up: a sender may name a new one for every answer. Of more than
 *    `maxTopics` the one that was used longest ago is forgotten, with its history.
 */
import {
  InfraUnavailableError,
  ProtocolConfigurationError,
  RuntimeHostError,
  messageOf,
} from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import { abortReason } from "../core/abort.ts";
import { isTopicName } from "../core/topic-name.ts";
import type {
  BusHealth,
  BusMessage,
  DeadLetterCategory,
  DeliveredMessage,
  EventBus,
  MessageHandler,
  SubscribeOptions,
  Unsubscribe,
} from "./bus.ts";
import { deadLetter } from "./dead-letter.ts";
import { Group, type Member } from "./group.ts";

export interface MemoryBusOptions {
  /** Messages kept per topic for `history`. Default 1000; 0 keeps none. */
  readonly maxHistory?: number;
  /** Messages one subscriber works on at once. Default 32. */
  readonly concurrency?: number;
  /** First part of the dead-letter topics' names. Default local. */
  readonly environment?: string;
  /** Sender of dead letters. Default onex-runtime. */
  readonly source?: string;
  /** Whether messages that could not be handled go to a dead-letter topic, besides the log. Default true. */
  readonly deadLetter?: boolean;
  readonly log?: Logger;
}

const maxTopics = 1000;

type State =
  | { readonly kind: "new" }
  | { readonly kind: "started" }
  | { readonly kind: "closing"; readonly done: Promise<void> }
  | { readonly kind: "closed" };

interface Topic {
  readonly history: DeliveredMessage[];
  readonly groups: Map<string, Group>;
  nextOffset: number;
}

export class MemoryBus implements EventBus {
  readonly redelivers = false;
  readonly #maxHistory: number;
  readonly #concurrency: number;
  readonly #letters: { readonly environment: string; readonly source: string; readonly wanted: boolean };
  readonly #log: Logger;
  readonly #topics = new Map<string, Topic>();
  readonly #abort = new AbortController();
  #state: State = { kind: "new" };

  /** @throws ProtocolConfigurationError where an option is not a whole number in its range */
  constructor(options: MemoryBusOptions = {}) {
    this.#maxHistory = wholeNumber("maxHistory", options.maxHistory ?? 1000, 0);
    this.#concurrency = wholeNumber("concurrency", options.concurrency ?? 32, 1);
    const { environment = "local", source = "onex-runtime", deadLetter: wanted = true } = options;
    this.#letters = { environment, source, wanted };
    this.#log = options.log ?? silentLogger;
  }

  async start(): Promise<void> {
    if (this.#state.kind === "new") this.#state = { kind: "started" };
    else if (this.#state.kind !== "started") throw closedError();
  }

  async publish(topicName: string, message: BusMessage): Promise<void> {
    if (this.#state.kind !== "closing") this.#requireStarted();
    const topic = this.#topic(topicName);
    const delivered: DeliveredMessage = Object.freeze({
      key: message.key,
      value: message.value,
      headers: Object.freeze({ ...message.headers }),
      topic: topicName,
      partition: 0,
      offset: String(topic.nextOffset),
      timestamp: Date.now(),
    });
    topic.nextOffset += 1;
    if (this.#maxHistory > 0) {
      topic.history.push(delivered);
      if (topic.history.length > this.#maxHistory) topic.history.shift();
    }
    if (this.#state.kind === "closing") return; // (1)
    for (const group of topic.groups.values()) group.add(delivered);
  }

  async subscribe(
    topicName: string,
    groupName: string,
    handler: MessageHandler,
    { deadLetters: category = "events" }: SubscribeOptions = {},
  ): Promise<Unsubscribe> {
    this.#requireStarted();
    const topic = this.#topic(topicName);
    let group = topic.groups.get(groupName);
    if (group === undefined) {
      group = new Group(this.#concurrency, this.#abort.signal, (message, thrown) =>
        this.#bury(message, thrown, groupName, category),
      );
      topic.groups.set(groupName, group);
    }
    const joined = group;
    const abort = new AbortController();
    const signal = AbortSignal.any([this.#abort.signal, abort.signal]);
    const member: Member = { handler, signal, running: 0 };
    joined.join(member);
    let left: Promise<void> | undefined;
    return (ending) => {
      const onAbort = (): void => abort.abort(abortReason(ending));
      if (ending?.aborted === true) onAbort();
      else ending?.addEventListener("abort", onAbort, { once: true });
      left ??= joined.leave(member).then(() => {
        if (joined.abandoned && topic.groups.get(groupName) === joined) topic.groups.delete(groupName);
      });
      return left.finally(() => ending?.removeEventListener("abort", onAbort));
    };
  }

  /** Puts a message that could not be handled on its dead-letter topic. Never rejects. */
  async #bury(
    message: DeliveredMessage,
    thrown: unknown,
    group: string,
    category: DeadLetterCategory,
  ): Promise<void> {
    const { environment, source, wanted } = this.#letters;
    const { topic, partition, offset, key } = message;
    const letter = deadLetter(message, thrown, { environment, source, category });
    this.#log.error(
      { topic, partition, offset, keyed_by: key, group, ...letter.fields, err: thrown },
      `A message handler failed: ${messageOf(thrown)}`,
    );
    // A letter about a letter would come back here.
    if (!wanted || letter.topic === topic || this.#state.kind === "closed") return;
    try {
      await this.publish(letter.topic, letter.message);
    } catch (failure) {
      this.#log.error(
        { topic: letter.topic, err: failure },
        `A dead letter could not be published: ${messageOf(failure)}`,
      );
    }
  }

  /** The latest messages of a topic, oldest first, at most `maxHistory`. */
  history(topic: string): readonly DeliveredMessage[] {
    return [...(this.#topics.get(topic)?.history ?? [])];
  }

  health(): BusHealth {
    if (this.#state.kind === "started") return { healthy: true, type: "inmemory" };
    return { healthy: false, type: "inmemory", detail: `the bus is ${this.#state.kind}` };
  }

  async close(): Promise<void> {
    if (this.#state.kind === "closed") return;
    if (this.#state.kind !== "closing") {
      const groups = [...this.#topics.values()].flatMap((topic) => [...topic.groups.values()]);
      const drained = Promise.all(groups.map((group) => group.idle())).then(() => this.#end());
      this.#state = { kind: "closing", done: drained };
    }
    await this.#state.done;
  }

  async destroy(reason: Error): Promise<void> {
    this.#abort.abort(reason);
    for (const topic of this.#topics.values()) {
      for (const group of topic.groups.values()) group.drop();
    }
    this.#end();
  }

  #end(): void {
    this.#state = { kind: "closed" };
    for (const topic of this.#topics.values()) topic.groups.clear();
  }

  #requireStarted(): void {
    if (this.#state.kind === "new")
      throw new RuntimeHostError("the event bus is not started; call start() first");
    if (this.#state.kind !== "started") throw closedError();
  }

  #topic(name: string): Topic {
    if (!isTopicName(name)) {
      throw new ProtocolConfigurationError(
        `invalid topic ${JSON.stringify(name)}: expected 1 to 249 of a-z A-Z 0-9 . _ -`,
      );
    }
    const known = this.#topics.get(name);
    if (known === undefined && this.#topics.size >= maxTopics) this.#forgetIdle();
    const topic = known ?? { history: [], groups: new Map<string, Group>(), nextOffset: 0 };
    // Anew, so that the map is in the order of use.
    this.#topics.delete(name);
    this.#topics.set(name, topic);
    return topic;
  }

  /** (2) */
  #forgetIdle(): void {
    for (const [name, { groups }] of this.#topics) {
      if (groups.size > 0) continue;
      this.#topics.delete(name);
      return;
    }
  }
}

function wholeNumber(name: string, value: number, least: number): number {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new ProtocolConfigurationError(
    `event bus option ${name} must be a whole number of at least ${least}, got ${value}`,
  );
}

const closedError = (): InfraUnavailableError =>
  new InfraUnavailableError("the event bus is closed", {
    retryable: false,
    facts: { transport: "inmemory" },
  });
