/**
 * Reads of many services over few sockets. Owns their order, how many run at once, and that each is made until it
 * succeeds. Does not own: what is read.
 *
 * 1. At most `limit` reads run at once, and never two of one name.
 * 2. A name that is asked for while its read runs is read once more: an answer is never older than the question.
 * 3. What has changed goes before what is only looked over again, but every fourth read is one of the latter.
 * 4. While Consul cannot be reached one read at a time tries, with growing pauses; a name that Consul cannot answer
 *    for holds nobody else up, also where that looked like an outage until another name was read.
 */
import { retryMs } from "./consul-wait.ts";

export interface ReadsOptions {
  readonly read: (name: string) => Promise<void>;
  /**
   * True: it is Consul's trouble, and every read would fail. False: that of this name alone.
   *
   * @param othersSucceed another name was read since this one failed before
   */
  readonly isOutage: (error: unknown, othersSucceed: boolean) => boolean;
  readonly onFailure: (name: string, error: unknown, isOutage: boolean) => void;
  readonly onSuccess: (name: string) => void;
  readonly limit: number;
  readonly random?: () => number;
}

/** Every so many reads one is taken from the patient ones. */
const patientTurn = 4;

interface Failure {
  readonly attempts: number;
  readonly timer: NodeJS.Timeout;
}

export class ConsulReads {
  readonly #options: ReadsOptions;
  readonly #urgent = new Set<string>();
  readonly #patient = new Set<string>();
  /** With those who wait for the read. */
  readonly #running = new Map<string, readonly (() => void)[]>();
  /** Asked for again while they run. */
  readonly #again = new Set<string>();
  /** Names that Consul could not answer for, until they are tried again. */
  readonly #failed = new Map<string, Failure>();
  /** Names that failed as all would; true: another one was read since. (4) */
  readonly #suspected = new Map<string, boolean>();
  /** Called when the next read of the name that begins has ended. */
  readonly #waiting = new Map<string, (() => void)[]>();
  #outages = 0;
  #pause: NodeJS.Timeout | undefined;
  #taken = 0;
  #isClosed = false;

  constructor(options: ReadsOptions) {
    this.#options = options;
  }

  /**
   * Has these names read. Resolves when each was, or Consul could not answer for it; at once after `close`. An outage is
   * waited out.
   */
  async add(names: Iterable<string>, order: "urgent" | "patient"): Promise<void> {
    if (this.#isClosed) return;
    const reads: Promise<void>[] = [];
    for (const name of names) {
      if (this.#running.has(name)) this.#again.add(name);
      else if (order === "urgent") {
        this.#patient.delete(name);
        this.#urgent.add(name);
      } else if (!this.#urgent.has(name)) this.#patient.add(name);
      reads.push(new Promise((resolve) => this.#wait(name, resolve)));
    }
    this.#fill();
    await Promise.all(reads);
  }

  /** Whether Consul could not answer for any of these when they were read last. There must be one. */
  allFail(names: ReadonlyMap<string, unknown>): boolean {
    if (names.size === 0 || this.#failed.size < names.size) return false;
    return [...names.keys()].every((name) => this.#failed.has(name));
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#pause);
    for (const { timer } of this.#failed.values()) clearTimeout(timer);
    this.#failed.clear();
    this.#urgent.clear();
    this.#patient.clear();
    this.#again.clear();
    for (const resolve of [...this.#waiting.values(), ...this.#running.values()].flat()) resolve();
    this.#waiting.clear();
  }

  #wait(name: string, ...resolve: (() => void)[]): void {
    this.#waiting.set(name, [...(this.#waiting.get(name) ?? []), ...resolve]);
  }

  #fill(): void {
    const limit = this.#outages > 0 ? 1 : this.#options.limit; // (4)
    while (!this.#isClosed && this.#pause === undefined && this.#running.size < limit) {
      const name = this.#take();
      if (name === undefined) return;
      void this.#run(name);
    }
  }

  /** (3) */
  #take(): string | undefined {
    this.#taken += 1;
    const order =
      this.#taken % patientTurn === 0 ? [this.#patient, this.#urgent] : [this.#urgent, this.#patient];
    for (const names of order) {
      const [name] = names;
      if (name === undefined) continue;
      names.delete(name);
      return name;
    }
    return undefined;
  }

  async #run(name: string): Promise<void> {
    const waiting = this.#waiting.get(name) ?? [];
    this.#waiting.delete(name);
    this.#running.set(name, waiting);
    let isDone = true;
    try {
      await this.#options.read(name);
      this.#succeeded(name);
    } catch (error) {
      isDone = this.#isClosed || this.#failedWith(name, error);
    }
    this.#running.delete(name);
    if (isDone) for (const resolve of waiting) resolve();
    else this.#wait(name, ...waiting);
    if (this.#again.delete(name) && !this.#isClosed) this.#urgent.add(name); // (2)
    this.#fill();
  }

  #succeeded(name: string): void {
    this.#outages = 0;
    this.#suspected.delete(name);
    for (const other of this.#suspected.keys()) this.#suspected.set(other, true);
    clearTimeout(this.#failed.get(name)?.timer);
    this.#failed.delete(name);
    if (!this.#isClosed) this.#options.onSuccess(name);
  }

  /** False: it is tried again as soon as Consul can be reached. */
  #failedWith(name: string, error: unknown): boolean {
    if (this.#options.isOutage(error, this.#suspected.get(name) ?? false)) {
      this.#options.onFailure(name, error, true);
      this.#suspected.set(name, false);
      this.#again.add(name);
      // Those that were under way together fail together: that is one failure.
      if (this.#pause !== undefined) return false;
      this.#outages += 1;
      const resume = (): void => {
        this.#pause = undefined;
        this.#fill();
      };
      this.#pause = setTimeout(resume, retryMs(this.#outages, this.#options.random));
      return false;
    }
    const before = this.#failed.get(name);
    clearTimeout(before?.timer);
    const attempts = (before?.attempts ?? 0) + 1;
    const retry = (): void => void this.add([name], "patient");
    const timer = setTimeout(retry, retryMs(attempts, this.#options.random));
    this.#failed.set(name, { attempts, timer });
    this.#options.onFailure(name, error, false);
    return true;
  }
}
