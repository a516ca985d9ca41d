/**
 * Work that goes on beside the events that caused it. Owns how much of it is under way and waits.
 *
 * 1. Whoever hands work over never waits for it, and what it throws is its own to report.
 * 2. A flood costs what does not fit, never memory.
 */
import { Fifo } from "../bus/fifo.ts";

/** Pieces under way at one time. */
const concurrency = 8;
/** Pieces that wait at most. */
const maxWaiting = 10_000;

export type Work = () => Promise<void>;

export class WorkQueue {
  readonly #waiting = new Fifo<Work>();
  readonly #running = new Set<Promise<void>>();

  /** False: too much waits already, and the work will not be done. (1) (2) */
  push(work: Work): boolean {
    if (this.#waiting.size >= maxWaiting) return false;
    this.#waiting.push(work);
    this.#next();
    return true;
  }

  /** Gives up what waits; resolves when what is under way has ended. */
  async close(): Promise<void> {
    this.#waiting.clear();
    await Promise.all(this.#running);
  }

  #next(): void {
    while (this.#running.size < concurrency) {
      const work = this.#waiting.shift();
      if (work === undefined) return;
      const run: Promise<void> = work().finally(() => {
        this.#running.delete(run);
        this.#next();
      });
      this.#running.add(run);
    }
  }
}
