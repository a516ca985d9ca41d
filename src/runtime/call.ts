/**
 * One call of one handler, as its contract wants it. Owns: concurrency policy, deadline, retries and breaker, in this
 * order from the outside in. Does not own: finding the handler, answers (`dispatch.ts`).
 *
 * 1. One deadline covers all attempts; waiting for a turn does not count.
 * 2. Only an idempotent handler is tried again, and only where its error does not say that this is useless.
 * 3. An open breaker is raised at once, also between attempts.
 */
import type { HandlerContract, RetryPolicy } from "../contract/handler.ts";
import type { Envelope } from "../bus/envelope.ts";
import { abortable, deadline, sleep } from "../core/abort.ts";
import type { Clock } from "../core/clock.ts";
import { InfraTimeoutError, OnexError } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { CircuitBreaker, countsAsFailure } from "../resilience/circuit-breaker.ts";
import type { Handler } from "./handler.ts";
import { Flights, SerialLane, type Hold, type Slots } from "./lanes.ts";

export class HandlerCalls {
  readonly #handler: Handler;
  readonly #contract: HandlerContract;
  readonly #breaker: CircuitBreaker | undefined;
  readonly #lane: SerialLane;
  readonly #flights = new Flights<unknown>();

  constructor(handler: Handler, contract: HandlerContract, clock: Clock) {
    this.#handler = handler;
    this.#contract = contract;
    this.#lane = new SerialLane(contract.protocolType);
    if (contract.breaker !== undefined) {
      this.#breaker = new CircuitBreaker(`handler ${contract.protocolType}`, contract.breaker, clock);
    }
  }

  /**
   * What the handler returns. Rejects with what it throws, at the deadline, or when `signal` aborts.
   *
   * @param slots shared by all handlers
   */
  async call(envelope: Envelope, signal: AbortSignal, slots: Slots): Promise<unknown> {
    switch (this.#contract.concurrency) {
      case "parallel_ok":
        return await slots.run(() => this.#attempts(envelope, signal), signal);
      case "serialized":
        // The slot is taken last: a queue before one handler must not hold slots that others could use.
        return await this.#lane.run(
          (hold) => slots.run(() => this.#attempts(envelope, signal, hold), signal),
          signal,
        );
      case "singleflight":
        return await this.#flights.share(
          `${envelope.operation} ${canonical(envelope.payload)}`,
          (shared) => slots.run(() => this.#attempts(envelope, shared), shared),
          signal,
        );
    }
  }

  async #attempts(envelope: Envelope, signal: AbortSignal, hold?: Hold): Promise<unknown> {
    using limit = deadline(this.#contract.timeoutMs / 1000, envelope.operation, signal); // (1)
    const retry = this.#contract.idempotent ? this.#contract.retry : undefined;
    for (let attempt = 1; ; attempt += 1) {
      const permit = this.#breaker?.admit(); // (3)
      try {
        const result = await this.#attempt(envelope, limit.signal, hold);
        permit?.success();
        return result;
      } catch (thrown) {
        const abandoned = limit.signal.aborted;
        if (abandoned ? limit.signal.reason instanceof InfraTimeoutError : countsAsFailure(thrown))
          permit?.failure();
        else permit?.release();
        const more = retry !== undefined && attempt <= retry.maxRetries;
        if (!more || abandoned || !isWorthRetrying(thrown)) throw thrown; // (2)
        // Where the deadline comes first, the failure says more than the deadline.
        await sleep(retryDelay(retry, attempt, Math.random()), limit.signal).catch(() => {
          throw thrown;
        });
      }
    }
  }

  async #attempt(envelope: Envelope, signal: AbortSignal, hold?: Hold): Promise<unknown> {
    signal.throwIfAborted();
    const running = (async () => await this.#handler.execute(envelope, { signal }))();
    hold?.(running);
    return await abortable(running, signal);
  }
}

/**
 * Milliseconds to wait after a failed attempt.
 *
 * @param attempt the one that failed, from 1
 * @param random in [0, 1)
 */
export function retryDelay(policy: RetryPolicy, attempt: number, random: number): number {
  const factor = { fixed: 1, linear: attempt, exponential: 2 ** (attempt - 1) }[policy.backoff];
  const delay = Math.min(policy.baseDelayMs * factor, policy.maxDelayMs);
  return Math.round(delay * (1 + policy.jitterFactor * (2 * random - 1)));
}

const isWorthRetrying = (thrown: unknown): boolean => !(thrown instanceof OnexError) || thrown.retryable;

/** JSON with sorted keys, so that equal payloads are equal text. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) =>
    isObject(item) ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1))) : item,
  );
}
