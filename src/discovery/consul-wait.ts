/**
 * Following one of Consul's answers by blocking queries. Owns the rules of the index, the waits between attempts and
 * their jitter. Does not own: what is asked, or what an answer means.
 *
 * 1. An index that goes backwards, and every failure, makes the next query one that does not wait: an agent that has
 *    counted anew would keep an old index waiting until its time is over.
 * 2. An index of 0, and none, is asked for as 1: Consul does not wait at 0. Whether such an answer is news nobody can
 *    tell: it is taken for some.
 * 3. A peer that answers at once again and again with an index that has not grown is asked ever more slowly, until it
 *    has waited or its index grows. One whose index grows with every question is asked
 *    twenty times a second at most.
 * 4. It goes on until it is aborted, whatever happens.
 * 5. A query that does not wait comes after a start, a failure or a reset, when a Consul may still be reading its log: it
 *    asks for what is so.
 */
import { sleep } from "../core/abort.ts";
import { backoffMs } from "../core/backoff.ts";
import type { ConsulAnswer, ConsulRead } from "./consul-client.ts";

export interface FollowOptions<T> {
  readonly ask: (read: ConsulRead) => Promise<ConsulAnswer<T>>;
  /** Not called for an answer without news. */
  readonly onAnswer: (data: T, news: News) => void;
  /**
   * Consul has answered, with or without news.
   *
   * @param hasIndex false: without an index, so that nothing can be waited for
   */
  readonly onReached: (hasIndex: boolean) => void;
  readonly onFailure: (error: unknown) => void;
  readonly signal: AbortSignal;
  /** 0..1. Default Math.random. */
  readonly random?: () => number;
}

export interface News {
  /** Indexes do not go on from where they were. */
  readonly isReset: boolean;
  /** Consul left out what the token may not read. */
  readonly isFiltered: boolean;
}

/** Seconds a query waits for news; Consul adds up to a sixteenth. */
const waitSeconds = 300;
const jitterSeconds = 30;
/** The longest is far below the 5 s within which the state is right again after Consul has returned. */
const retryPause = { firstMs: 100, maxMs: 2000 };
/** An answer without news before this share of its wait was no wait. */
const shortWait = 0.5;
/** Milliseconds: an answer within them was there before the question. */
const atOnceMs = 100;
/** Answers with news, each of them at once, before they are asked for more slowly: a burst of registrations is shorter. */
const burst = 32;

/** Milliseconds before Consul is asked again after so many failures in a row. */
export const retryMs = (failures: number, random?: () => number): number =>
  backoffMs(failures, { ...retryPause, random });

/** The index to wait at after an answer; 0: ask without waiting. (1) (2) */
export const nextIndex = (before: number, answered: number): number =>
  answered < before ? 0 : Math.max(1, answered);

/** Resolves once the signal has aborted; never rejects. (4) */
export async function follow<T>(options: FollowOptions<T>): Promise<void> {
  const { signal, random = Math.random } = options;
  let index = 0;
  /** The highest that was answered and has not been taken back. */
  let known = 0;
  let failures = 0;
  /** Answers that came too soon without a higher index, since one that was waited for or had a higher one. */
  let idle = 0;
  /** Answers that came at once, in a row. */
  let quick = 0;
  while (!signal.aborted) {
    const seconds = waitSeconds - random() * jitterSeconds;
    const startedAt = performance.now();
    try {
      const answer = await options.ask({
        signal,
        ...(index > 0 ? { wait: { index, seconds } } : { consistent: true }), // (5)
      });
      const hasIndex = answer.index > 0;
      const answered = Math.max(1, answer.index); // (2)
      const isReset = answered < known;
      const isNews = index === 0 || answered !== index || !hasIndex;
      const tookMs = performance.now() - startedAt;
      const isShort = tookMs < seconds * 1000 * shortWait;
      failures = 0;
      options.onReached(hasIndex);
      if (isNews) options.onAnswer(answer.data, { isReset, isFiltered: answer.isFiltered });
      quick = tookMs < atOnceMs ? quick + 1 : 0;
      if (!isShort) idle = 0;
      else if (!hasIndex || isReset || !isNews) idle += 1;
      else if (index > 0) idle = 0;
      index = nextIndex(known, answered);
      known = index;
    } catch (error) {
      if (isAborted(signal)) return;
      options.onFailure(error);
      failures += 1;
      index = 0; // (1)
    }
    // The first reset is followed by a fresh look at once. (3)
    const wait = failures > 0 ? failures : idle > 1 ? idle : quick > burst ? 1 : 0;
    if (wait > 0) await sleep(retryMs(wait, random), signal).catch(() => undefined);
  }
}

/** Behind a function, so that the compiler does not take an earlier look for the present. */
const isAborted = (signal: AbortSignal): boolean => signal.aborted;
