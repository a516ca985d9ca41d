/**
 * A limit on what runs at a time, and a queue of limited length before it. Owns: who is in, who waits, in which order.
 * Does not own: what they do, deadlines, the error of those who are turned away.
 *
 * 1. Whoever is let in leaves once; whoever waits is let in once or quits.
 * 2. Those who wait are let in in the order in which they came; nobody enters past them: a place that becomes free goes
 *    to the first of them without being free in between.
 */

/** A place in the queue. */
export interface Waiting {
  /** Called when it is its turn; from then on it is in. */
  readonly go: () => void;
}

/** A doubly linked list: those who give up leave from anywhere. */
interface Node extends Waiting {
  queued: boolean;
  before: Node | undefined;
  after: Node | undefined;
}

export class Bulkhead {
  readonly #limit: number;
  readonly #queueLimit: number;
  #active = 0;
  #waiting = 0;
  #first: Node | undefined;
  #last: Node | undefined;

  /**
   * @param limit in at a time, 1 or more
   * @param queueLimit waiting at a time, 0 or more
   */
  constructor(limit: number, queueLimit: number) {
    this.#limit = limit;
    this.#queueLimit = queueLimit;
  }

  get active(): number {
    return this.#active;
  }

  get waiting(): number {
    return this.#waiting;
  }

  /** In or waiting. */
  get load(): number {
    return this.#active + this.#waiting;
  }

  /** Neither has room: `enter` and `wait` would refuse. */
  get full(): boolean {
    return this.#active >= this.#limit && this.#waiting >= this.#queueLimit;
  }

  /** True: in. Makes nothing. */
  enter(): boolean {
    if (this.#active >= this.#limit) return false; // (2)
    this.#active++;
    return true;
  }

  /** The end of the queue, for who could not enter; undefined where that is full. */
  wait(go: () => void): Waiting | undefined {
    if (this.#waiting >= this.#queueLimit) return undefined;
    const node: Node = { go, queued: true, before: this.#last, after: undefined };
    if (this.#last === undefined) this.#first = node;
    else this.#last.after = node;
    this.#last = node;
    this.#waiting++;
    return node;
  }

  /** Gives the place in the queue up. False where it was let in already: then it has to leave. */
  quit(waiting: Waiting): boolean {
    const node = waiting as Node;
    if (!node.queued) return false;
    this.#unlink(node);
    return true;
  }

  /** Whoever was let in is done. */
  leave(): void {
    const next = this.#first;
    if (next === undefined) {
      this.#active--;
      return;
    }
    this.#unlink(next);
    next.go(); // (2)
  }

  #unlink(node: Node): void {
    const { before, after } = node;
    if (before === undefined) this.#first = after;
    else before.after = after;
    if (after === undefined) this.#last = before;
    else after.before = before;
    node.queued = false;
    this.#waiting--;
  }
}
