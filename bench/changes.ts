/**
 * Changes made one after another, and how long each takes until somebody who listens is told. Does not own: what a change
 * is, or who listens.
 */
import { setTimeout as sleep } from "node:timers/promises";

/** Where somebody is told of changes. */
export class Ear {
  #heard = 0;
  #next = Promise.withResolvers<number>();

  /** Told so far. */
  get heard(): number {
    return this.#heard;
  }

  /** To be called when a change is told. */
  readonly hear = (): void => {
    this.#heard += 1;
    this.#next.resolve(performance.now());
    this.#next = Promise.withResolvers<number>();
  };

  /** When it is told next. */
  next(): Promise<number> {
    return this.#next.promise;
  }
}

export interface Series {
  readonly changes: number;
  /** How often somebody was told. */
  readonly heard: number;
  /** Milliseconds from the moment that a change was sent until it was told. */
  readonly fromSending: readonly number[];
  /** The same from the moment that the answer to it had come: negative where it was told before. */
  readonly fromAnswer: readonly number[];
}

/** Milliseconds between two changes, at random, so that they keep step with nothing. */
const pauseMs = [20, 120] as const;
/** After this a change counts as not told. */
const patienceMs = 5000;
/** What is told once too often comes by then. */
const settleMs = 1000;

/** @param make makes the change of this number; resolves when it is acknowledged */
export async function measureChanges(
  changes: number,
  ear: Ear,
  make: (change: number) => Promise<void>,
): Promise<Series> {
  const heardBefore = ear.heard;
  const fromSending: number[] = [];
  const fromAnswer: number[] = [];
  for (let change = 0; change < changes; change++) {
    const told = ear.next();
    const sentAt = performance.now();
    const answered = make(change).then(() => performance.now());
    const toldAt = await Promise.race([told, sleep(patienceMs, undefined, { ref: false })]);
    const answeredAt = await answered;
    if (toldAt !== undefined) {
      fromSending.push(toldAt - sentAt);
      fromAnswer.push(toldAt - answeredAt);
    }
    const [least, most] = pauseMs;
    await sleep(least + Math.random() * (most - least));
  }
  await sleep(settleMs);
  return { changes, heard: ear.heard - heardBefore, fromSending, fromAnswer };
}

/** Of the values in order, the one below which this share of them lies. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}
