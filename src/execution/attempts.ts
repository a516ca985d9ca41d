/**
 * The attempts of a call that has failed at least once. Owns: which instance comes next and the wait before it. Does not
 * own: whether there is a next one (`resilience/retry.ts`), what is sent, breakers and pools.
 *
 * 1. Another instance comes first: each is tried once before one is tried again, and those without a recent failure
 *    before the others.
 * 2. A wait that an instance asks for holds for that instance; one that comes with 429 is about the caller and holds for
 *    all of them.
 * 3. The instances are those of the present snapshot, also in the middle of a call: what has gone is not opened again.
 */
import { sleep, type CallSignal } from "../core/abort.ts";
import type { Clock } from "../core/clock.ts";
import { OnexError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { decideRetry, type ResolvedRetryOptions } from "../resilience/retry.ts";
import type { ToolCall, ToolResult } from "../tools/call.ts";
import type { Tool } from "../tools/tool.ts";
import type { Terms } from "./picker.ts";
import type { Route, Target } from "./routes.ts";

/** The instances of tools as they are now. */
export interface Instances {
  /** Undefined where the tool has gone. */
  routeOf(tool: Tool): Route | undefined;
  /** Of a choice among those that take a call now. */
  readonly terms: Terms<Target>;
  /** The one that takes a call first; undefined where there is none at all. */
  soonest(route: Route): Target | undefined;
  /** Milliseconds until it takes a call, as far as is known; 0: it does now. */
  readyMs(target: Target): number;
  /** Its last call did not fail. */
  isWell(target: Target): boolean;
}

export interface RetryParts {
  readonly instances: Instances;
  readonly retry: ResolvedRetryOptions;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Attempts {
  readonly #parts: RetryParts;
  readonly #tool: Tool;
  readonly #call: ToolCall;
  readonly #signal: CallSignal;
  readonly #deadline: number;
  /** By their keys: when each may be tried again, in milliseconds of the clock. */
  readonly #tried = new Map<string, number>();
  /** Attempts that have failed. */
  #count = 0;
  #notRetried: string | undefined;

  /** @param deadline of the call, in milliseconds of the clock */
  constructor(parts: RetryParts, tool: Tool, call: ToolCall, signal: CallSignal, deadline: number) {
    this.#parts = parts;
    this.#tool = tool;
    this.#call = call;
    this.#signal = signal;
    this.#deadline = deadline;
  }

  /**
   * Where the next attempt goes, once it is time for it; undefined where there is none.
   *
   * @param sent the target may have seen the attempt that failed
   */
  async next(failure: OnexError, target: Target, sent: boolean): Promise<Target | undefined> {
    this.#count++;
    // Without a plan it is one of a tool none of whose instances can be called.
    if (this.#signal.aborted || target.plan instanceof OnexError) return undefined;
    const { instances, retry, clock } = this.#parts;
    const now = clock.now();
    this.#tried.delete(target.key); // so that the last one is the last of them
    this.#tried.set(target.key, now + askedMs(failure));
    const route = instances.routeOf(this.#tool); // (3)
    if (route === undefined) return undefined;
    const other = this.#untried(route);
    const readyMs = other === undefined ? this.#readyMs(route, now) : 0;
    const { readOnly, idempotent } = this.#tool.annotations;
    const decision = decideRetry(
      {
        attempt: this.#count,
        passing: failure.retryable,
        sent,
        repeatable: readOnly === true || idempotent === true,
        another: other !== undefined,
        retryAfterMs: retryAfterMs(failure, readyMs),
        readyMs,
        leftMs: this.#deadline - now,
      },
      retry,
      instances.terms.random,
    );
    if (decision.kind === "stop") {
      if (decision.reason === "deadline") this.#notRetried = "the next attempt would come after the deadline";
      return undefined;
    }
    if (decision.costs && !route.budget.withdraw()) {
      this.#notRetried = "the tool's retry budget is used up";
      return undefined;
    }
    this.#report(failure, decision.afterMs);
    if (decision.afterMs === 0) return other;
    return (await this.#wait(decision.afterMs)) ? this.#choose() : undefined;
  }

  /** The call's result, with what is to be known of its attempts. */
  settled(result: ToolResult): ToolResult {
    if (this.#signal.aborted) return result; // nobody reads it, and its failure is the signal's own
    const attempts = result.failure === undefined ? this.#count + 1 : this.#count;
    result.failure?.note({
      attempts,
      ...(this.#notRetried !== undefined && { not_retried: this.#notRetried }),
    });
    return attempts === 1
      ? result
      : { ...result, meta: { ...result.meta, "onex-runtime/attempts": attempts } };
  }

  /** False where the call is over first. */
  async #wait(milliseconds: number): Promise<boolean> {
    try {
      // A timer may fire up to a millisecond early, and then nobody takes the call yet.
      await sleep(Math.ceil(milliseconds) + 1, this.#signal);
      return true;
    } catch {
      return false;
    }
  }

  #choose(): Target | undefined {
    const { instances, clock } = this.#parts;
    const route = instances.routeOf(this.#tool); // (3)
    if (route === undefined) return undefined;
    const now = clock.now();
    return this.#untried(route) ?? this.#again(route, now) ?? instances.soonest(route);
  }

  /** (1) */
  #untried(route: Route): Target | undefined {
    const { instances } = this.#parts;
    const { terms } = instances;
    const isNew = (target: Target): boolean => !this.#tried.has(target.key) && terms.allows(target);
    const { picker } = route;
    return (
      picker.pick({ ...terms, allows: (target) => isNew(target) && instances.isWell(target) }) ??
      picker.pick({ ...terms, allows: isNew })
    );
  }

  /** One that was tried before, if possible not the last one. (2) */
  #again(route: Route, now: number): Target | undefined {
    const { terms } = this.#parts.instances;
    const last = [...this.#tried.keys()].at(-1);
    const isDue = ({ key }: Target): boolean => (this.#tried.get(key) ?? 0) <= now;
    const isAllowed = (target: Target): boolean => isDue(target) && terms.allows(target);
    const { picker } = route;
    return (
      picker.pick({ ...terms, allows: (target) => target.key !== last && isAllowed(target) }) ??
      picker.pick({ ...terms, allows: isAllowed })
    );
  }

  /** Milliseconds until one of the instances takes the call. */
  #readyMs({ targets }: Route, now: number): number {
    const { instances } = this.#parts;
    return Math.min(
      ...targets.map((target) =>
        Math.max(instances.readyMs(target), (this.#tried.get(target.key) ?? now) - now),
      ),
    );
  }

  #report(failure: OnexError, afterMs: number): void {
    this.#parts.log.debug(
      {
        tool: this.#tool.name,
        correlation_id: this.#call.correlationId,
        ...failure.facts,
        attempt: this.#count,
        after_ms: Math.round(afterMs),
        cause: failure.cause,
      },
      `tried again: ${failure.describe()}`,
    );
  }
}

const askedMs = ({ facts }: OnexError): number => (facts.retry_after_seconds ?? 0) * 1000;

/** The wait that was asked for, where the next attempt has to keep to it. (2) */
function retryAfterMs(failure: OnexError, readyMs: number): number | undefined {
  if (failure.facts.retry_after_seconds === undefined) return undefined;
  const asked = askedMs(failure);
  if (failure.facts.status === 429) return asked;
  return asked > 0 && readyMs === 0 ? undefined : Math.min(asked, readyMs);
}
