/**
 * Whether the brokers are reached. Owns: one line in the log when an outage begins and one when it is over, whoever on
 * the bus notices first, and telling the producer of its end. Does not own: health (`kafka.ts`), what is tried again.
 *
 * 1. Lines come in pairs: nothing is said of an outage that goes on, nor of its end where it was not told.
 * 2. A broker that answers one of many connections is reached; one that only takes connections is not.
 */
import type { Logger } from "../core/log.ts";

export class KafkaReach {
  readonly #log: Logger;
  /** Connections on which a broker has answered. */
  readonly #answered = new Set<object>();
  #listener: () => void = () => undefined;
  #isLost = false;
  #isClosed = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** @param listener is called when an outage is over; it takes the place of the one before */
  onReached(listener: () => void): void {
    this.#listener = listener;
  }

  /** A broker answered on this connection. (2) */
  answered(connection: object): void {
    this.#answered.add(connection);
    this.reached();
  }

  closed(connection: object): void {
    this.#answered.delete(connection);
  }

  /** A connection could not be had; no outage while another one is there. */
  refused(why: string): void {
    if (this.#answered.size === 0) this.lost(why);
  }

  /** (1) */
  lost(why: string): void {
    if (this.#isLost || this.#isClosed) return;
    this.#isLost = true;
    this.#log.warn({}, `Kafka is not reached: ${why}; it is tried on`);
  }

  /** (1) */
  reached(): void {
    if (!this.#isLost || this.#isClosed) return;
    this.#isLost = false;
    this.#log.info({}, "Kafka is reached again");
    this.#listener();
  }

  /** What ends with the bus is no outage. */
  close(): void {
    this.#isClosed = true;
  }
}
