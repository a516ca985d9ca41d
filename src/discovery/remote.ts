/**
 * A source outside this process, with its last good state. Owns: how long its start is waited for, and what is served of
 * the last good state meanwhile. Does not own: the file (`last-good.ts`), or what the source says.
 *
 * 1. A source that cannot be reached keeps nobody from starting: its last good state is served until it is.
 * 2. What the source says takes the place of that state in one change. Of a source with parts each part's share stays
 *    until that part is read: one that is away loses nothing while another one speaks.
 * 3. What is kept is saved with what is said, under the time at which it was known: no later start misses it.
 */
import { within } from "../core/abort.ts";
import type { Clock } from "../core/clock.ts";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { ApplyChange, InstanceRecord, SourceChange, SourceStatus, ToolSource } from "../tools/source.ts";
import { LastGood } from "./last-good.ts";

export interface RemoteSource extends ToolSource {
  /**
   * Parts whose state is not known yet, by the names that records have as `part`. Of a part that is read the source says
   * all at once. Absent: the source has no parts, and its state tells.
   */
  unreadParts?(): readonly string[];
}

export interface RemoteOptions {
  /** Where the last good state is kept. Absent: nowhere. */
  readonly stateDir?: string;
  /** The last good state is read and never written. Default false. */
  readonly readOnly?: boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Milliseconds that Consul has for its first state: one that takes connections and does not answer keeps nobody longer. (1) */
const patienceMs = 5000;
/** Milliseconds between looks at whether what was restored is known anew. */
const recoveryLookMs = 50;

/** The last good state is served, as far as it is kept. */
interface Restored {
  /** By the clock. */
  readonly at: number;
  /** What the source has said and is not applied yet. */
  readonly held: readonly SourceChange<InstanceRecord>[];
}

export class Remote {
  readonly #source: RemoteSource;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #lastGood: LastGood | undefined;
  /** What the source has said, folded. */
  readonly #said = new Map<string, InstanceRecord>();
  /** What was saved of parts that are not read yet. (2) (3) */
  readonly #kept = new Map<string, InstanceRecord>();
  #restored: Restored | undefined;
  #apply: ApplyChange = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Its start was not waited for to the end. */
  #isLate = false;

  constructor(source: RemoteSource, { stateDir: directory, readOnly = false, clock, log }: RemoteOptions) {
    this.#source = source;
    this.#clock = clock;
    this.#log = log.child({ source: source.name });
    if (directory !== undefined)
      this.#lastGood = new LastGood({ directory, source: source.name, readOnly, log });
  }

  get name(): string {
    return this.#source.name;
  }

  async load(): Promise<void> {
    const saved = await this.#lastGood?.load();
    if (saved === undefined) return;
    const { savedAt: restoredFrom, records } = saved;
    for (const record of records) this.#kept.set(record.key, { restoredFrom, ...record });
  }

  async start(apply: ApplyChange): Promise<void> {
    this.#apply = apply;
    const started = this.#source.start((change) => this.#take(change as SourceChange<InstanceRecord>));
    // Reading a long history of events is progress, and a topic has its own limit for what is none.
    if (this.#source.kind !== "consul") await started;
    else if ((await within(started, patienceMs)) === "timeout") {
      this.#isLate = true;
      started.catch((error: unknown) => {
        this.#log.error({ err: messageOf(error) }, "it could not be started");
      });
    }
    this.#restore(); // (1)
  }

  status(): SourceStatus {
    const status = this.#withProblem(this.#source.status());
    const savedAt = this.#savedAt();
    if (this.#restored === undefined || savedAt === undefined || status.state === "closed") return status;
    const ageSeconds = Math.max(0, Date.now() - Date.parse(savedAt)) / 1000;
    return {
      ...status,
      state: "degraded",
      ageSeconds: Math.max(ageSeconds, (this.#clock.now() - this.#restored.at) / 1000),
      restoredFrom: savedAt,
    };
  }

  /** Of what is kept, the time that is longest ago. */
  #savedAt(): string | undefined {
    let oldest: string | undefined;
    for (const { restoredFrom } of this.#kept.values())
      if (restoredFrom !== undefined && (oldest === undefined || restoredFrom < oldest))
        oldest = restoredFrom;
    return oldest;
  }

  /** What the source does not say itself: it is told where the source has no trouble of its own. */
  #withProblem(status: SourceStatus): SourceStatus {
    const problem =
      status.state === "starting" && this.#isLate
        ? `there was no answer within ${patienceMs / 1000} s, and it is waited for`
        : this.#lastGood?.problem;
    return problem === undefined ? status : { lastError: problem, ...status };
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#source.close();
    await this.#lastGood?.close();
  }

  #restore(): void {
    if (this.#forgetKnown().length > 0) this.#save();
    if (this.#kept.size === 0 || this.#source.status().state === "closed") return;
    this.#restored = { at: this.#clock.now(), held: [] };
    this.#log.warn(
      { saved_at: this.#savedAt(), records: this.#kept.size, parts: this.#source.unreadParts?.() },
      "out of reach: its last good state is served",
    );
    this.#apply({ put: [...this.#kept.values()], remove: [] });
    this.#timer = setInterval(() => this.#replace(), recoveryLookMs);
  }

  #take(change: SourceChange<InstanceRecord>): void {
    const { put, suppress = [] } = change;
    // What one part says was gone before we began may be on another one that is not read yet.
    const remove = change.remove.filter(
      (key) => this.#said.has(key) || !this.#kept.has(key) || suppress.includes(key),
    );
    for (const key of remove) {
      this.#said.delete(key);
      this.#kept.delete(key);
    }
    for (const record of put) {
      this.#said.set(record.key, record);
      this.#kept.delete(record.key);
    }
    const folded = { ...change, remove };
    if (this.#restored === undefined) {
      this.#apply(folded);
      this.#save();
      return;
    }
    this.#restored = { ...this.#restored, held: [...this.#restored.held, folded] };
    this.#replace();
  }

  /** Applies what is held back and what of the last good state is no longer so. (2) */
  #replace(): void {
    if (this.#restored === undefined || !this.#isReached()) return;
    const { held } = this.#restored;
    const gone = this.#forgetKnown();
    if (held.length + gone.length > 0) {
      this.#restored = { ...this.#restored, held: [] };
      for (const change of held) this.#apply(change);
      this.#apply({ put: [], remove: gone });
      this.#save();
    }
    if (this.#kept.size > 0) return;
    clearInterval(this.#timer);
    this.#restored = undefined;
    this.#log.info({ records: this.#said.size }, "reached again: its present state is served");
  }

  /** What a part says is all of that part; what a source without parts says is all of it once it has started. */
  #isReached(): boolean {
    return this.#source.unreadParts !== undefined || this.#source.status().state !== "starting";
  }

  /** Keeps nothing more of what is read by now, and gives the keys of that. */
  #forgetKnown(): readonly string[] {
    const { state } = this.#source.status();
    if (this.#kept.size === 0 || state === "closed") return [];
    const unread = this.#source.unreadParts?.();
    const isKnown = ({ part }: InstanceRecord): boolean => {
      if (unread === undefined) return state !== "starting";
      return part === undefined ? unread.length === 0 : !unread.includes(part);
    };
    const gone = [...this.#kept.values()].filter(isKnown).map(({ key }) => key);
    for (const key of gone) this.#kept.delete(key);
    return gone;
  }

  /** (3) */
  #save(): void {
    this.#lastGood?.save(() => [...this.#kept.values(), ...this.#said.values()]);
  }
}
