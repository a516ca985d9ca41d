/**
 * Time limits of many calls. A timer for each costs as much as a tenth of a call; those with one limit end in the order
 * in which they began, so that one timer for each limit does. Owns: the order and the timers. Does not own: what ends.
 *
 * The list also takes the place of a Set of what is under way. A Set that is added to and deleted from all the time makes a
 * new table again and again; V8 links each old table to the next one, so that what an old one held when it was given up
 * survives until the next full collection: with a Set garbage collection took 11 us a call, without 2.
 *
 * 1. A limit fires once, and not before its time; up to a millisecond late, as timers do.
 * 2. Entries with one limit are in the order of their time.
 */
import { monotonicClock } from "./clock.ts";

/** Something whose time may be over. Its links belong to the list. */
export interface Limited {
  /** When its time is over, in milliseconds of the monotonic clock. */
  due: number;
  before: Limited | undefined;
  after: Limited | undefined;
  /** Called once, when the time is over. */
  timeOver(): void;
}

/** Those with one limit. */
export class Deadlines {
  readonly #milliseconds: number;
  #first: Limited | undefined;
  #last: Limited | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** @param milliseconds the limit */
  constructor(milliseconds: number) {
    this.#milliseconds = milliseconds;
  }

  /** @param entry not in a list; its time begins */
  add(entry: Limited): void {
    // Timers run by this clock, whatever time it is for those that decide.
    entry.due = monotonicClock.now() + this.#milliseconds;
    const last = this.#last;
    entry.before = last;
    if (last === undefined) this.#first = entry;
    else last.after = entry;
    this.#last = entry;
    if (this.#timer === undefined) this.#arm(entry);
    else if (last === undefined) this.#timer.ref();
  }

  /** @param entry that was added and has neither been removed nor fired */
  remove(entry: Limited): void {
    const { before, after } = entry;
    if (before === undefined) this.#first = after;
    else before.after = after;
    if (after === undefined) this.#last = before;
    else after.before = before;
    entry.before = undefined;
    entry.after = undefined;
    // The timer is left to run, as mostly the next entry comes first; but nobody needs it to.
    if (this.#first === undefined) this.#timer?.unref();
  }

  /** Behind a method, so that the compiler does not take an earlier look for the present. */
  #isArmed(): boolean {
    return this.#timer !== undefined;
  }

  /** Those whose time runs, the latest first. */
  entries(): Limited[] {
    const entries: Limited[] = [];
    for (let entry = this.#last; entry !== undefined; entry = entry.before) entries.push(entry);
    return entries;
  }

  #arm({ due }: Limited): void {
    const wait = Math.max(1, Math.ceil(due - monotonicClock.now()));
    this.#timer = setTimeout(() => this.#fire(), wait);
  }

  #fire(): void {
    this.#timer = undefined;
    const now = monotonicClock.now();
    for (let first = this.#first; first !== undefined && first.due <= now; first = this.#first) {
      this.remove(first);
      first.timeOver();
    }
    // One that was added by the end of another has armed it already.
    if (this.#first !== undefined && !this.#isArmed()) this.#arm(this.#first);
  }
}
