/**
 * The subscribers of one topic that share its messages. Owns: who gets a message and when, and order per key. Does not
 * own: topics, and when a group begins and ends (`memory.ts`).
 *
 * 1. A group exists while it has members: what comes without one is not kept.
 * 2. The last member to leave is still given what came before it left.
 * 3. At most `concurrency` messages run at once per member.
 */
import type { DeliveredMessage, MessageHandler } from "./bus.ts";
import { Fifo } from "./fifo.ts";

export interface Member {
  readonly handler: MessageHandler;
  /** What its handler is given. */
  readonly signal: AbortSignal;
  running: number;
}

/** One group of one topic. */
export class Group {
  readonly #concurrency: number;
  /** The bus's own. */
  readonly #signal: AbortSignal;
  readonly #report: (message: DeliveredMessage, thrown: unknown) => Promise<void>;
  readonly #members: Member[] = [];
  /** May run as soon as there is room. */
  readonly #ready = new Fifo<DeliveredMessage>();
  /** A key is here while a message with it is ready or runs; its later messages wait in its lane. */
  readonly #lanes = new Map<string, Fifo<DeliveredMessage>>();
  /** Told after every delivery; each decides for itself whether its wait is over. */
  readonly #waiting = new Set<() => void>();
  /** Works off what is left once no member is left. (2) */
  #last: Member | undefined;
  #turn = 0;
  #running = 0;

  /** @param report says what became of a message whose handler rejected; never rejects */
  constructor(
    concurrency: number,
    signal: AbortSignal,
    report: (message: DeliveredMessage, thrown: unknown) => Promise<void>,
  ) {
    this.#concurrency = concurrency;
    this.#signal = signal;
    this.#report = report;
  }

  get abandoned(): boolean {
    return this.#members.length === 0;
  }

  join(member: Member): void {
    this.#members.push(member);
    this.#last = undefined;
    this.#pump();
  }

  /** Resolves when the member runs nothing more and will be given nothing more. */
  leave(member: Member): Promise<void> {
    this.#members.splice(this.#members.indexOf(member), 1);
    if (this.#members.length === 0) this.#last = member;
    return this.#until(() => member.running === 0 && (this.#last !== member || this.#idle));
  }

  add(message: DeliveredMessage): void {
    if (this.abandoned) return; // (1)
    if (message.key !== null) {
      const lane = this.#lanes.get(message.key);
      if (lane !== undefined) {
        lane.push(message);
        return;
      }
      this.#lanes.set(message.key, new Fifo());
    }
    this.#ready.push(message);
    this.#pump();
  }

  idle(): Promise<void> {
    return this.#until(() => this.#idle);
  }

  /** Forgets what waits. What runs has been told by its signal. */
  drop(): void {
    this.#ready.clear();
    this.#lanes.clear();
    this.#members.length = 0;
    this.#last = undefined;
    for (const check of this.#waiting) check();
  }

  get #idle(): boolean {
    return this.#running === 0 && this.#ready.size === 0;
  }

  #until(over: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const check = (): void => {
        if (!over() && !this.#signal.aborted) return;
        this.#waiting.delete(check);
        resolve();
      };
      this.#waiting.add(check);
      check();
    });
  }

  #pump(): void {
    while (this.#ready.size > 0) {
      const member = this.#pick();
      const message = member === undefined ? undefined : this.#ready.shift();
      if (member === undefined || message === undefined) return;
      this.#running += 1;
      member.running += 1;
      void this.#deliver(member, message);
    }
  }

  /** The next in turn that has room. (3) */
  #pick(): Member | undefined {
    const candidates = this.#members.length === 0 && this.#last !== undefined ? [this.#last] : this.#members;
    for (let tried = 0; tried < candidates.length; tried += 1) {
      const member = candidates[this.#turn % candidates.length];
      this.#turn += 1;
      if (member !== undefined && member.running < this.#concurrency) return member;
    }
    return undefined;
  }

  async #deliver(member: Member, message: DeliveredMessage): Promise<void> {
    try {
      // The publisher's own turn ends before anyone's handler begins.
      await Promise.resolve();
      if (!this.#signal.aborted) await member.handler(message, member.signal);
    } catch (thrown) {
      if (!member.signal.aborted) await this.#report(message, thrown);
    }
    member.running -= 1;
    this.#running -= 1;
    if (message.key !== null) {
      const next = this.#lanes.get(message.key)?.shift();
      if (next === undefined) this.#lanes.delete(message.key);
      else this.#ready.push(next);
    }
    this.#pump();
    for (const check of this.#waiting) check();
  }
}
