/**
 * How far a subscription is with one partition: what was taken and is not done yet. Pure. Does not own: commits
 * (`kafka-consumer.ts`).
 *
 * 1. `committable` never lies beyond a message that is not done.
 */
export class Progress {
  /** In the order of taking, which is that of the offsets. */
  readonly #unfinished = new Set<bigint>();
  #next: bigint | undefined;

  /** The first offset that was not taken yet; undefined where nothing was. */
  get next(): bigint | undefined {
    return this.#next;
  }

  get unfinished(): number {
    return this.#unfinished.size;
  }

  /** What may be committed; undefined where nothing was taken. (1) */
  get committable(): bigint | undefined {
    for (const lowest of this.#unfinished) return lowest;
    return this.#next;
  }

  /** False where the message was taken already. */
  take(offset: bigint): boolean {
    if (this.#next !== undefined && offset < this.#next) return false;
    this.#unfinished.add(offset);
    this.#next = offset + 1n;
    return true;
  }

  /** All before `next` was taken, or holds no message. */
  passed(next: bigint): void {
    if (this.#next === undefined || next > this.#next) this.#next = next;
  }

  /** All before `next` was done by someone else. */
  skip(next: bigint): void {
    for (const offset of this.#unfinished) {
      if (offset >= next) break;
      this.#unfinished.delete(offset);
    }
    this.passed(next);
  }

  /** Whether the message was taken, and is not done yet. */
  isOpen(offset: bigint): boolean {
    return this.#unfinished.has(offset);
  }

  finish(offset: bigint): void {
    this.#unfinished.delete(offset);
  }
}
