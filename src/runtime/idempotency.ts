/**
 * At most one success per message. Owns: which answers are remembered, for how long, and that a duplicate waits for the
 * one under way. Does not own: what the key of a message is (`dispatch.ts`).
 *
 * 1. Only successes are remembered: a message that failed may be sent again.
 * 2. While a message runs, its duplicates wait; when it fails, the next of them runs.
 * 3. What is remembered is bounded, in number and in size; the oldest go first, and the latest always stays.
 */
import { abortable } from "../core/abort.ts";
import type { Answer } from "../bus/envelope.ts";
import { monotonicClock, type Clock } from "../core/clock.ts";

/** How long an answer is remembered. */
const rememberMs = 24 * 60 * 60 * 1000;

interface Limits {
  readonly entries: number;
  /** Of all payloads together, as JSON text. */
  readonly characters: number;
}

/** Some 100 MB. */
const defaultLimits: Limits = { entries: 100_000, characters: 100_000_000 };

interface Recorded {
  readonly answer: Answer;
  readonly until: number;
  readonly characters: number;
}

export class Idempotency {
  readonly #clock: Clock;
  readonly #limits: Limits;
  /** In the order of recording, which is the order of expiry. */
  readonly #recorded = new Map<string, Recorded>();
  #characters = 0;
  readonly #running = new Map<string, Promise<Answer>>();

  constructor(clock: Clock = monotonicClock, limits: Limits = defaultLimits) {
    this.#clock = clock;
    this.#limits = limits;
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
    const characters = JSON.stringify(answer.payload ?? null).length;
    this.#forget(key);
    this.#recorded.set(key, { answer, until: now + rememberMs, characters });
    this.#characters += characters;
    for (const [oldest, { until }] of this.#recorded) {
      if (oldest === key || (until > now && !this.#isTooMuch())) break; // (3)
      this.#forget(oldest);
    }
  }

  #isTooMuch(): boolean {
    return this.#recorded.size > this.#limits.entries || this.#characters > this.#limits.characters;
  }

  #forget(key: string): void {
    this.#characters -= this.#recorded.get(key)?.characters ?? 0;
    this.#recorded.delete(key);
  }
}
