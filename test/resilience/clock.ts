import type { Clock } from "../../src/core/clock.ts";

/** A clock that moves by hand. */
export class ManualClock implements Clock {
  #milliseconds = 1_000_000;

  now(): number {
    return this.#milliseconds;
  }

  advance(seconds: number): void {
    this.#milliseconds += seconds * 1000;
  }
}
