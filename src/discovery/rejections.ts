/**
 * What becomes of events that cannot be taken. Owns: counting, reporting and dead-lettering them, and the latest of them
 * for whoever asks why. Does not own: judging.
 *
 * 1. Every one is counted; a flood of them is a few lines in the log, or one at the end where that is asked for.
 * 2. One that was on its topic before we began is not made a dead letter: it was one when it came, or would become one
 *    again at every start of every replica.
 * 3. A dead letter that cannot be written is reported, and holds nothing up.
 * 4. The last one of a service is remembered until an event of that service is taken; of so many services.
 */
import type { FollowedMessage } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { messageOf } from "../core/errors.ts";
import type { LogFields, Logger } from "../core/log.ts";
import type { EventSubject } from "./registration-event.ts";
import { thinned } from "../core/thinned-log.ts";
import { WorkQueue } from "./work-queue.ts";

/** What is wrong with an event that cannot be taken; it is the `error_type` of the dead letter. */
export type RejectionKind = "InvalidJsonError" | "InvalidEventError" | "IncompleteEventError";

/** Writes a dead letter. @param reason its name is a `RejectionKind` */
export type DeadLetter = (message: FollowedMessage, reason: Error) => Promise<void>;

export interface RejectionsOptions {
  readonly deadLetter: DeadLetter;
  /** One line at the end, with how many there were; each of them is a line of level debug. */
  readonly isBrief: boolean;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Services whose last rejection is remembered. */
const remembered = 1000;

const manyRejected =
  "registration events are rejected: onex tools --explain NAME tells why for a service or tool, logging.level debug for each event";

export interface Rejected {
  readonly serviceId: string;
  /** Of the service, of the tool. */
  readonly names: readonly string[];
  readonly reason: string;
}

export class Rejections {
  readonly #options: RejectionsOptions;
  readonly #letters = new WorkQueue();
  readonly #rejected: (fields: LogFields) => void;
  readonly #notWritten: (fields: LogFields) => void;
  /** By service id; the oldest is first. (4) */
  readonly #latest = new Map<string, Rejected>();
  #count = 0;

  constructor(options: RejectionsOptions) {
    this.#options = options;
    const { log, clock, isBrief } = options;
    const warn = (message: string): ((fields: LogFields) => void) =>
      thinned((fields) => log.warn(fields, message), clock);
    const rejected = "a registration event is rejected";
    this.#rejected = isBrief ? (fields) => log.debug(fields, rejected) : warn(rejected); // (1)
    this.#notWritten = warn("a dead letter could not be written"); // (3)
  }

  get count(): number {
    return this.#count;
  }

  /** The last one of each service that was not taken since. (4) */
  get latest(): readonly Rejected[] {
    return [...this.#latest.values()];
  }

  /** An event of the service was taken. (4) */
  forget(serviceId: string): void {
    this.#latest.delete(serviceId);
  }

  /** @param subject of an event that states nothing. Absent: what it states holds, and the catalog tells what it lacks */
  add(message: FollowedMessage, kind: RejectionKind, reason: string, subject?: EventSubject): void {
    this.#count += 1;
    const { topic, partition, offset, key, isHistory } = message;
    if (subject !== undefined)
      this.#remember(subject, `${reason} (${topic}, partition ${partition}, offset ${offset})`);
    // Under a name that the log does not take for a secret's.
    this.#rejected({ topic, partition, offset, keyed_by: key, reason });
    if (isHistory) return; // (2)
    const failed = (why: string): void => this.#notWritten({ topic, partition, offset, reason: why });
    const error = Object.assign(new Error(reason), { name: kind });
    const write = (): Promise<void> =>
      this.#options.deadLetter(message, error).catch((thrown: unknown) => failed(messageOf(thrown)));
    if (!this.#letters.push(write)) failed("too many wait to be written");
  }

  /** (4) */
  #remember({ serviceId, names }: EventSubject, reason: string): void {
    if (serviceId === null) return;
    this.#latest.delete(serviceId);
    this.#latest.set(serviceId, { serviceId, names, reason });
    const [oldest] = this.#latest.keys();
    if (this.#latest.size > remembered && oldest !== undefined) this.#latest.delete(oldest);
  }

  /** Dead letters under way are written, others are given up. */
  close(): Promise<void> {
    const { isBrief, log } = this.#options;
    if (isBrief && this.#count > 0) log.warn({ rejected: this.#count }, manyRejected);
    return this.#letters.close();
  }
}
