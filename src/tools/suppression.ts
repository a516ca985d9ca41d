/**
 * Instances that an event has just declared gone, while Consul does not know it yet. Owns: for how long Consul's
 * statement does not count. Does not own: what events mean (`discovery/`).
 *
 * 1. What Consul said at the index known then does not count; as soon as the index is another one, Consul wins.
 * 2. After `suppressionMs` Consul wins in any case.
 */
import type { Clock } from "../core/clock.ts";

/** A service that went away without telling Consul is found out by its checks within this time. */
export const suppressionMs = 60_000;

interface Suppressed {
  /** Consul's index of the service then; undefined: Consul had not spoken of it yet, and its first word counts. */
  index: number | undefined;
  readonly until: number;
}

export class Suppressions {
  readonly #clock: Clock;
  readonly #byService = new Map<string, Suppressed>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param index Consul's index of the service, as known now */
  begin(serviceId: string, index: number | undefined): void {
    this.#byService.delete(serviceId); // All last equally long: the one that ends first stays first.
    this.#byService.set(serviceId, { index, until: this.#clock.now() + suppressionMs });
  }

  end(serviceId: string): void {
    this.#byService.delete(serviceId);
  }

  /** Whether what Consul says of the service at `index` does not count. */
  covers(serviceId: string, index: number | undefined): boolean {
    const suppressed = this.#byService.get(serviceId);
    if (suppressed === undefined || index === undefined) return false;
    suppressed.index ??= index;
    if (suppressed.index === index && this.#clock.now() < suppressed.until) return true;
    this.#byService.delete(serviceId); // (1) (2)
    return false;
  }

  /** Milliseconds until Consul's statement counts again; undefined where it does. */
  remaining(serviceId: string): number | undefined {
    const until = this.#byService.get(serviceId)?.until;
    return until === undefined ? undefined : Math.max(0, until - this.#clock.now());
  }

  /** Milliseconds until the next one ends; undefined where there is none. */
  get nextEnd(): number | undefined {
    const [first] = this.#byService.values();
    return first === undefined ? undefined : Math.max(0, first.until - this.#clock.now());
  }

  /** Forgets those whose time is over, and names them. (2) */
  takeEnded(): readonly string[] {
    const now = this.#clock.now();
    const ended = [...this.#byService]
      .filter(([, { until }]) => until <= now)
      .map(([serviceId]) => serviceId);
    for (const serviceId of ended) this.#byService.delete(serviceId);
    return ended;
  }
}
