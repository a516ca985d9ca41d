/**
 * Whether a failed attempt is followed by another, and after how long; and how many retries there may be in all. Pure
 * but for chance. Owns: the rules, the budget. Does not own: what failed and whether it may be repeated (the caller
 * knows), waiting, which target is next.
 *
 * 1. What may have reached its target is repeated only where that does no harm.
 * 2. Where nothing was sent and another target takes it now, it goes there at once. That adds no load to anybody, so it
 *    costs nothing of the budget.
 * 3. No wait is begun that the deadline would end.
 */
import { inspect } from "node:util";
import { backoffMs } from "../core/backoff.ts";
import { ProtocolConfigurationError } from "../core/errors.ts";

export interface RetryOptions {
  /** Attempts besides the first, 0..10. Default 3. */
  readonly retries?: number;
  /** Milliseconds before the first retry, about; each further wait is twice as long. Default 500. */
  readonly firstMs?: number;
  /** Milliseconds at which they stop growing. Default 10,000. */
  readonly maxMs?: number;
  /** Milliseconds that every wait lasts at least, whatever the target asks for. Default 100. */
  readonly floorMs?: number;
}

export type ResolvedRetryOptions = Readonly<Required<RetryOptions>>;

/** What is known when an attempt has failed. */
export interface FailedAttempt {
  /** Of the call, from 1. */
  readonly attempt: number;
  /** The failure may pass: it says nothing against the request itself. */
  readonly passing: boolean;
  /** Its target may have seen it. */
  readonly sent: boolean;
  /** It does no harm to run the call twice. */
  readonly repeatable: boolean;
  /** A target that was not tried yet takes it now. */
  readonly another: boolean;
  /** The wait that was asked for, in place of one of our own. */
  readonly retryAfterMs: number | undefined;
  /** Milliseconds until some target takes it; 0: one does now. */
  readonly readyMs: number;
  /** What is left of the deadline. */
  readonly leftMs: number;
}

export type RetryDecision =
  | { readonly kind: "retry"; readonly afterMs: number; readonly costs: boolean }
  | { readonly kind: "stop"; readonly reason: "attempts" | "final" | "unsafe" | "deadline" };

const stop = (reason: "attempts" | "final" | "unsafe" | "deadline"): RetryDecision => ({
  kind: "stop",
  reason,
});

/** @param random in [0, 1). Default Math.random */
export function decideRetry(
  failed: FailedAttempt,
  options: ResolvedRetryOptions,
  random?: () => number,
): RetryDecision {
  if (failed.attempt > options.retries) return stop("attempts");
  if (!failed.sent && failed.another) return { kind: "retry", afterMs: 0, costs: false }; // (2)
  if (!failed.passing) return stop("final");
  if (failed.sent && !failed.repeatable) return stop("unsafe"); // (1)
  const own = failed.retryAfterMs ?? backoffMs(failed.attempt, { ...options, random });
  const afterMs = Math.max(options.floorMs, own, failed.readyMs);
  return afterMs < failed.leftMs ? { kind: "retry", afterMs, costs: true } : stop("deadline"); // (3)
}

/**
 * The options, complete and frozen.
 *
 * @throws ProtocolConfigurationError naming the option, its range and the bad value
 */
export function resolveRetryOptions(options: RetryOptions = {}): ResolvedRetryOptions {
  const resolved = {
    retries: options.retries ?? 3,
    firstMs: options.firstMs ?? 500,
    maxMs: options.maxMs ?? 10_000,
    floorMs: options.floorMs ?? 100,
  };
  for (const [name, value] of Object.entries(resolved)) {
    const [max, what] = name === "retries" ? [10, "an integer"] : [600_000, "milliseconds"];
    if (!Number.isFinite(value) || value < 0 || value > max || (max === 10 && !Number.isInteger(value)))
      throw new ProtocolConfigurationError(
        `retry option ${name} must be ${what} from 0 to ${max}, got ${inspect(value)}`,
      );
  }
  return Object.freeze(resolved);
}

/** What each call adds: retries are a fifth of the calls at most, so a target in trouble gets a fifth more, not four times. */
const sharePerCall = 0.2;
/** What there is at first: a tool that is called once an hour may retry too. */
const reserve = 5;
/** What can be saved up: one crash can break off every call that a tool has under way, 128 unless configured. */
const most = 128;

/** How many retries one tool has left. */
export class RetryBudget {
  #left = reserve;

  /** A call of the tool has come. */
  deposit(): void {
    if (this.#left < most) this.#left = Math.min(most, this.#left + sharePerCall);
  }

  /** False where there is none left. */
  withdraw(): boolean {
    // A fifth has no exact binary form: five of them may be less than one by a hair.
    if (this.#left < 1 - 1e-9) return false;
    this.#left = Math.max(0, this.#left - 1);
    return true;
  }
}
