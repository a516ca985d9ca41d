/**
 * Tools from registration events. Owns: which statements hold, what of them is a change, completing events that say too
 * little, and the figures. Does not own: reading and ordering events (`registration-event.ts`, `registration-log.ts`), following
 * a topic (`registration-topic.ts`), or merging with what others state.
 *
 * 1. What was on a topic before is applied in one change, once all of it was read: a statement that was withdrawn later never shows.
 * 2. A bad event is counted, reported and dead-lettered, and never keeps the next one from being taken.
 * 3. An event that says too little states what it says; Consul is asked for the rest, and where Consul does not say it
 *    either, the event is rejected as well. Consul has the word: one that is away is waited for, and of what was on a
 *    topic before only what holds at its end is asked for.
 * 4. Only what is declared gone while we look on makes others' statements not count.
 * 5. After `close` nothing is applied.
 */
import type { FollowedMessage } from "../bus/bus.ts";
import { within } from "../core/abort.ts";
import { type Clock, monotonicClock } from "../core/clock.ts";
import { messageOf, RuntimeHostError } from "../core/errors.ts";
import { type LogFields, type Logger, silentLogger } from "../core/log.ts";
import type { Instance } from "../tools/instance.ts";
import type { ApplyChange, InstanceRecord, SourceStatus, ToolSource } from "../tools/source.ts";
import { registrationReader, type RegistrationEvent } from "./registration-event.ts";
import { enabledTag } from "./tags.ts";
import { RegistrationLog } from "./registration-log.ts";
import { type FollowedBus, RegistrationTopic } from "./registration-topic.ts";
import { type DeadLetter, type Rejected, Rejections } from "./rejections.ts";
import { thinned } from "../core/thinned-log.ts";
import { WorkQueue } from "./work-queue.ts";

export interface EventSourceOptions {
  readonly log: FollowedBus;
  /** At least one. */
  readonly topics: readonly string[];
  /** Read topics from their beginning; else only what comes from now on. */
  readonly replay: boolean;
  /** Of a topic that is made because it is not there. Absent: none is made. */
  readonly partitions?: number;
  /** Completes events that say too little. Default: nobody does. */
  readonly consul?: ServiceLookUp | undefined;
  readonly deadLetter: DeadLetter;
  /** Events that are rejected are one line in the log, when the source is closed. Default false: a line each, thinned. */
  readonly isBrief?: boolean;
  /** Default: nothing is logged. */
  readonly logger?: Logger;
  readonly clock?: Clock;
}

export interface ServiceLookUp {
  /** What Consul says of the instance; undefined: Consul does not know it. Rejects where that cannot be told. */
  lookUp(serviceId: string, serviceName: string | undefined): Promise<Instance | undefined>;
  /** What was looked up is needed no more: until then it counts, also where it leaves Consul and comes back. */
  dismiss(serviceId: string): void;
}

export interface EventCounters {
  /** Events that changed what holds, or said it again. */
  readonly accepted: number;
  readonly dropped: { readonly older: number; readonly duplicate: number };
  readonly rejected: number;
  /** Events with keys that have no effect. */
  readonly informational: number;
  /** Messages that are there and were not read yet, as last known. */
  readonly lag: number;
}

/** Milliseconds between looks at whether all is well, by which the age of the state is known. */
const lookMs = 1000;
/** Milliseconds that what is under way may take at the end: a Kafka that is away would take long. */
const closeMs = 2000;

type State =
  | { readonly kind: "new" }
  | { readonly kind: "open"; readonly apply: ApplyChange }
  | { readonly kind: "closed"; readonly done: Promise<void> };

export class EventSource implements ToolSource {
  readonly name = "events";
  readonly kind = "event";
  readonly #options: EventSourceOptions;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #topics: readonly RegistrationTopic[];
  readonly #read = registrationReader();
  readonly #registrations: RegistrationLog;
  readonly #rejections: Rejections;
  readonly #lookUps = new WorkQueue();
  readonly #notAsked: (fields: LogFields) => void;
  readonly #counts = { accepted: 0, older: 0, duplicate: 0, informational: 0 };
  #state: State = { kind: "new" };
  #currentAt: number;
  #looks: NodeJS.Timeout | undefined;

  constructor(options: EventSourceOptions) {
    this.#options = options;
    this.#log = (options.logger ?? silentLogger).child({ source: this.name });
    this.#clock = options.clock ?? monotonicClock;
    this.#currentAt = this.#clock.now();
    this.#registrations = new RegistrationLog({ clock: this.#clock });
    this.#rejections = new Rejections({
      deadLetter: options.deadLetter,
      isBrief: options.isBrief ?? false,
      log: this.#log,
      clock: this.#clock,
    });
    this.#notAsked = thinned(
      (fields) => this.#log.info(fields, "Consul could not be asked to complete a registration event"),
      this.#clock,
    );
    const { log, replay, partitions } = options;
    this.#topics = [...new Set(options.topics)].map((topic) => {
      const held = new Changes();
      let isCaughtUp = false;
      return new RegistrationTopic({
        log,
        topic,
        replay,
        ...(partitions !== undefined && { partitions }),
        onMessages: (messages) => {
          this.#take(messages, held);
          if (isCaughtUp) this.#apply(held);
        },
        onRestart: (partition) => {
          this.#log.warn(
            { topic, partition },
            "the partition begins again: what is on it now counts as later",
          );
          this.#registrations.restart(topic, partition);
        },
        onCaughtUp: () => {
          isCaughtUp = true;
          this.#apply(held); // (1)
        },
      });
    });
  }

  /** Resolves once all that was on the topics has been applied, or Kafka is seen to be out of reach; then it goes on by itself. */
  async start(apply: ApplyChange): Promise<void> {
    if (this.#state.kind !== "new") throw new RuntimeHostError("An event source can be started only once.");
    this.#state = { kind: "open", apply };
    this.#looks = setInterval(() => this.#look(), lookMs).unref();
    await Promise.all(this.#topics.map((topic) => topic.start()));
    this.#look();
  }

  status(): SourceStatus {
    const troubles = this.#look();
    const lastError = [...new Set(troubles)].join("; ");
    const state = this.#stateName(troubles);
    const { dropped, ...counters } = this.counters();
    return {
      name: this.name,
      kind: this.kind,
      state,
      ageSeconds: state === "ready" ? 0 : (this.#clock.now() - this.#currentAt) / 1000,
      counters: { ...counters, older: dropped.older, duplicate: dropped.duplicate },
      ...(lastError !== "" && { lastError }),
    };
  }

  /** Topics whose history was not read yet: what is on them is not known. */
  unreadParts(): readonly string[] {
    return this.#topics.filter(({ isCaughtUp }) => !isCaughtUp).map(({ name }) => name);
  }

  counters(): EventCounters {
    const { accepted, older, duplicate, informational } = this.#counts;
    return {
      accepted,
      dropped: { older, duplicate },
      rejected: this.#rejections.count,
      informational,
      lag: this.#topics.reduce((sum, topic) => sum + topic.lag, 0),
    };
  }

  /** Events that could not be taken: the last one of each service. */
  report(): readonly Rejected[] {
    return this.#rejections.latest;
  }

  /** Ends following, the groups on Kafka included. What was applied stays. Idempotent. (5) */
  close(): Promise<void> {
    if (this.#state.kind === "closed") return this.#state.done;
    clearInterval(this.#looks);
    const done = this.#close();
    this.#state = { kind: "closed", done };
    return done;
  }

  async #close(): Promise<void> {
    await Promise.all(this.#topics.map((topic) => topic.close()));
    // What a look-up under way finds wrong is a dead letter too.
    await within(
      this.#lookUps.close().then(() => this.#rejections.close()),
      closeMs,
    );
  }

  /** What is wrong at the moment. */
  #look(): readonly string[] {
    if (this.#state.kind !== "open") return [];
    const troubles = this.#topics.flatMap(({ trouble }) => trouble ?? []);
    if (this.#stateName(troubles) === "ready") this.#currentAt = this.#clock.now();
    return troubles;
  }

  #stateName(troubles: readonly string[]): SourceStatus["state"] {
    if (this.#state.kind === "closed") return "closed";
    if (troubles.length === 0)
      return this.#topics.every(({ isCaughtUp }) => isCaughtUp) ? "ready" : "starting";
    // One topic that is away does not make what the others say any less current.
    return this.#topics.some(({ isCaughtUp }) => isCaughtUp) ? "degraded" : "starting";
  }

  #take(messages: readonly FollowedMessage[], changes: Changes): void {
    for (const message of messages) {
      const read = this.#read(message);
      if (read.ok) this.#fold(read.event, message, changes);
      else this.#rejections.add(message, read.kind, read.reason, read.subject); // (2)
    }
  }

  #fold(event: RegistrationEvent, message: FollowedMessage, changes: Changes): void {
    const verdict = this.#registrations.accept(event, message.isHistory);
    if (event.ignored.length > 0) this.#counts.informational += 1;
    if (verdict.kind === "dropped") {
      this.#counts[verdict.reason] += 1;
      return;
    }
    this.#counts.accepted += 1;
    this.#rejections.forget(event.serviceId);
    if (verdict.kind === "remove") {
      changes.remove(event.serviceId, verdict.suppress); // (4)
      return;
    }
    const { instance } = verdict;
    const lacking = instance === event.instance ? lacks(instance) : undefined;
    changes.put(event.serviceId, lacking === undefined ? undefined : { instance, message, lacking });
  }

  /** (3) */
  #complete({ instance, message, lacking }: Incomplete): void {
    const { serviceId, serviceName } = instance;
    const { consul } = this.#options;
    const reject = (why: string): void =>
      this.#rejections.add(message, "IncompleteEventError", `it lacks ${lacking}, and ${why}`);
    if (consul === undefined) {
      reject("there is no Consul to complete it");
      return;
    }
    const isOver = (): boolean =>
      this.#state.kind === "closed" || this.#registrations.current(serviceId) !== instance;
    const lookUp = async (): Promise<void> => {
      if (isOver()) return;
      try {
        const found = await consul.lookUp(serviceId, serviceName);
        const missing = missingIn(found, instance);
        if (missing !== undefined && !isOver()) reject(missing);
      } catch (error) {
        if (!isOver()) this.#notAsked({ service_id: serviceId, reason: messageOf(error) });
      }
    };
    if (!this.#lookUps.push(lookUp)) reject("too many wait for Consul to complete them");
  }

  #apply(changes: Changes): void {
    if (this.#state.kind !== "open") return; // (5)
    const put: InstanceRecord[] = [];
    const remove: string[] = [];
    const suppress: string[] = [];
    const incomplete: Incomplete[] = [];
    for (const [serviceId, { isSuppressed, said }] of changes.take()) {
      // What holds by now: another topic may have said something since.
      const instance = this.#registrations.current(serviceId);
      if (instance !== undefined) {
        const part = this.#registrations.topicOf(serviceId);
        put.push({ key: serviceId, instance, ...(part !== undefined && { part }) });
        if (said?.instance === instance) incomplete.push(said);
        else if (lacks(instance) === undefined) this.#options.consul?.dismiss(serviceId);
        continue;
      }
      this.#options.consul?.dismiss(serviceId);
      remove.push(serviceId);
      if (isSuppressed) suppress.push(serviceId);
    }
    if (put.length + remove.length === 0) return;
    this.#state.apply({ put, remove, ...(suppress.length > 0 && { suppress }) });
    for (const one of incomplete) this.#complete(one);
  }
}

/** An event that says too little. */
interface Incomplete {
  readonly instance: Instance;
  readonly message: FollowedMessage;
  readonly lacking: string;
}

/** What an event does not say and the tool cannot be called without. */
function lacks({ claim, url }: Instance): string | undefined {
  if (claim === undefined) return url === undefined ? "tags and endpoint" : "tags";
  return "toolName" in claim && url === undefined ? "an endpoint" : undefined;
}

/** Why the event is incomplete even with what Consul says; undefined: it is complete. */
function missingIn(consul: Instance | undefined, event: Instance): string | undefined {
  const id = JSON.stringify(event.serviceId);
  if (consul === undefined) return `Consul does not know the service_id ${id}`;
  const claim = event.claim ?? consul.claim;
  if (claim === undefined) return `Consul has the service_id ${id} without the tag ${enabledTag}`;
  const url = event.url ?? consul.url;
  if ("toolName" in claim && url === undefined)
    return `Consul has the service_id ${id} without an address that can be used`;
  return undefined;
}

interface Change {
  readonly isSuppressed: boolean;
  readonly said?: Incomplete;
}

/** Services whose statement has changed and was not applied yet. What is registered again is not suppressed by what was before. */
class Changes {
  #services = new Map<string, Change>();

  /** @param said the event, where it says too little */
  put(serviceId: string, said = this.#services.get(serviceId)?.said): void {
    this.#services.set(serviceId, { isSuppressed: false, ...(said !== undefined && { said }) });
  }

  /** @param suppress it was declared gone just now */
  remove(serviceId: string, suppress: boolean): void {
    const isSuppressed = suppress || this.#services.get(serviceId)?.isSuppressed === true;
    this.#services.set(serviceId, { isSuppressed });
  }

  take(): ReadonlyMap<string, Change> {
    const services = this.#services;
    this.#services = new Map();
    return services;
  }
}
