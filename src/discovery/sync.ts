/**
 * Runs the sources and brings what they say into the catalog. Owns: the order in which they start, that changes made at
 * one time become one snapshot. Does not own: what a source says, its last good state (`remote.ts`), or what the catalog
 * makes of it.
 *
 * 1. Events are subscribed to first, Consul's state is read second, and then what came between is applied: nothing is lost.
 * 2. What sources say within `coalesceMs` becomes one change of the catalog. Once all have started, what a source in this
 *    process says is applied at once: a host that has started serves the tools of its handlers.
 * 3. A source that cannot be reached keeps nobody from starting.
 * 4. After `close` nothing is applied, and no source is started any more.
 */
import type { Clock } from "../core/clock.ts";
import { RuntimeHostError, toOnexError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { Catalog, NamedChange } from "../tools/catalog.ts";
import type { ApplyChange, SourceStatus, ToolSource } from "../tools/source.ts";
import { Gate } from "./gate.ts";
import { Remote, type RemoteSource } from "./remote.ts";

export interface SyncOptions {
  readonly catalog: Catalog;
  /** Under which name the catalog keeps a source's records. */
  readonly recordsOf: (source: string) => string;
  /** Sources in this process: contract files, handlers. */
  readonly local: readonly ToolSource[];
  readonly events?: RemoteSource;
  readonly consul?: RemoteSource;
  /** Where the last good state of `events` and `consul` is kept. Absent: nowhere. */
  readonly stateDir?: string;
  /** The last good state is read and never written. Default false. */
  readonly readOnly?: boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Milliseconds. What two sources say of one registration arrives within a few of them. */
const coalesceMs = 4;

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

  /** Ends the sources; what they have said stays in the catalog. Idempotent. (4) */
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
    if (first === undefined || this.#isClosed()) return; // (4)
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
    if (this.#isClosed()) return; // (4)
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
