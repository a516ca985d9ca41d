/**
 * The circuit breaker, and the mixin that gives a class named ones. Owns: the state of a breaker, the permits of its
 * attempts, which thrown error counts. Does not own: the decisions (`breaker-state.ts`), retries, the choice of a target.
 *
 * Invariants, cited below as (n):
 * 1. `#apply` alone writes the state, and writes only what `transition` decided.
 * 2. A permit settles at most once.
 */
import { monotonicClock, type Clock } from "../core/clock.ts";
import { InfraUnavailableError, OnexError } from "../core/errors.ts";
import {
  elapse,
  initialState,
  resolveBreakerOptions,
  transition,
  type BreakerEvent,
  type BreakerOptions,
  type BreakerState,
  type ResolvedBreakerOptions,
} from "./breaker-state.ts";

export type { BreakerOptions, BreakerState } from "./breaker-state.ts";

/** Leave for one attempt. Whoever holds it settles it, once, however the attempt ends: until then it holds a trial. */
export interface Permit {
  /** The target answered. */
  success(): void;
  /** The target failed: no connection, no answer in time, a 5xx. */
  failure(): void;
  /** Neither, so nothing is learnt about the target: cancelled by the caller, refused before it was sent. */
  release(): void;
}

const admission: BreakerEvent = { kind: "admit" };

/** One breaker for one target. */
export class CircuitBreaker {
  readonly #name: string;
  readonly #options: ResolvedBreakerOptions;
  readonly #clock: Clock;
  #state: BreakerState = initialState;

  /**
   * @param name what is protected; named in errors
   * @throws ProtocolConfigurationError where an option is out of its range
   */
  constructor(name: string, options: BreakerOptions = {}, clock: Clock = monotonicClock) {
    this.#name = name;
    this.#options = resolveBreakerOptions(options);
    this.#clock = clock;
  }

  /** The state at this moment: an open breaker whose time is over reads as half-open. */
  get state(): BreakerState {
    return elapse(this.#state, this.#clock.now());
  }

  /** Whether `admit` would give leave now. */
  get admits(): boolean {
    return transition(this.#state, admission, this.#clock.now(), this.#options) !== undefined;
  }

  /**
   * Leave to try the target once.
   *
   * @throws InfraUnavailableError (retryable) while the breaker is open, or half-open with all trials running; its facts
   *   are `target`, `retry_after_seconds` and `circuit_state`
   */
  admit(): Permit {
    if (!this.#apply(admission)) throw this.#refusal();
    const { epoch } = this.#state;
    let settled = false;
    const settle = (kind: "success" | "failure" | "release"): void => {
      if (settled) return; // (2)
      settled = true;
      this.#apply({ kind, epoch });
    };
    return {
      success: () => settle("success"),
      failure: () => settle("failure"),
      release: () => settle("release"),
    };
  }

  /** Ends the wait of an open breaker, for who has heard that the target is back; trials decide. Else without effect. */
  halfOpen(): void {
    this.#apply({ kind: "recover" });
  }

  /** Closes the breaker; attempts still running count for nothing. */
  reset(): void {
    this.#apply({ kind: "reset" });
  }

  /** False where the event is refused. (1) */
  #apply(event: BreakerEvent): boolean {
    const next = transition(this.#state, event, this.#clock.now(), this.#options);
    if (next === undefined) return false;
    this.#state = next;
    return true;
  }

  #refusal(): InfraUnavailableError {
    const state = this.#state;
    // Whole seconds, as Retry-After has them. A running trial may end at any moment: the least there is.
    const seconds =
      state.kind === "open" ? Math.max(1, Math.ceil((state.until - this.#clock.now()) / 1000)) : 1;
    const why = state.kind === "open" ? "is open" : "is half-open and all its trial calls are in use";
    return new InfraUnavailableError(
      `${this.#name} is not available: its circuit breaker ${why}; retry after ${seconds} s`,
      {
        retryable: true,
        facts: { target: this.#name, retry_after_seconds: seconds, circuit_state: state.kind },
      },
    );
  }
}

/** What `withCircuitBreaker` adds to a class. Every object has breakers of its own. */
export interface CircuitBreaking {
  /**
   * Runs `work` behind the breaker called `name`, which is made on first use. A resolved `work` is a success; an
   * `OnexError` counts where its `countsForBreaker` says so; an `AbortError` never counts; any other error does. Give
   * `work` a deadline: one that never settles holds its trial for good.
   *
   * @throws InfraUnavailableError at once, without calling `work`, where the breaker rejects; else what `work` throws
   */
  withCircuit<T>(name: string, work: () => Promise<T>): Promise<T>;
  /** Undefined where no breaker has this name. */
  circuitState(name: string): BreakerState | undefined;
  /** False where a call of the target would be rejected at once: its breaker is open, or all its trials are in use. */
  circuitAdmits(name: string): boolean;
  /** A copy, by name. */
  circuitStates(): ReadonlyMap<string, BreakerState>;
  /** Closes the breaker. True if it existed. */
  resetCircuit(name: string): boolean;
  /** Forgets the breaker, for a target that is gone. True if it existed. */
  removeCircuit(name: string): boolean;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- TypeScript accepts a mixin's base only with any[]
export type Constructor<T = object> = new (...args: any[]) => T;

export interface CircuitBreakingOptions {
  /** Of every breaker of the class. */
  readonly breaker?: BreakerOptions;
  readonly clock?: Clock;
}

/**
 * `Base` with named circuit breakers: `class Backend extends withCircuitBreaker(Base)`.
 *
 * @throws ProtocolConfigurationError where a breaker option is out of its range
 */
export function withCircuitBreaker<B extends Constructor>(
  Base: B,
  options: CircuitBreakingOptions = {},
): B & Constructor<CircuitBreaking> {
  const breakerOptions = resolveBreakerOptions(options.breaker);
  const clock = options.clock ?? monotonicClock;

  return class extends Base implements CircuitBreaking {
    readonly #breakers = new Map<string, CircuitBreaker>();

    async withCircuit<T>(name: string, work: () => Promise<T>): Promise<T> {
      let breaker = this.#breakers.get(name);
      if (breaker === undefined) {
        breaker = new CircuitBreaker(name, breakerOptions, clock);
        this.#breakers.set(name, breaker);
      }
      const permit = breaker.admit();
      try {
        const result = await work();
        permit.success();
        return result;
      } catch (thrown) {
        if (countsAsFailure(thrown)) permit.failure();
        else permit.release();
        throw thrown;
      }
    }

    circuitState(name: string): BreakerState | undefined {
      return this.#breakers.get(name)?.state;
    }

    circuitAdmits(name: string): boolean {
      return this.#breakers.get(name)?.admits ?? true;
    }

    circuitStates(): ReadonlyMap<string, BreakerState> {
      return new Map([...this.#breakers].map(([name, breaker]) => [name, breaker.state]));
    }

    resetCircuit(name: string): boolean {
      const breaker = this.#breakers.get(name);
      breaker?.reset();
      return breaker !== undefined;
    }

    removeCircuit(name: string): boolean {
      return this.#breakers.delete(name);
    }
  };
}

/** Whether what an attempt threw speaks against its target. */
export function countsAsFailure(thrown: unknown): boolean {
  if (thrown instanceof OnexError) return thrown.countsForBreaker;
  return !(thrown instanceof Error && thrown.name === "AbortError");
}
