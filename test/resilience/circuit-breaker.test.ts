import { describe, expect, it } from "vitest";
import { InfraUnavailableError, ProtocolConfigurationError } from "../../src/core/errors.ts";
import { CircuitBreaker, type BreakerOptions } from "../../src/resilience/circuit-breaker.ts";
import { ManualClock } from "./clock.ts";

const options = { failureThreshold: 3, resetSeconds: 10, halfOpenRequests: 2, successThreshold: 2 };

function closedBreaker(overrides: BreakerOptions = {}) {
  const clock = new ManualClock();
  return { clock, breaker: new CircuitBreaker("billing", { ...options, ...overrides }, clock) };
}

function openBreaker(overrides: BreakerOptions = {}) {
  const parts = closedBreaker(overrides);
  for (let failures = 0; failures < (overrides.failureThreshold ?? 3); failures += 1)
    parts.breaker.admit().failure();
  expect(parts.breaker.state.kind).toBe("open");
  return parts;
}

function halfOpenBreaker(overrides: BreakerOptions = {}) {
  const parts = openBreaker(overrides);
  parts.clock.advance(overrides.resetSeconds ?? 10);
  expect(parts.breaker.state.kind).toBe("half-open");
  return parts;
}

function refusalOf(breaker: CircuitBreaker): InfraUnavailableError {
  try {
    breaker.admit();
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(InfraUnavailableError);
    return thrown as InfraUnavailableError;
  }
  throw new Error("the attempt was admitted");
}

describe("a closed breaker", () => {
  it("admits any number of attempts at once", () => {
    const { breaker } = closedBreaker();
    for (let attempt = 0; attempt < 1000; attempt += 1) breaker.admit();
    expect(breaker.state).toMatchObject({ kind: "closed", failures: 0 });
  });

  it("opens at the threshold of consecutive failures and not before", () => {
    const { breaker, clock } = closedBreaker();
    breaker.admit().failure();
    breaker.admit().failure();
    expect(breaker.state).toMatchObject({ kind: "closed", failures: 2 });
    breaker.admit().failure();
    expect(breaker.state).toMatchObject({ kind: "open", until: clock.now() + 10_000 });
  });

  it("begins to count anew after a success", () => {
    const { breaker } = closedBreaker();
    breaker.admit().failure();
    breaker.admit().failure();
    breaker.admit().success();
    breaker.admit().failure();
    breaker.admit().failure();
    expect(breaker.state).toMatchObject({ kind: "closed", failures: 2 });
  });

  it("learns nothing from a released attempt: the count of failures stays", () => {
    const { breaker } = closedBreaker();
    breaker.admit().failure();
    breaker.admit().failure();
    breaker.admit().release();
    expect(breaker.state).toMatchObject({ kind: "closed", failures: 2 });
    breaker.admit().failure();
    expect(breaker.state.kind).toBe("open");
  });

  it("has 5 failures, 60 seconds, 3 trials and 2 successes as its defaults", () => {
    const clock = new ManualClock();
    const breaker = new CircuitBreaker("billing", undefined, clock);
    for (let failures = 0; failures < 4; failures += 1) breaker.admit().failure();
    expect(breaker.state.kind).toBe("closed");
    breaker.admit().failure();
    expect(breaker.state).toMatchObject({ kind: "open", until: clock.now() + 60_000 });
    clock.advance(60);
    const trials = [breaker.admit(), breaker.admit(), breaker.admit()];
    expect(() => breaker.admit()).toThrow(InfraUnavailableError);
    trials[0]!.success();
    expect(breaker.state.kind).toBe("half-open");
    trials[1]!.success();
    expect(breaker.state.kind).toBe("closed");
  });
});

describe("an open breaker", () => {
  it("rejects at once, and says which target, for how long and that a retry makes sense", () => {
    const { breaker, clock } = openBreaker();
    clock.advance(3.5);
    const refusal = refusalOf(breaker);
    expect(refusal.retryable).toBe(true);
    expect(refusal.countsForBreaker).toBe(false);
    expect(refusal.facts).toEqual({ target: "billing", retry_after_seconds: 7, circuit_state: "open" });
    expect(refusal.message).toBe("billing is not available: its circuit breaker is open; retry after 7 s");
  });

  it("rejects until the last millisecond of its time, and then becomes half-open", () => {
    const { breaker, clock } = openBreaker();
    clock.advance(9.999);
    expect(breaker.state.kind).toBe("open");
    expect(refusalOf(breaker).facts.retry_after_seconds).toBe(1);
    clock.advance(0.001);
    expect(breaker.state).toMatchObject({ kind: "half-open", trials: 0, successes: 0 });
    breaker.admit();
    expect(breaker.state).toMatchObject({ kind: "half-open", trials: 1 });
  });

  it("does not open for longer because attempts are rejected", () => {
    const { breaker, clock } = openBreaker();
    const before = breaker.state;
    clock.advance(5);
    refusalOf(breaker);
    expect(breaker.state).toEqual(before);
  });

  it("waits no longer once its target is said to be back, and trials decide", () => {
    const { breaker } = openBreaker();
    breaker.halfOpen();
    expect(breaker.state).toMatchObject({ kind: "half-open", trials: 0, successes: 0 });
    const trials = [breaker.admit(), breaker.admit()];
    // A second word of it changes nothing.
    breaker.halfOpen();
    expect(() => breaker.admit()).toThrow("half-open and all its trial calls are in use");
    for (const trial of trials) trial.success();
    breaker.halfOpen();
    expect(breaker.state.kind).toBe("closed");
  });

  it("is closed by reset", () => {
    const { breaker } = openBreaker();
    breaker.reset();
    expect(breaker.state).toMatchObject({ kind: "closed", failures: 0 });
    breaker.admit().success();
  });
});

describe("a half-open breaker", () => {
  it("runs at most its number of trials at a time and rejects the excess at once", () => {
    const { breaker } = halfOpenBreaker();
    breaker.admit();
    breaker.admit();
    const refusal = refusalOf(breaker);
    expect(refusal.retryable).toBe(true);
    expect(refusal.facts).toEqual({ target: "billing", retry_after_seconds: 1, circuit_state: "half-open" });
    expect(refusal.message).toContain("half-open and all its trial calls are in use; retry after 1 s");
    expect(breaker.state).toMatchObject({ kind: "half-open", trials: 2 });
  });

  it("closes after the threshold of successful trials, even one after the other", () => {
    const { breaker } = halfOpenBreaker();
    breaker.admit().success();
    expect(breaker.state).toMatchObject({ kind: "half-open", trials: 0, successes: 1 });
    breaker.admit().success();
    expect(breaker.state).toMatchObject({ kind: "closed", failures: 0 });
  });

  it("closes although it allows fewer trials at a time than it needs successes", () => {
    const { breaker } = halfOpenBreaker({ halfOpenRequests: 1, successThreshold: 3 });
    for (let trial = 0; trial < 3; trial += 1) breaker.admit().success();
    expect(breaker.state.kind).toBe("closed");
  });

  it("opens again, for its whole time, after one failed trial", () => {
    const { breaker, clock } = halfOpenBreaker();
    breaker.admit().success();
    clock.advance(4);
    breaker.admit().failure();
    expect(breaker.state).toMatchObject({ kind: "open", until: clock.now() + 10_000 });
    expect(() => breaker.admit()).toThrow(InfraUnavailableError);
    clock.advance(10);
    expect(breaker.state).toMatchObject({ kind: "half-open", trials: 0, successes: 0 });
  });

  it("gets the place of a released trial back, and counts it neither way", () => {
    const { breaker } = halfOpenBreaker();
    const trial = breaker.admit();
    breaker.admit();
    refusalOf(breaker);
    trial.release();
    expect(breaker.state).toMatchObject({ kind: "half-open", trials: 1, successes: 0 });
    breaker.admit();
    refusalOf(breaker);
  });
});

describe("a late result", () => {
  it("of an attempt from before the opening changes nothing while the breaker is open", () => {
    const { breaker } = closedBreaker();
    const early = [breaker.admit(), breaker.admit(), breaker.admit()];
    for (let failures = 0; failures < 3; failures += 1) breaker.admit().failure();
    const before = breaker.state;
    early[0]!.success();
    early[1]!.failure();
    early[2]!.release();
    expect(breaker.state).toBe(before);
  });

  it("of an attempt from before the opening is no trial: it neither closes, opens nor frees a place", () => {
    const { breaker, clock } = closedBreaker({ successThreshold: 1 });
    const early = [breaker.admit(), breaker.admit(), breaker.admit()];
    for (let failures = 0; failures < 3; failures += 1) breaker.admit().failure();
    clock.advance(10);
    breaker.admit();
    const before = breaker.state;
    expect(before).toMatchObject({ kind: "half-open", trials: 1, successes: 0 });
    early[0]!.success();
    early[1]!.failure();
    early[2]!.release();
    expect(breaker.state).toBe(before);
  });

  it("of a trial does not count in the closed state that other trials brought about", () => {
    const { breaker } = halfOpenBreaker({ halfOpenRequests: 3, successThreshold: 1, failureThreshold: 1 });
    const [first, second, third] = [breaker.admit(), breaker.admit(), breaker.admit()];
    first.success();
    const before = breaker.state;
    expect(before.kind).toBe("closed");
    second.failure();
    third.success();
    expect(breaker.state).toBe(before);
  });

  it("of a trial does not count in a later half-open state", () => {
    const { breaker, clock } = halfOpenBreaker({ successThreshold: 1 });
    const slow = breaker.admit();
    breaker.admit().failure();
    clock.advance(10);
    breaker.admit();
    const before = breaker.state;
    slow.success();
    expect(breaker.state).toBe(before);
  });

  it("of an attempt from before a reset does not count after it", () => {
    const { breaker } = closedBreaker({ failureThreshold: 1 });
    const early = breaker.admit();
    breaker.reset();
    early.failure();
    expect(breaker.state.kind).toBe("closed");
  });
});

describe("a permit", () => {
  it("settles once: what follows is ignored", () => {
    const { breaker } = closedBreaker();
    const permit = breaker.admit();
    permit.failure();
    permit.failure();
    permit.failure();
    permit.success();
    expect(breaker.state).toMatchObject({ kind: "closed", failures: 1 });
  });

  it("of a trial frees one place only", () => {
    const { breaker } = halfOpenBreaker();
    const trial = breaker.admit();
    breaker.admit();
    trial.release();
    trial.release();
    expect(breaker.state).toMatchObject({ trials: 1 });
  });
});

describe("a state", () => {
  it("is a frozen snapshot that later events leave alone", () => {
    const { breaker, clock } = closedBreaker();
    const seen = [breaker.state];
    for (let failures = 0; failures < 3; failures += 1) breaker.admit().failure();
    seen.push(breaker.state);
    clock.advance(10);
    seen.push(breaker.state);
    breaker.admit();
    expect(seen.map((state) => state.kind)).toEqual(["closed", "open", "half-open"]);
    expect(seen.every((state) => Object.isFrozen(state))).toBe(true);
    expect(seen[2]).toMatchObject({ trials: 0 });
  });
});

describe("an option out of its range", () => {
  it.each([
    ["failureThreshold", 0, "an integer from 1 to 10000, got 0"],
    ["failureThreshold", 10_001, "an integer from 1 to 10000, got 10001"],
    ["failureThreshold", 2.5, "an integer from 1 to 10000, got 2.5"],
    ["halfOpenRequests", -1, "an integer from 1 to 10000, got -1"],
    ["successThreshold", Number.NaN, "an integer from 1 to 10000, got NaN"],
    ["successThreshold", "2", "an integer from 1 to 10000, got '2'"],
    ["resetSeconds", 0, "a number of seconds from 0.001 to 86400, got 0"],
    ["resetSeconds", 86_401, "a number of seconds from 0.001 to 86400, got 86401"],
    ["resetSeconds", Number.NaN, "a number of seconds from 0.001 to 86400, got NaN"],
    ["resetSeconds", "60", "a number of seconds from 0.001 to 86400, got '60'"],
  ])("%s: %s is refused with the range and the value", (name, value, text) => {
    const make = (): unknown => new CircuitBreaker("billing", { [name]: value });
    expect(make).toThrow(ProtocolConfigurationError);
    expect(make).toThrow(`${name} must be ${text}`);
  });
});
