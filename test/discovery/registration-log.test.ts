import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { RegistrationEvent } from "../../src/discovery/registration-event.ts";
import { RegistrationLog } from "../../src/discovery/registration-log.ts";
import type { Instance } from "../../src/tools/instance.ts";
import { ManualClock } from "../resilience/clock.ts";

const daySeconds = 24 * 60 * 60;
const services = ["a", "b"];

interface Statement {
  readonly id?: string;
  readonly at?: number;
  readonly offset?: number;
  readonly partition?: number;
  readonly topic?: string;
  readonly service?: string;
}

let offsets = 0;

function eventOf(
  type: RegistrationEvent["type"],
  instance: Instance | undefined,
  given: Statement,
): RegistrationEvent {
  const { at = 0, topic = "t", partition = 0, service = "a", offset = offsets++ } = given;
  const eventId = given.id ?? `${topic}/${partition}/${offset}`;
  const place = { topic, partition, offset };
  return {
    eventId,
    type,
    serviceId: service,
    emittedAt: at,
    ...place,
    ignored: [],
    ...(instance && { instance }),
  };
}

const stated = (name: string, serviceId = "a"): Instance => ({
  source: "event",
  serviceId,
  serviceName: name,
  definition: {},
  live: true,
});
const here = (name: string, given: Statement = {}): RegistrationEvent =>
  eventOf("registered", stated(name, given.service), given);
const gone = (given: Statement = {}): RegistrationEvent => eventOf("deregistered", undefined, given);
const empty = (given: Statement = {}): RegistrationEvent => eventOf(null, undefined, given);

const put = (name: string): unknown => ({ kind: "put", instance: stated(name) });
const removed = (suppress: boolean): unknown => ({ kind: "remove", suppress });
const older = { kind: "dropped", reason: "older" };
const duplicate = { kind: "dropped", reason: "duplicate" };

/** What becomes of events that come one after the other while we look on. */
const fold = (log: RegistrationLog, ...events: readonly RegistrationEvent[]): unknown[] =>
  events.map((event) => log.accept(event, false));

describe("on one partition", () => {
  it("the later offset counts, whatever times events name", () => {
    const log = new RegistrationLog();
    expect(fold(log, here("one", { at: 9 }), here("two", { at: 3 }))).toEqual([put("one"), put("two")]);
    expect(log.current("a")).toEqual(stated("two"));
  });

  it("what is read again changes nothing", () => {
    const log = new RegistrationLog();
    const events = [here("one"), here("two"), gone(), here("three")];
    fold(log, ...events);
    expect(fold(log, ...events)).toEqual(events.map(() => duplicate));
    expect(log.current("a")).toEqual(stated("three"));
  });

  it("an event id that comes again under another offset is dropped", () => {
    const log = new RegistrationLog();
    const verdicts = fold(log, here("one", { id: "x" }), gone(), here("one", { id: "x" }));
    expect(verdicts).toEqual([put("one"), removed(true), duplicate]);
    expect(log.current("a")).toBeUndefined();
  });

  it("services are apart, event ids too", () => {
    const log = new RegistrationLog();
    fold(log, here("one", { id: "x" }), here("two", { id: "x", service: "b" }), gone({ service: "b" }));
    expect(log.current("a")).toEqual(stated("one"));
    expect(log.current("b")).toBeUndefined();
  });

  it("that is made anew, small offsets are the later ones", () => {
    const log = new RegistrationLog();
    fold(log, here("one", { offset: 100 }), here("two", { offset: 101, id: "t/0/0" }));
    expect(fold(log, here("late", { offset: 99 }))).toEqual([older]);
    log.restart("t", 0);
    expect(log.current("a")).toEqual(stated("two"));
    expect(fold(log, here("three", { offset: 0 }), here("four", { offset: 1 }))).toEqual([
      put("three"),
      put("four"),
    ]);
  });
});

describe("across partitions", () => {
  it("the later time of emission counts", () => {
    const log = new RegistrationLog();
    const verdicts = fold(log, here("new", { at: 5, partition: 1 }), here("old", { at: 4, partition: 0 }));
    expect(verdicts).toEqual([put("new"), older]);
  });

  it("equal times are told apart by topic, then partition, in whatever order they come", () => {
    const events = [here("u0", { topic: "u" }), here("t1", { partition: 1 }), here("t0")];
    for (const order of [events, events.toReversed()]) {
      const log = new RegistrationLog();
      fold(log, ...order);
      expect(log.current("a")).toEqual(stated("u0"));
    }
    const log = new RegistrationLog();
    fold(log, ...events.slice(1));
    expect(log.current("a")).toEqual(stated("t1"));
  });

  it("a partition whose last word is older gives way to another that had lost", () => {
    const log = new RegistrationLog();
    const verdicts = fold(
      log,
      here("first", { at: 10, partition: 0 }),
      here("other", { at: 7, partition: 1 }),
      here("second", { at: 5, partition: 0 }),
    );
    expect(verdicts).toEqual([put("first"), older, put("other")]);
  });

  it("the same event is no later for coming later", () => {
    const log = new RegistrationLog();
    const verdicts = fold(
      log,
      here("one", { id: "x", at: 1, partition: 0 }),
      gone({ at: 2, partition: 0 }),
      here("one", { id: "x", at: 3, partition: 1 }),
    );
    expect(verdicts).toEqual([put("one"), removed(true), older]);
  });
});

describe("a service that is gone", () => {
  it("is not brought back by an older event that comes late", () => {
    const log = new RegistrationLog();
    expect(fold(log, gone({ at: 5 }), here("old", { at: 4, partition: 1 }))).toEqual([removed(true), older]);
  });

  it("comes back by a newer one", () => {
    const log = new RegistrationLog();
    expect(fold(log, gone({ at: 5 }), here("new", { at: 6, partition: 1 }))[1]).toEqual(put("new"));
  });

  it("is remembered for 24 hours", () => {
    const clock = new ManualClock();
    const log = new RegistrationLog({ clock });
    fold(log, here("oldest", { at: 3, partition: 2 }), gone({ at: 5 }));
    clock.advance(daySeconds - 1);
    expect(fold(log, here("old", { at: 4, partition: 1 }))).toEqual([older]);
    clock.advance(1);
    expect(fold(log, here("late", { at: 4, partition: 1, service: "b" }))).toEqual([
      { kind: "put", instance: stated("late", "b") },
    ]);
    // What was older than the tombstone went with it.
    expect(log.current("a")).toBeUndefined();
    expect(fold(log, here("late", { at: 4, partition: 1 }))).toEqual([put("late")]);
  });

  it("that came back is not gone a day later", () => {
    const clock = new ManualClock();
    const log = new RegistrationLog({ clock });
    fold(log, gone({ at: 5 }), here("back", { at: 6 }), gone({ at: 3, partition: 1 }));
    clock.advance(daySeconds + 1);
    fold(log, here("other", { service: "b" }));
    expect(log.current("a")).toEqual(stated("back"));
  });

  it("suppresses what Consul says only where it went while we looked on", () => {
    const log = new RegistrationLog();
    expect(log.accept(gone(), true)).toEqual(removed(false));
    expect(log.accept(gone(), false)).toEqual(removed(true));
    expect(log.accept(empty({ service: "b" }), false)).toEqual(removed(true));
  });

  it("is not declared gone again by the null value behind its deregistration", () => {
    const log = new RegistrationLog();
    expect(fold(log, here("one"), gone(), empty(), empty())).toEqual([
      put("one"),
      removed(true),
      removed(false),
      removed(false),
    ]);
    expect(fold(log, here("two"), empty())).toEqual([put("two"), removed(true)]);
  });

  it("is declared gone by a null value where only history had said so", () => {
    const log = new RegistrationLog();
    log.accept(gone(), true);
    expect(log.accept(empty(), false)).toEqual(removed(true));
  });
});

it("remembers so many event ids, the latest used", () => {
  const log = new RegistrationLog({ maxEventIds: 2 });
  fold(log, here("1", { id: "x" }), here("2", { id: "y" }), here("1", { id: "x" }), here("3", { id: "z" }));
  expect(fold(log, here("1", { id: "x" }))).toEqual([duplicate]);
  expect(fold(log, here("2", { id: "y" }))).toEqual([put("2")]);
});

interface Record {
  readonly service: string;
  readonly id: number | undefined;
  readonly at: number;
  readonly isGone: boolean;
}

const record = (id: fc.Arbitrary<number | undefined>): fc.Arbitrary<Record> =>
  fc.record({ service: fc.constantFrom(...services), id, at: fc.nat(5), isGone: fc.boolean() });

const partitions = (id: fc.Arbitrary<number | undefined>): fc.Arbitrary<Record[][]> =>
  fc.array(fc.array(record(id), { maxLength: 8 }), { minLength: 1, maxLength: 4 });

/** Which partition is read next, and how many messages it is read back first. */
const reading = fc.array(fc.tuple(fc.nat(3), fc.constantFrom(0, 0, 0, 1, 3)), { maxLength: 40 });

function toEvent({ service, id, at, isGone }: Record, partition: number, offset: number): RegistrationEvent {
  const given = { service, at, offset, partition: partition % 2, topic: partition < 2 ? "t" : "u" };
  const whole = { ...given, ...(id !== undefined && { id: `e${id}` }) };
  return isGone ? gone(whole) : here(`${partition}/${offset}`, whole);
}

/** Reads all partitions to their ends: first as `steps` say, then one after the other. */
function readAll(
  log: RegistrationLog,
  logs: readonly (readonly Record[])[],
  steps: readonly [number, number][],
): void {
  const next = logs.map(() => 0);
  const step = (partition: number): boolean => {
    const offset = next[partition] ?? 0;
    const record = logs[partition]?.[offset];
    if (record === undefined) return false;
    log.accept(toEvent(record, partition, offset), false);
    next[partition] = offset + 1;
    return true;
  };
  for (const [wish, back] of steps) {
    const partition = wish % logs.length;
    next[partition] = Math.max(0, (next[partition] ?? 0) - back);
    step(partition);
  }
  for (const partition of logs.keys()) while (step(partition));
}

/** The same by looking at all that there is at once. */
function expected(logs: readonly (readonly Record[])[], service: string): Instance | undefined {
  const times = new Map<string, number>();
  const last = logs.map((records, partition) => {
    const seen = new Set<string>();
    const events = records
      .map((one, offset) => toEvent(one, partition, offset))
      .filter((event) => {
        if (event.serviceId !== service || seen.has(event.eventId)) return false;
        seen.add(event.eventId);
        times.set(event.eventId, Math.min(event.emittedAt, times.get(event.eventId) ?? Infinity));
        return true;
      });
    return events.at(-1);
  });
  const timeOf = (event: RegistrationEvent): number => times.get(event.eventId) ?? 0;
  const ranked = last.filter((event) => event !== undefined);
  // Partitions are in the order of topic and partition: of equal times the last one wins.
  return ranked.reduce<RegistrationEvent | undefined>(
    (best, event) => (best === undefined || timeOf(event) >= timeOf(best) ? event : best),
    undefined,
  )?.instance;
}

describe("the result depends on what is on the topics alone", () => {
  it("however partitions interleave, with duplicates and what is read twice", () => {
    const id = fc.option(fc.nat(6), { nil: undefined });
    fc.assert(
      fc.property(partitions(id), reading, (logs, steps) => {
        const log = new RegistrationLog();
        readAll(log, logs, steps);
        for (const service of services) expect(log.current(service)).toEqual(expected(logs, service));
      }),
      { numRuns: 2000 },
    );
  });

  it("also where no event id is remembered, as long as each is used once", () => {
    fc.assert(
      fc.property(partitions(fc.constant(undefined)), reading, (logs, steps) => {
        const log = new RegistrationLog({ maxEventIds: 0 });
        readAll(log, logs, steps);
        for (const service of services) expect(log.current(service)).toEqual(expected(logs, service));
      }),
      { numRuns: 1000 },
    );
  });
});
