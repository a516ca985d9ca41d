/**
 * The event bus inside one process. Owns: topics, groups, order per key and a short history. Keeps nothing beyond the
 * process. Does not own: what messages mean.
 *
 * Beyond the port's own promises:
 * 1. A group exists while it has subscribers: what is published without one is not kept for it.
 * 2. The last subscriber to leave a group is still given what was published before it left.
 * 3. At most `concurrency` messages run at once per subscriber.
 * 4. While the bus closes, its groups work off what they have. What is published then, by handlers that finish, is
 *    accepted and given to no group.
 */
import {
  InfraUnavailableError,
  ProtocolConfigurationError,
  RuntimeHostError,
  messageOf,
} from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import type { BusHealth, BusMessage, DeliveredMessage, EventBus, MessageHandler } from "./bus.ts";
import { isTopicName } from "./envelope.ts";
import { Fifo } from "./fifo.ts";

export interface MemoryBusOptions {
  /** Messages kept per topic for `history`. Default 1000; 0 keeps none. */
  readonly maxHistory?: number;
  /** Messages one subscriber works on at once. Default 32. */
  readonly concurrency?: number;
  readonly log?: Logger;
}

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
  readonly #maxHistory: number;
  readonly #concurrency: number;
  readonly #log: Logger;
  readonly #topics = new Map<string, Topic>();
  readonly #abort = new AbortController();
  #state: State = { kind: "new" };

  /** @throws ProtocolConfigurationError where an option is not a whole number in its range */
  constructor(options: MemoryBusOptions = {}) {
    this.#maxHistory = wholeNumber("maxHistory", options.maxHistory ?? 1000, 0);
    this.#concurrency = wholeNumber("concurrency", options.concurrency ?? 32, 1);
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
    if (this.#state.kind === "closing") return; // (4)
    for (const group of topic.groups.values()) group.add(delivered);
  }

  async subscribe(
    topicName: string,
    groupName: string,
    handler: MessageHandler,
  ): Promise<() => Promise<void>> {
    this.#requireStarted();
    const topic = this.#topic(topicName);
    let group = topic.groups.get(groupName);
    if (group === undefined) {
      group = new Group(this.#concurrency, this.#abort.signal, (message, thrown) => {
        this.#log.error(
          { topic: message.topic, offset: message.offset, key: message.key, group: groupName, err: thrown },
          `A message handler failed: ${messageOf(thrown)}`,
        );
      });
      topic.groups.set(groupName, group);
    }
    const joined = group;
    const member: Member = { handler, running: 0 };
    joined.join(member);
    let left: Promise<void> | undefined;
    return () => {
      left ??= joined.leave(member).then(() => {
        if (joined.abandoned && topic.groups.get(groupName) === joined) topic.groups.delete(groupName);
      });
      return left;
    };
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
    let topic = this.#topics.get(name);
    if (topic === undefined) {
      topic = { history: [], groups: new Map(), nextOffset: 0 };
      this.#topics.set(name, topic);
    }
    return topic;
  }
}

interface Member {
  readonly handler: MessageHandler;
  running: number;
}

/** The subscribers of one topic that share its messages. */
class Group {
  readonly #concurrency: number;
  readonly #signal: AbortSignal;
  readonly #report: (message: DeliveredMessage, thrown: unknown) => void;
  readonly #members: Member[] = [];
  /** May run as soon as there is room. */
  readonly #ready = new Fifo<DeliveredMessage>();
  /** A key is here while a message with it is ready or runs; its later messages wait in its lane. */
  readonly #lanes = new Map<string, Fifo<DeliveredMessage>>();
  /** Told after every delivery; each decides for itself whether its wait is over. */
  readonly #waiting = new Set<() => void>();
  /** Works off what is left once no member is left. (2) */
  #last: Member | undefined;
  #turn = 0;
  #running = 0;

  constructor(
    concurrency: number,
    signal: AbortSignal,
    report: (message: DeliveredMessage, thrown: unknown) => void,
  ) {
    this.#concurrency = concurrency;
    this.#signal = signal;
    this.#report = report;
  }

  get abandoned(): boolean {
    return this.#members.length === 0;
  }

  join(member: Member): void {
    this.#members.push(member);
    this.#last = undefined;
    this.#pump();
  }

  /** Resolves when the member runs nothing more and will be given nothing more. */
  leave(member: Member): Promise<void> {
    this.#members.splice(this.#members.indexOf(member), 1);
    if (this.#members.length === 0) this.#last = member;
    return this.#until(() => member.running === 0 && (this.#last !== member || this.#idle));
  }

  add(message: DeliveredMessage): void {
    if (this.abandoned) return; // (1)
    if (message.key !== null) {
      const lane = this.#lanes.get(message.key);
      if (lane !== undefined) {
        lane.push(message);
        return;
      }
      this.#lanes.set(message.key, new Fifo());
    }
    this.#ready.push(message);
    this.#pump();
  }

  idle(): Promise<void> {
    return this.#until(() => this.#idle);
  }

  /** Forgets what waits. What runs has been told by its signal. */
  drop(): void {
    this.#ready.clear();
    this.#lanes.clear();
    this.#members.length = 0;
    this.#last = undefined;
    for (const check of this.#waiting) check();
  }

  get #idle(): boolean {
    return this.#running === 0 && this.#ready.size === 0;
  }

  #until(over: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const check = (): void => {
        if (!over() && !this.#signal.aborted) return;
        this.#waiting.delete(check);
        resolve();
      };
      this.#waiting.add(check);
      check();
    });
  }

  #pump(): void {
    while (this.#ready.size > 0) {
      const member = this.#pick();
      const message = member === undefined ? undefined : this.#ready.shift();
      if (member === undefined || message === undefined) return;
      this.#running += 1;
      member.running += 1;
      void this.#deliver(member, message);
    }
  }

  /** The next in turn that has room. (3) */
  #pick(): Member | undefined {
    const candidates = this.#members.length === 0 && this.#last !== undefined ? [this.#last] : this.#members;
    for (let tried = 0; tried < candidates.length; tried += 1) {
      const member = candidates[this.#turn % candidates.length];
      this.#turn += 1;
      if (member !== undefined && member.running < this.#concurrency) return member;
    }
    return undefined;
  }

  async #deliver(member: Member, message: DeliveredMessage): Promise<void> {
    try {
      // The publisher's own turn ends before anyone's handler begins.
      await Promise.resolve();
      if (!this.#signal.aborted) await member.handler(message, this.#signal);
    } catch (thrown) {
      this.#report(message, thrown);
    }
    member.running -= 1;
    this.#running -= 1;
    if (message.key !== null) {
      const next = this.#lanes.get(message.key)?.shift();
      if (next === undefined) this.#lanes.delete(message.key);
      else this.#ready.push(next);
    }
    this.#pump();
    for (const check of this.#waiting) check();
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
