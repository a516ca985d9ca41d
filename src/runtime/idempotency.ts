/**
 * At most one success per message. Owns: which answers are remembered, for how long, and that a duplicate waits for the
 * one under way. Does not own: what the key of a message is (`dispatch.ts`).
 *
 * 1. Only successes are remembered: a message that failed may be sent again.
 * 2. While a message runs, its duplicates wait; when it fails, the next of them runs.
 * 3. Never more than `maxEntries` are remembered; the oldest go first.
 */
import { abortable } from "../core/abort.ts";
import type { Answer } from "../bus/envelope.ts";
import { monotonicClock, type Clock } from "../core/clock.ts";

/** How long an answer is remembered. */
const rememberMs = 24 * 60 * 60 * 1000;

export class Idempotency {
  readonly #clock: Clock;
  readonly #maxEntries: number;
  /** In the order of recording, which is the order of expiry. */
  readonly #recorded = new Map<string, { readonly answer: Answer; readonly until: number }>();
  readonly #running = new Map<string, Promise<Answer>>();

  /** @param maxEntries some 100 MB of answers of 1 kB each at the default */
  constructor(clock: Clock = monotonicClock, maxEntries = 100_000) {
    this.#clock = clock;
    this.#maxEntries = maxEntries;
  }

  /** The answer of `work`, or the remembered one; `duplicate` says which. */
  async once(
    key: string,
    work: () => Promise<Answer>,
    signal: AbortSignal,
  ): Promise<{ readonly answer: Answer; readonly duplicate: boolean }> {
    for (;;) {
      const known = this.#lookUp(key);
      if (known !== undefined) return { answer: known, duplicate: true };
      const running = this.#running.get(key);
      if (running === undefined) break;
      const answer = await abortable(running, signal); // (2)
      if (answer.success) return { answer, duplicate: true };
    }
    const run = work();
    this.#running.set(key, run);
    try {
      const answer = await run;
      if (answer.success) this.#record(key, answer); // (1)
      return { answer, duplicate: false };
    } finally {
      this.#running.delete(key);
    }
  }

  #lookUp(key: string): Answer | undefined {
    const entry = this.#recorded.get(key);
    return entry !== undefined && entry.until > this.#clock.now() ? entry.answer : undefined;
  }

  #record(key: string, answer: Answer): void {
    const now = this.#clock.now();
    this.#recorded.delete(key);
    this.#recorded.set(key, { answer, until: now + rememberMs });
    for (const [oldest, entry] of this.#recorded) {
      if (this.#recorded.size <= this.#maxEntries && entry.until > now) break; // (3)
      this.#recorded.delete(oldest);
    }
  }
}
