/**
 * Holds changes back until it is opened. Pure. A source that is followed before another has been read must neither be
 * applied before it nor lose what came in between.
 *
 * 1. Nothing that came while it was shut is lost: on opening it goes through first, in the order in which it came.
 * 2. What comes while it is being opened waits for its turn; nothing overtakes.
 */
import { Fifo } from "../bus/fifo.ts";

export class Gate<T> {
  readonly #through: (change: T) => void;
  readonly #held = new Fifo<T>();
  #state: "shut" | "opening" | "open" = "shut";

  constructor(through: (change: T) => void) {
    this.#through = through;
  }

  /** Lets a change through, or holds it until the gate is opened. */
  readonly pass = (change: T): void => {
    if (this.#state === "open") this.#through(change);
    else this.#held.push(change); // (1) (2)
  };

  /** Lets through what was held, then everything. Idempotent. Where `through` throws, what is left stays held. */
  open(): void {
    if (this.#state !== "shut") return;
    this.#state = "opening";
    try {
      for (let next = this.#held.shift(); next !== undefined; next = this.#held.shift()) this.#through(next);
      this.#state = "open";
    } finally {
      if (this.#state === "opening") this.#state = "shut";
    }
  }
}
