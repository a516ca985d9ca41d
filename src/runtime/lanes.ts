/**
 * How many calls run at once. Owns: the host's slots, the lane of a serialized handler, and sharing one execution among
 * equal calls. Does not own: deadlines, retries, breakers (`call.ts`).
 */
import { abortable } from "../core/abort.ts";
import { Fifo } from "../bus/fifo.ts";
import { CancelledError, InfraUnavailableError } from "../core/errors.ts";

interface Place {
  /** Undefined once the slot was given, or its caller went away. */
  take: (() => void) | undefined;
}

/** At most `limit` holders at a time, first come, first served. */
export class Slots {
  #free: number;
  readonly #waiting = new Fifo<Place>();

  constructor(limit: number) {
    this.#free = limit;
  }

  /** Runs `work` in a slot. Rejects with the signal's reason where it aborts before there was one. */
  async run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.take(signal);
    try {
      return await work();
    } finally {
      this.give();
    }
  }

  async take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const place: Place = { take: undefined };
    const turn = new Promise<void>((resolve) => {
      place.take = resolve;
    });
    this.#waiting.push(place);
    try {
      await abortable(turn, signal);
    } catch (thrown) {
      // The slot may have been given in the same turn of the loop in which the signal aborted.
      if (place.take === undefined) this.give();
      place.take = undefined;
      throw thrown;
    }
  }

  give(): void {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const { take } = next;
      if (take === undefined) continue;
      next.take = undefined;
      take();
      return;
    }
    this.#free += 1;
  }
}

/** Tells a lane what the handler itself still works on. */
export type Hold = (running: Promise<unknown>) => void;

/**
 * One call of a handler after the other. A call that was given up while the handler still works on it keeps the lane;
 * until it ends callers are refused rather than left waiting, since nobody knows when that is.
 */
export class SerialLane {
  readonly #name: string;
  readonly #slot = new Slots(1);
  /** Aborts those who wait when the call before them is overdue. */
  #refusal = new AbortController();

  constructor(name: string) {
    this.#name = name;
  }

  /** @throws InfraUnavailableError (retryable) while a call that was given up still runs */
  async run<T>(work: (hold: Hold) => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.#slot.take(AbortSignal.any([signal, this.#refusal.signal]));
    let running: Promise<unknown> | undefined;
    const hold: Hold = (promise) => {
      const settled = (): void => {
        if (running === promise) running = undefined;
      };
      running = promise;
      promise.then(settled, settled);
    };
    try {
      return await work(hold);
    } finally {
      this.#release(running);
    }
  }

  #release(overdue: Promise<unknown> | undefined): void {
    if (overdue === undefined) {
      this.#slot.give();
      return;
    }
    this.#refusal.abort(
      new InfraUnavailableError(
        `handler ${this.#name} takes one call at a time and still works on one that was given up`,
        { retryable: true, facts: { target: this.#name } },
      ),
    );
    const reopen = (): void => {
      this.#refusal = new AbortController();
      this.#slot.give();
    };
    overdue.then(reopen, reopen);
  }
}

interface Flight<T> {
  readonly result: Promise<T>;
  readonly abort: AbortController;
  callers: number;
}

/** Equal calls at one time share one execution. It is aborted when the last of its callers gives up. */
export class Flights<T> {
  readonly #flights = new Map<string, Flight<T>>();

  async share(key: string, work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    const flight = this.#flights.get(key) ?? this.#begin(key, work);
    flight.callers += 1;
    try {
      return await abortable(flight.result, signal);
    } finally {
      flight.callers -= 1;
      if (flight.callers === 0) {
        this.#end(key, flight);
        flight.abort.abort(new CancelledError());
      }
    }
  }

  #begin(key: string, work: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const abort = new AbortController();
    const result = work(abort.signal);
    const flight: Flight<T> = { result, abort, callers: 0 };
    const end = (): void => this.#end(key, flight);
    result.then(end, end);
    this.#flights.set(key, flight);
    return flight;
  }

  /** A later caller begins anew: this one is over or about to be aborted. */
  #end(key: string, flight: Flight<T>): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key);
  }
}
