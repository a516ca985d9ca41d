/**
 * The decisions of a circuit breaker, pure: its states, what each event makes of them, its options. Owns: when a target
 * is cut off, tried again and trusted again. Does not own: the state itself, the clock (`circuit-breaker.ts`).
 *
 * Invariants, cited below as (n):
 * 1. `transition` alone decides.
 * 2. Every change of kind, and every reset, starts a new epoch. A result counts only in the epoch that admitted its
 *    attempt, so the late result of an attempt begun in an earlier state changes nothing.
 * 3. In half-open at most `halfOpenRequests` trials run at a time; one more is refused at once and never waits.
 * 4. A released attempt says nothing about the target and frees its trial.
 */
import { inspect } from "node:util";
import { ProtocolConfigurationError } from "../core/errors.ts";

export interface BreakerOptions {
  /** Consecutive failures that open the breaker, 1..10000. Default 5. */
  readonly failureThreshold?: number;
  /** Seconds from opening to the first trial, 0.001..86400. Default 60. */
  readonly resetSeconds?: number;
  /** Trials that may run at the same time in half-open, 1..10000. Default 3. */
  readonly halfOpenRequests?: number;
  /** Successful trials that close the breaker, 1..10000. Default 2. */
  readonly successThreshold?: number;
}

export type ResolvedBreakerOptions = Readonly<Required<BreakerOptions>>;

/** A frozen snapshot. `epoch` grows by one with every change of kind and every reset. */
export type BreakerState =
  | {
      readonly kind: "closed";
      readonly epoch: number;
      /** Consecutive. */
      readonly failures: number;
    }
  | {
      readonly kind: "open";
      readonly epoch: number;
      /** In milliseconds of the breaker's clock. */
      readonly until: number;
    }
  | {
      readonly kind: "half-open";
      readonly epoch: number;
      /** Running now. */
      readonly trials: number;
      readonly successes: number;
    };

export type BreakerEvent =
  | { readonly kind: "admit" }
  /** How an attempt ended that was admitted in `epoch`. */
  | { readonly kind: "success" | "failure" | "release"; readonly epoch: number }
  /** The target is said to be back: an open breaker waits no longer. */
  | { readonly kind: "recover" }
  | { readonly kind: "reset" };

const closed = (epoch: number, failures: number): BreakerState =>
  Object.freeze({ kind: "closed", epoch, failures });
const open = (epoch: number, until: number): BreakerState => Object.freeze({ kind: "open", epoch, until });
const halfOpen = (epoch: number, trials: number, successes: number): BreakerState =>
  Object.freeze({ kind: "half-open", epoch, trials, successes });

export const initialState = closed(0, 0);

/** What an open state has become by `now`; the other kinds do not change with time alone. */
export function elapse(state: BreakerState, now: number): BreakerState {
  return state.kind === "open" && now >= state.until ? halfOpen(state.epoch + 1, 0, 0) : state;
}

/**
 * The state after `event`, or undefined where the event is refused: an attempt that may not start, a late result. (1)
 *
 * @param now milliseconds of a monotonic clock
 */
export function transition(
  before: BreakerState,
  event: BreakerEvent,
  now: number,
  options: ResolvedBreakerOptions,
): BreakerState | undefined {
  const state = elapse(before, now);
  if (event.kind === "reset") return closed(state.epoch + 1, 0);
  if (event.kind === "recover") return state.kind === "open" ? halfOpen(state.epoch + 1, 0, 0) : undefined;
  if (event.kind !== "admit" && event.epoch !== state.epoch) return undefined; // (2)
  const opened = (): BreakerState => open(state.epoch + 1, now + options.resetSeconds * 1000);
  switch (state.kind) {
    case "open":
      return undefined;
    case "closed":
      switch (event.kind) {
        case "admit":
        case "release":
          return state;
        case "success":
          return state.failures === 0 ? state : closed(state.epoch, 0);
        case "failure":
          return state.failures + 1 >= options.failureThreshold
            ? opened()
            : closed(state.epoch, state.failures + 1);
      }
      break;
    case "half-open":
      switch (event.kind) {
        case "admit":
          return state.trials >= options.halfOpenRequests // (3)
            ? undefined
            : halfOpen(state.epoch, state.trials + 1, state.successes);
        case "release":
          return halfOpen(state.epoch, state.trials - 1, state.successes); // (4)
        case "success":
          return state.successes + 1 >= options.successThreshold
            ? closed(state.epoch + 1, 0)
            : halfOpen(state.epoch, state.trials - 1, state.successes + 1);
        case "failure":
          return opened();
      }
  }
}

/**
 * The options, complete and frozen.
 *
 * @throws ProtocolConfigurationError naming the option, its range and the bad value
 */
export function resolveBreakerOptions(options: BreakerOptions = {}): ResolvedBreakerOptions {
  const resolved = {
    failureThreshold: options.failureThreshold ?? 5,
    resetSeconds: options.resetSeconds ?? 60,
    halfOpenRequests: options.halfOpenRequests ?? 3,
    successThreshold: options.successThreshold ?? 2,
  };
  for (const name of ["failureThreshold", "halfOpenRequests", "successThreshold"] as const) {
    const value = resolved[name];
    if (!Number.isInteger(value) || value < 1 || value > 10_000)
      throw outOfRange(name, "an integer from 1 to 10000", value);
  }
  const seconds = resolved.resetSeconds;
  if (!Number.isFinite(seconds) || seconds < 0.001 || seconds > 86_400)
    throw outOfRange("resetSeconds", "a number of seconds from 0.001 to 86400", seconds);
  return Object.freeze(resolved);
}

function outOfRange(name: string, range: string, value: unknown): ProtocolConfigurationError {
  return new ProtocolConfigurationError(
    `circuit breaker option ${name} must be ${range}, got ${inspect(value)}`,
  );
}
