/**
 * Running messages by key. Owns: one after the other within a key, side by side otherwise, and how many at once. Does not
 * own: what running a message is (`kafka-consumer.ts`).
 */
import { Fifo } from "./fifo.ts";

export class Chains<T> {
  readonly #concurrency: number;
  readonly #run: (item: T) => Promise<void>;
  readonly #mayBegin: () => boolean;
  /** May run as soon as there is room. */
  readonly #ready = new Fifo<{ readonly item: T; readonly key: string | undefined }>();
  /** A key is here while an item with it is ready or runs; its later items wait in its lane. */
  readonly #lanes = new Map<string, Fifo<T>>();
  readonly #waiting = new Set<() => void>();
  #isHeld = false;
  #running = 0;

  /**
   * @param run never rejects
   * @param mayBegin is asked before each item; whoever turns it true calls `check`
   */
  constructor(concurrency: number, run: (item: T) => Promise<void>, mayBegin = (): boolean => true) {
    this.#concurrency = concurrency;
    this.#run = run;
    this.#mayBegin = mayBegin;
  }

  /** @param key undefined: no order */
  add(item: T, key: string | undefined): void {
    if (key !== undefined) {
      const lane = this.#lanes.get(key);
      if (lane !== undefined) {
        lane.push(item);
        return;
      }
      this.#lanes.set(key, new Fifo());
    }
    this.#ready.push({ item, key });
    this.#pump();
  }

  /** Begins nothing more until `release`. */
  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    this.#pump();
  }

  /** Begins what may begin by now. */
  check(): void {
    this.#pump();
  }

  /** Resolves when nothing runs. */
  async idle(): Promise<void> {
    if (this.#running > 0) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  #pump(): void {
    while (!this.#isHeld && this.#running < this.#concurrency && this.#mayBegin()) {
      const next = this.#ready.shift();
      if (next === undefined) return;
      this.#running += 1;
      void this.#work(next.item, next.key);
    }
  }

  async #work(item: T, key: string | undefined): Promise<void> {
    await this.#run(item);
    this.#running -= 1;
    if (key !== undefined) {
      const next = this.#lanes.get(key)?.shift();
      if (next === undefined) this.#lanes.delete(key);
      else this.#ready.push({ item: next, key });
    }
    this.#pump();
    if (this.#running > 0) return;
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}
