import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ProtocolConfigurationError } from "../../src/core/errors.ts";
import {
  decideRetry,
  resolveRetryOptions,
  RetryBudget,
  type FailedAttempt,
} from "../../src/resilience/retry.ts";

const options = resolveRetryOptions();
/** Waits of the very length that is meant: no jitter. */
const even = (): number => 0.5;

const failed = (more: Partial<FailedAttempt> = {}): FailedAttempt => ({
  attempt: 1,
  passing: true,
  sent: true,
  repeatable: true,
  another: false,
  retryAfterMs: undefined,
  readyMs: 0,
  leftMs: 30_000,
  ...more,
});
const decide = (more: Partial<FailedAttempt>) => decideRetry(failed(more), options, even);
const after = (afterMs: number) => ({ kind: "retry", afterMs, costs: true });

describe("a failed attempt", () => {
  test.each<[string, Partial<FailedAttempt>, object]>([
    ["that may be repeated is, after half a second", {}, after(500)],
    ["for the second time waits twice as long", { attempt: 2 }, after(1000)],
    ["for the third time waits four times as long", { attempt: 3 }, after(2000)],
    ["for the fourth time is the last", { attempt: 4 }, { kind: "stop", reason: "attempts" }],
    [
      "is not repeated where it may have been executed and must not be twice",
      { repeatable: false },
      { kind: "stop", reason: "unsafe" },
    ],
    ["is repeated where nothing was sent, whatever the tool", { repeatable: false, sent: false }, after(500)],
    [
      "goes to another target at once where nothing was sent, at no cost",
      { repeatable: false, sent: false, another: true },
      { kind: "retry", afterMs: 0, costs: false },
    ],
    ["that was sent waits, also where another target is there", { another: true }, after(500)],
    ["that will fail again is not repeated", { passing: false }, { kind: "stop", reason: "final" }],
    [
      "that is its target's own fault goes to another one",
      { passing: false, sent: false, another: true },
      { kind: "retry", afterMs: 0, costs: false },
    ],
    [
      "is not sent to another target beyond the last attempt",
      { attempt: 4, sent: false, another: true },
      { kind: "stop", reason: "attempts" },
    ],
    ["waits as long as it is asked to", { retryAfterMs: 7000 }, after(7000)],
    ["waits as briefly as it is asked to, but not less than 100 ms", { retryAfterMs: 0 }, after(100)],
    ["waits until some target takes it", { readyMs: 3000 }, after(3000)],
    [
      "is given up where the wait outlasts the deadline",
      { leftMs: 500 },
      { kind: "stop", reason: "deadline" },
    ],
    [
      "is given up at once where it is asked to wait longer than the deadline",
      { retryAfterMs: 60_000 },
      { kind: "stop", reason: "deadline" },
    ],
    [
      "is given up at once where no target takes it before the deadline",
      { readyMs: Infinity },
      { kind: "stop", reason: "deadline" },
    ],
  ])("%s", (_title, more, decision) => {
    expect(decide(more)).toEqual(decision);
  });

  test("waits 375 to 12,500 ms of its own, and whatever is known, never past the deadline or less than 100 ms", () => {
    fc.assert(
      fc.property(
        fc.record({
          attempt: fc.integer({ min: 1, max: 5 }),
          passing: fc.boolean(),
          sent: fc.boolean(),
          repeatable: fc.boolean(),
          another: fc.boolean(),
          retryAfterMs: fc.option(fc.nat(60_000), { nil: undefined }),
          readyMs: fc.nat(60_000),
          leftMs: fc.nat(60_000),
        }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (attempt, chance) => {
          const decision = decideRetry(attempt, options, () => chance);
          if (decision.kind === "stop") return;
          expect(attempt.attempt).toBeLessThan(4);
          expect(attempt.sent && !attempt.repeatable).toBe(false);
          if (!decision.costs) {
            expect([decision.afterMs, attempt.sent, attempt.another]).toEqual([0, false, true]);
            return;
          }
          expect(decision.afterMs).toBeGreaterThanOrEqual(100);
          expect(decision.afterMs).toBeLessThan(attempt.leftMs);
          expect(decision.afterMs).toBeGreaterThanOrEqual(attempt.readyMs);
          expect(decision.afterMs).toBeGreaterThanOrEqual(attempt.retryAfterMs ?? 375);
          expect(decision.afterMs).toBeLessThanOrEqual(
            Math.max(attempt.retryAfterMs ?? 12_500, attempt.readyMs, 100),
          );
        },
      ),
    );
  });

  test("has as many attempts as the options say, with the waits that they say", () => {
    const own = resolveRetryOptions({ retries: 1, firstMs: 10, maxMs: 10, floorMs: 0 });
    expect(decideRetry(failed(), own, even)).toEqual(after(10));
    expect(decideRetry(failed({ attempt: 2 }), own, even)).toEqual({ kind: "stop", reason: "attempts" });
  });

  test.each([
    [{ retries: 1.5 }, "retry option retries must be an integer from 0 to 10, got 1.5"],
    [{ retries: 11 }, "retry option retries must be an integer from 0 to 10, got 11"],
    [{ firstMs: -1 }, "retry option firstMs must be milliseconds from 0 to 600000, got -1"],
    [{ maxMs: Infinity }, "retry option maxMs must be milliseconds from 0 to 600000, got Infinity"],
    [{ floorMs: NaN }, "retry option floorMs must be milliseconds from 0 to 600000, got NaN"],
  ])("options %j are refused", (bad, message) => {
    expect(() => resolveRetryOptions(bad)).toThrow(new ProtocolConfigurationError(message));
  });
});

describe("the retry budget", () => {
  const withdrawn = (budget: RetryBudget, times: number): number => {
    let count = 0;
    for (let n = 0; n < times; n++) if (budget.withdraw()) count++;
    return count;
  };

  test("has five at first, for a tool that is seldom called", () => {
    expect(withdrawn(new RetryBudget(), 20)).toBe(5);
  });

  test("grows by one with every fifth call", () => {
    const budget = new RetryBudget();
    withdrawn(budget, 5);
    for (let call = 1; call <= 100; call++) {
      budget.deposit();
      expect(budget.withdraw()).toBe(call % 5 === 0);
    }
  });

  test("saves up no more than 128", () => {
    const budget = new RetryBudget();
    for (let call = 0; call < 10_000; call++) budget.deposit();
    expect(withdrawn(budget, 1000)).toBe(128);
  });

  test("allows a fifth of the calls and five more at the most, however they come", () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 2000 }), (steps) => {
        const budget = new RetryBudget();
        let calls = 0;
        let retries = 0;
        for (const isCall of steps) {
          if (isCall) {
            budget.deposit();
            calls++;
          } else if (budget.withdraw()) retries++;
          expect(retries).toBeLessThanOrEqual(calls * 0.2 + 5 + 1e-6);
        }
      }),
    );
  });
});
