import fc from "fast-check";
import { expect, it } from "vitest";
import { CircuitBreaker, type Permit } from "../../src/resilience/circuit-breaker.ts";
import { ManualClock } from "./clock.ts";

interface Limits {
  readonly failureThreshold: number;
  readonly resetSeconds: number;
  readonly halfOpenRequests: number;
  readonly successThreshold: number;
}

type Step =
  | { readonly do: "admit" }
  | { readonly do: "settle"; readonly which: number; readonly as: "success" | "failure" | "release" }
  | { readonly do: "wait"; readonly seconds: number }
  | { readonly do: "recover" }
  | { readonly do: "reset" };

/**
 * The rules told another way: it remembers, for the present period (from one change of mode to the next), which attempts
 * were let in and what came of them, and works out everything from that.
 */
class Model {
  readonly #limits: Limits;
  #mode: "closed" | "open" | "half-open" = "closed";
  #openedAt = 0;
  #letIn = new Set<number>();
  #outcomes: ("success" | "failure")[] = [];

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  #enter(mode: "closed" | "open" | "half-open"): void {
    this.#mode = mode;
    this.#letIn = new Set();
    this.#outcomes = [];
  }

  /** Called before anything else happens at `seconds`. */
  tick(seconds: number): void {
    if (this.#mode === "open" && seconds - this.#openedAt >= this.#limits.resetSeconds)
      this.#enter("half-open");
  }

  admit(attempt: number): boolean {
    if (this.#mode === "open") return false;
    if (this.#mode === "half-open" && this.#letIn.size >= this.#limits.halfOpenRequests) return false;
    this.#letIn.add(attempt);
    return true;
  }

  settle(attempt: number, as: "success" | "failure" | "release", seconds: number): void {
    if (!this.#letIn.delete(attempt) || as === "release") return;
    this.#outcomes.push(as);
    const limit = this.#mode === "closed" ? this.#limits.failureThreshold : 1;
    if (this.#failures() >= limit) {
      this.#enter("open");
      this.#openedAt = seconds;
    } else if (this.#mode === "half-open" && this.#successes() >= this.#limits.successThreshold) {
      this.#enter("closed");
    }
  }

  recover(): void {
    if (this.#mode === "open") this.#enter("half-open");
  }

  reset(): void {
    this.#enter("closed");
  }

  #failures(): number {
    return this.#outcomes.length - 1 - this.#outcomes.lastIndexOf("success");
  }

  #successes(): number {
    return this.#outcomes.filter((outcome) => outcome === "success").length;
  }

  view(): Record<string, unknown> {
    switch (this.#mode) {
      case "closed":
        return { kind: "closed", failures: this.#failures() };
      case "open":
        return { kind: "open", until: this.#openedAt + this.#limits.resetSeconds };
      case "half-open":
        return { kind: "half-open", trials: this.#letIn.size, successes: this.#successes() };
    }
  }
}

const limits = fc.record<Limits>({
  failureThreshold: fc.integer({ min: 1, max: 4 }),
  resetSeconds: fc.integer({ min: 1, max: 5 }),
  halfOpenRequests: fc.integer({ min: 1, max: 3 }),
  successThreshold: fc.integer({ min: 1, max: 3 }),
});

const admit: fc.Arbitrary<Step> = fc.constant({ do: "admit" });
const settle: fc.Arbitrary<Step> = fc.record({
  do: fc.constant("settle"),
  which: fc.nat(),
  as: fc.constantFrom("success", "failure", "failure", "release"),
});
const wait: fc.Arbitrary<Step> = fc.record({
  do: fc.constant("wait"),
  seconds: fc.integer({ min: 1, max: 3 }),
});
const recover: fc.Arbitrary<Step> = fc.constant({ do: "recover" });
const reset: fc.Arbitrary<Step> = fc.constant({ do: "reset" });
const step = fc.oneof(
  { weight: 6, arbitrary: admit },
  { weight: 8, arbitrary: settle },
  { weight: 3, arbitrary: wait },
  { weight: 1, arbitrary: recover },
  { weight: 1, arbitrary: reset },
);

it("behaves as its model under any sequence of attempts, results in any order, waits and resets", () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(limits, fc.array(step, { maxLength: 80 }), (given, steps) => {
      const clock = new ManualClock();
      const start = clock.now();
      const seconds = (): number => (clock.now() - start) / 1000;
      const breaker = new CircuitBreaker("billing", given, clock);
      const model = new Model(given);
      // Settled permits stay in: settling one again must change nothing.
      const permits: Permit[] = [];

      for (const next of steps) {
        if (next.do === "wait") clock.advance(next.seconds);
        model.tick(seconds());
        if (next.do === "admit") {
          let permit: Permit | undefined;
          try {
            permit = breaker.admit();
          } catch {
            permit = undefined;
          }
          expect(permit !== undefined).toBe(model.admit(permits.length));
          if (permit !== undefined) permits.push(permit);
        } else if (next.do === "settle" && permits.length > 0) {
          const which = next.which % permits.length;
          permits[which]![next.as]();
          model.settle(which, next.as, seconds());
        } else if (next.do === "recover") {
          breaker.halfOpen();
          model.recover();
        } else if (next.do === "reset") {
          breaker.reset();
          model.reset();
        }
        const { epoch: _epoch, ...state } = breaker.state;
        const inSeconds = state.kind === "open" ? { ...state, until: (state.until - start) / 1000 } : state;
        expect(inSeconds).toEqual(model.view());
        seen.add(state.kind);
      }
    }),
    { numRuns: 2000 },
  );
  expect([...seen].sort()).toEqual(["closed", "half-open", "open"]);
});
