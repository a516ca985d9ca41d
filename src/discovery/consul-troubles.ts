/** What is wrong at the Consul source just now: each trouble by its place, logged when it comes, changes and goes. */
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/log.ts";

interface Trouble {
  readonly text: string;
  /** Consul cannot be reached, or cannot answer: what is known grows old. */
  readonly isOutage: boolean;
}

export class Troubles {
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #present = new Map<string, Trouble>();
  #outageSince: number | undefined;

  constructor(log: Logger, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  /** By the clock; undefined where there is none. */
  get outageSince(): number | undefined {
    return this.#outageSince;
  }

  /** Outages first. */
  get text(): string | undefined {
    const all = [...this.#present.values()];
    return (all.find(({ isOutage }) => isOutage) ?? all[0])?.text;
  }

  set(place: string, text: string, isOutage: boolean): void {
    const before = this.#present.get(place);
    this.#present.set(place, { text, isOutage });
    if (before?.text !== text) this.#log.warn({ place, reason: text }, "Consul cannot be followed");
    if (isOutage) this.#outageSince ??= this.#clock.now();
    else this.#judge();
  }

  clear(...places: readonly string[]): void {
    for (const place of places) {
      if (this.#present.delete(place)) this.#log.info({ place }, "Consul can be followed again");
    }
    this.#judge();
  }

  #judge(): void {
    for (const { isOutage } of this.#present.values()) if (isOutage) return;
    this.#outageSince = undefined;
  }
}
