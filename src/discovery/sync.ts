/**
 * Runs the sources and brings what they say into the catalog. Owns: the order in which they start, that changes made at
 * one time become one snapshot, the last good state over restarts. Does not own: what a source says, or what the catalog
 * makes of it.
 *
 * 1. Events are subscribed to first, Consul's state is read second, and then what came between is applied: nothing is lost.
 * 2. What sources say within `coalesceMs` becomes one change of the catalog. Once all have started, what a source in this
 *    process says is applied at once: a host that has started serves the tools of its handlers.
 * 3. A source that cannot be reached keeps nobody from starting. Until it is reached, its last good state is served.
 * 4. The last good state is replaced whole, in one change, once the source knows the present one.
 * 5. After `close` nothing is applied, and no source is started any more.
 */
import { within } from "../core/abort.ts";
import type { Clock } from "../core/clock.ts";
import { messageOf, RuntimeHostError, toOnexError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { Catalog, NamedChange } from "../tools/catalog.ts";
import type { ApplyChange, InstanceRecord, SourceChange, SourceStatus, ToolSource } from "../tools/source.ts";
import { Gate } from "./gate.ts";
import { LastGood } from "./last-good.ts";

export interface SyncOptions {
  readonly catalog: Catalog;
  /** Under which name the catalog keeps a source's records. */
  readonly recordsOf: (source: string) => string;
  /** Sources in this process: contract files, handlers. */
  readonly local: readonly ToolSource[];
  readonly events?: ToolSource;
  readonly consul?: ToolSource;
  /** Where the last good state of `events` and `consul` is kept. Absent: nowhere. */
  readonly stateDir?: string;
  /** The last good state is read and never written. Default false. */
  readonly readOnly?: boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Milliseconds. What two sources say of one registration arrives within a few of them. */
const coalesceMs = 4;
/** Milliseconds that Consul has for its first state: one that takes connections and does not answer keeps nobody longer. (3) */
const patienceMs = 5000;
/** Milliseconds between looks at whether a source that was restored knows the present state. */
const recoveryLookMs = 50;

export class Sync {
  readonly #options: SyncOptions;
  readonly #remote: readonly Remote[];
  /** What came from sources and is not in the catalog yet. */
  #queue: NamedChange[] = [];
  #flushTimer: NodeJS.Timeout | undefined;
  #expiryTimer: NodeJS.Timeout | undefined;
  #state: "new" | "started" | "closed" = "new";
  #hasStarted = false;
  #closing: Promise<void> | undefined;

  constructor(options: SyncOptions) {
    this.#options = options;
    const { events, consul } = options;
    this.#remote = [events, consul]
      .filter((source) => source !== undefined)
      .map((source) => new Remote(source, options));
  }

  /**
   * Starts the sources; resolves once each has applied its first state, or is known to be out of reach. Once. (1) (3)
   *
   * @throws OnexError where a source in this process cannot start
   */
  async start(): Promise<void> {
    if (this.#state !== "new") throw new RuntimeHostError("Sources can be started only once.");
    this.#state = "started";
    const { local } = this.#options;
    await Promise.all([
      ...local.map((source) => source.start(this.#applyLocal(source.name))),
      this.#startRemote(),
    ]);
    this.#hasStarted = true;
    this.#flush();
  }

  statuses(): readonly SourceStatus[] {
    return [
      ...this.#options.local.map((source) => source.status()),
      ...this.#remote.map((remote) => remote.status()),
    ];
  }

  /** Ends the sources; what they have said stays in the catalog. Idempotent. (5) */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #isClosed(): boolean {
    return this.#state === "closed";
  }

  async #startRemote(): Promise<void> {
    const gate = new Gate<NamedChange>((change) => this.#enqueue(change));
    const [first, ...others] = this.#remote;
    await Promise.all(this.#remote.map((remote) => remote.load()));
    if (first === undefined || this.#isClosed()) return; // (5)
    const name = this.#options.recordsOf(first.name);
    // (1)
    await first.start((change) => gate.pass({ source: name, change }));
    for (const remote of others) if (!this.#isClosed()) await remote.start(this.#applyTo(remote.name));
    gate.open();
  }

  #applyTo(sourceName: string): ApplyChange {
    const source = this.#options.recordsOf(sourceName);
    return (change) => this.#enqueue({ source, change });
  }

  /** (2) */
  #applyLocal(sourceName: string): ApplyChange {
    const apply = this.#applyTo(sourceName);
    return (change) => {
      apply(change);
      if (this.#hasStarted) this.#flush();
    };
  }

  #enqueue(change: NamedChange): void {
    if (this.#isClosed()) return; // (5)
    this.#queue.push(change);
    this.#flushTimer ??= setTimeout(() => this.#flush(), coalesceMs); // (2)
  }

  #flush(): void {
    clearTimeout(this.#flushTimer);
    this.#flushTimer = undefined;
    if (this.#isClosed()) return;
    const changes = this.#queue;
    this.#queue = [];
    if (changes.length > 0) this.#options.catalog.applyAll(changes);
    this.#planExpiry();
  }

  /** Consul's word counts again some time after an event has contradicted it: no source would say so. */
  #planExpiry(): void {
    clearTimeout(this.#expiryTimer);
    const { catalog } = this.#options;
    const wait = catalog.nextExpiry;
    if (wait === undefined) return;
    this.#expiryTimer = setTimeout(() => {
      catalog.expire();
      this.#planExpiry();
    }, wait + 1);
  }

  async #close(): Promise<void> {
    this.#state = "closed";
    clearTimeout(this.#flushTimer);
    clearTimeout(this.#expiryTimer);
    const ends = await Promise.allSettled([
      ...this.#options.local.map((source) => source.close()),
      ...this.#remote.map((remote) => remote.close()),
    ]);
    const failed = ends.find((end) => end.status === "rejected");
    if (failed !== undefined) throw toOnexError(failed.reason);
  }
}

/** A source outside this process, with its last good state. */
class Remote {
  readonly #source: ToolSource;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #lastGood: LastGood | undefined;
  /** What the source has said, folded. */
  readonly #records = new Map<string, InstanceRecord>();
  /** Keys of the state that was restored, while it is served. */
  #restored: { readonly savedAt: string; readonly at: number; readonly keys: readonly string[] } | undefined;
  #loaded: Awaited<ReturnType<LastGood["load"]>>;
  /** Declared gone while the restored state was served. */
  readonly #suppressed = new Set<string>();
  #apply: ApplyChange = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Its start was not waited for to the end. */
  #isLate = false;

  constructor(source: ToolSource, { stateDir: directory, readOnly = false, clock, log }: SyncOptions) {
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
    this.#loaded = await this.#lastGood?.load();
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
    if (this.#source.status().state === "starting") this.#restore(); // (3)
    this.#loaded = undefined;
  }

  status(): SourceStatus {
    const status = this.#withProblem(this.#source.status());
    if (this.#restored === undefined || status.state === "closed") return status;
    const { savedAt, at } = this.#restored;
    const ageSeconds = Math.max(0, Date.now() - Date.parse(savedAt)) / 1000;
    return {
      ...status,
      state: "degraded",
      ageSeconds: Math.max(ageSeconds, (this.#clock.now() - at) / 1000),
      restoredFrom: savedAt,
    };
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
    if (this.#loaded === undefined) return;
    const { savedAt, records } = this.#loaded;
    this.#restored = { savedAt, at: this.#clock.now(), keys: records.map(({ key }) => key) };
    this.#log.warn(
      { saved_at: savedAt, records: records.length },
      "out of reach: its last good state is served",
    );
    this.#apply({ put: records, remove: [] });
    this.#timer = setInterval(() => this.#recover(), recoveryLookMs);
  }

  #take(change: SourceChange<InstanceRecord>): void {
    for (const key of change.remove) this.#records.delete(key);
    for (const record of change.put) this.#records.set(record.key, record);
    if (this.#restored === undefined) {
      this.#apply(change);
      this.#save();
      return;
    }
    for (const { instance } of change.put) this.#suppressed.delete(instance.serviceId);
    for (const serviceId of change.suppress ?? []) this.#suppressed.add(serviceId);
    this.#recover();
  }

  /** (4) */
  #recover(): void {
    if (this.#restored === undefined || this.#source.status().state === "starting") return;
    clearInterval(this.#timer);
    const { keys } = this.#restored;
    this.#restored = undefined;
    this.#log.info(
      { records: this.#records.size },
      "reached again: its present state replaces the last good one",
    );
    this.#apply({
      put: [...this.#records.values()],
      remove: keys.filter((key) => !this.#records.has(key)),
      suppress: [...this.#suppressed],
    });
    this.#save();
  }

  #save(): void {
    this.#lastGood?.save(() => [...this.#records.values()]);
  }
}
