/**
 * Folds registration events into the present statement about every service. Pure but for the clock that it is given. Does
 * not own: reading events, or what becomes of the statements.
 *
 * Events of one partition come in the order of their offsets; partitions, and topics, come in any order towards each other.
 * 1. Of the events of one service on one partition the one with the highest offset counts.
 * 2. Of what counts on several partitions the latest by its time of emission holds, then the last by topic, partition and
 *    offset. So the result is the same however partitions interleave, and whatever is read twice.
 * 3. An event id seen before on the partition is dropped. On another partition it is the same event again, with the
 *    earlier of its times.
 * 4. That a service is gone is remembered for 24 hours: an older event that comes late does not bring it back.
 * 5. What is remembered beyond present statements is bounded: so many event ids, and tombstones by their age.
 */
import { type Clock, monotonicClock } from "../core/clock.ts";
import type { Instance } from "../tools/instance.ts";
import type { RegistrationEvent } from "./registration-event.ts";

export interface RegistrationLogOptions {
  /** Default: the monotonic clock. Times of events are compared with each other only. */
  readonly clock?: Clock;
  /** Milliseconds for which a service that is gone is remembered. Default 24 hours. */
  readonly tombstoneMs?: number;
  /** Event ids remembered, the latest ones. Default 100,000. */
  readonly maxEventIds?: number;
}

const dayMs = 24 * 60 * 60 * 1000;

/** What an event changed. */
export type Verdict =
  | { readonly kind: "put"; readonly instance: Instance }
  /** `suppress`: it was declared gone just now, not before we began. */
  | { readonly kind: "remove"; readonly suppress: boolean }
  | { readonly kind: "dropped"; readonly reason: "older" | "duplicate" };

/** An event id. */
interface Known {
  /** The earliest time under which it came. (3) */
  emittedAt: number;
  readonly places: Place[];
}

interface Place {
  readonly topic: string;
  readonly partition: number;
}

/** What counts on one partition. */
interface Candidate extends Place {
  offset: number;
  readonly known: Known;
  /** Undefined: the service is gone. */
  readonly instance: Instance | undefined;
  /** Consul was told not to contradict it. */
  readonly suppressed: boolean;
}

interface Tombstone {
  readonly serviceId: string;
  /** By the clock. */
  readonly until: number;
}

export class RegistrationLog {
  readonly #clock: Clock;
  readonly #tombstoneMs: number;
  readonly #maxEventIds: number;
  /** One for each partition on which the service has events; the one that holds is first. */
  readonly #services = new Map<string, readonly Candidate[]>();
  /** By service and event id; the one used longest ago is first. */
  readonly #known = new Map<string, Known>();
  /** The one that ends first is first. */
  readonly #tombstones = new Map<Candidate, Tombstone>();

  constructor(options: RegistrationLogOptions = {}) {
    this.#clock = options.clock ?? monotonicClock;
    this.#tombstoneMs = options.tombstoneMs ?? dayMs;
    this.#maxEventIds = options.maxEventIds ?? 100_000;
  }

  /** The present statement about a service; undefined: it is gone, or nothing was said of it. */
  current(serviceId: string): Instance | undefined {
    return this.#services.get(serviceId)?.[0]?.instance;
  }

  /** The topic that says so; undefined: nothing was said of it. */
  topicOf(serviceId: string): string | undefined {
    return this.#services.get(serviceId)?.[0]?.topic;
  }

  /**
   * Folds one event in.
   *
   * @param isHistory it was on the topic before we began: what it declares gone may have come back since, so it never suppresses
   */
  accept(event: RegistrationEvent, isHistory: boolean): Verdict {
    this.#bury();
    const known = this.#learn(event);
    if (known === undefined) return { kind: "dropped", reason: "duplicate" };
    const { serviceId, topic, partition, offset, instance } = event;
    const before = this.#services.get(serviceId) ?? [];
    const replaced = before.find((candidate) => isSamePlace(candidate, event));
    const suppress = !isHistory && instance === undefined && !isOnlyMarker(event, before[0]);
    const suppressed = suppress || (instance === undefined && before[0]?.suppressed === true);
    const candidate = { topic, partition, offset, known, instance, suppressed };
    const counts = replaced === undefined || replaced.offset < offset; // (1)
    // Sorted anew in any case: the time of an event seen before may have become another.
    const after = (counts ? [...before.filter((other) => other !== replaced), candidate] : [...before]).sort(
      latestFirst,
    );
    this.#services.set(serviceId, after);
    if (counts) this.#remember(serviceId, candidate, replaced);
    const [first] = after;
    if (first === undefined || first === before[0]) return { kind: "dropped", reason: "older" };
    if (first.instance !== undefined) return { kind: "put", instance: first.instance };
    return { kind: "remove", suppress: first === candidate && suppress };
  }

  /** (4) */
  #remember(serviceId: string, candidate: Candidate, replaced: Candidate | undefined): void {
    if (replaced !== undefined) this.#tombstones.delete(replaced);
    if (candidate.instance !== undefined) return;
    this.#tombstones.set(candidate, { serviceId, until: this.#clock.now() + this.#tombstoneMs });
  }

  /**
   * A partition was made anew and its offsets begin again: what is on it now is later than all that was on it. What was
   * stated stays until something else is.
   */
  restart(topic: string, partition: number): void {
    const restarted = { topic, partition };
    for (const [key, { places }] of this.#known) {
      const at = places.findIndex((place) => isSamePlace(place, restarted));
      if (at === -1) continue;
      places.splice(at, 1);
      if (places.length === 0) this.#known.delete(key);
    }
    for (const candidates of this.#services.values()) {
      const candidate = candidates.find((one) => isSamePlace(one, restarted));
      if (candidate !== undefined) candidate.offset = -1;
    }
  }

  /** Undefined: it was seen before on this partition. (3) */
  #learn({ serviceId, eventId, emittedAt, topic, partition }: RegistrationEvent): Known | undefined {
    const key = `${serviceId.length} ${serviceId} ${eventId}`;
    const known = this.#known.get(key);
    if (known === undefined) {
      const first = { emittedAt, places: [{ topic, partition }] };
      this.#known.set(key, first);
      if (this.#known.size > this.#maxEventIds) this.#forgetOldest(); // (5)
      return first;
    }
    this.#known.delete(key);
    this.#known.set(key, known);
    if (known.places.some((place) => isSamePlace(place, { topic, partition }))) return undefined;
    known.places.push({ topic, partition });
    known.emittedAt = Math.min(known.emittedAt, emittedAt);
    return known;
  }

  #forgetOldest(): void {
    const [oldest] = this.#known.keys();
    if (oldest !== undefined) this.#known.delete(oldest);
  }

  /** Forgets services that have been gone for long, with all that is older. (4) */
  #bury(): void {
    const now = this.#clock.now();
    for (const [candidate, { serviceId, until }] of this.#tombstones) {
      if (until > now) return;
      this.#tombstones.delete(candidate);
      const candidates = this.#services.get(serviceId) ?? [];
      const at = candidates.indexOf(candidate);
      if (at === 0) this.#services.delete(serviceId);
      else if (at > 0) this.#services.set(serviceId, candidates.slice(0, at));
    }
  }
}

const isSamePlace = (a: Place, b: Place): boolean => a.partition === b.partition && a.topic === b.topic;

/**
 * A null value behind a deregistration is there to let the topic forget, as compaction wants it: it declares nothing new,
 * and the service may have come back to Consul in between.
 */
const isOnlyMarker = (event: RegistrationEvent, holds: Candidate | undefined): boolean =>
  event.type === null && holds?.suppressed === true;

/** (2) */
function latestFirst(a: Candidate, b: Candidate): number {
  const byTime = b.known.emittedAt - a.known.emittedAt;
  if (byTime !== 0) return byTime;
  if (a.topic !== b.topic) return a.topic < b.topic ? 1 : -1;
  return b.partition - a.partition || b.offset - a.offset;
}
