/**
 * The catalog: folds the records of every source into one immutable snapshot. Owns the records, and what a change of
 * them means. Does not own: what statements about instances come to (`claims.ts`, `service.ts`), who is served
 * (`precedence.ts`), where records come from, or how tools are executed.
 *
 * Invariants, cited below as (n):
 * 1. A snapshot is frozen and replaced whole; its generation is one more than the last.
 * 2. The snapshot depends on the records held now, never on the order in which they came. The one thing that time
 *    decides is whether Consul's word on an instance that an event declared gone counts already (`suppression.ts`).
 * 3. Of several owners of one name the first by (source, owner in byte order) is served, the others are withheld.
 * 4. One `apply` is at most one new snapshot. Endpoints that come and go change no list: `onChange` is told of lists,
 *    `onSnapshot` of every snapshot; a change that leaves all as it was is none.
 * 5. What a filter, the limit or its own statement keeps out is in `withheld` with its reason.
 * 6. A change judges the names that it speaks of, however many tools there are.
 * 7. A record whose key stays and whose name changes leaves the old name in the same snapshot.
 * 8. Revisions are compared within one source and key only; between sources the source decides.
 */
import { type Clock, monotonicClock } from "../core/clock.ts";
import { messageOf } from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import { Claims } from "./claims.ts";
import { explain, type Explanation, type HeldRecord, type SourceReports } from "./explain.ts";
import { byteOrder, withReplaced } from "./name-order.ts";
import { byPrecedence, judge, type Refused, withinLimit } from "./precedence.ts";
import { snapshotOf, type Snapshot, type Withheld } from "./snapshot.ts";
import type { SourceChange, SourceRecord } from "./source.ts";
import type { Tool } from "./tool.ts";

export interface CatalogOptions {
  /** 1..100000. Default 100. */
  readonly maxTools?: number;
  /** A tool needs all of these tags. Default none. */
  readonly requiredTags?: readonly string[];
  /** A tool with any of these tags is kept out. Default internal, deprecated, unsafe. */
  readonly excludedTags?: readonly string[];
  readonly log?: Logger;
  readonly clock?: Clock;
}

export const defaultExcludedTags = ["internal", "deprecated", "unsafe"] as const;
export const defaultMaxTools = 100;

export type SnapshotListener = (snapshot: Snapshot) => void;

/** One source's change, under the name by which its records are kept. */
export interface NamedChange {
  readonly source: string;
  readonly change: SourceChange;
}

export class Catalog {
  readonly #options: Required<CatalogOptions>;
  readonly #records = new Map<string, Map<string, HeldRecord>>();
  readonly #claims: Claims;
  /** The first claim of each name that no tag keeps out; by name. */
  #holders: readonly Tool[] = [];
  /** The other claims, where there are any. */
  readonly #refused = new Map<string, readonly Refused[]>();
  /** The holders beyond the limit, by precedence. */
  #surplus: readonly Tool[] = [];
  readonly #listListeners = new Set<SnapshotListener>();
  readonly #snapshotListeners = new Set<SnapshotListener>();
  #snapshot: Snapshot = snapshotOf(0, [], []);

  constructor(options: CatalogOptions = {}) {
    this.#options = {
      maxTools: options.maxTools ?? defaultMaxTools,
      requiredTags: options.requiredTags ?? [],
      excludedTags: options.excludedTags ?? defaultExcludedTags,
      log: options.log ?? silentLogger,
      clock: options.clock ?? monotonicClock,
    };
    this.#claims = new Claims(this.#options, this.#options.clock);
  }

  /** Tools served at most. */
  get maxTools(): number {
    return this.#options.maxTools;
  }

  /** The present snapshot. Hold it for as long as one answer takes. */
  snapshot(): Snapshot {
    return this.#snapshot;
  }

  /** Calls `listener` whenever the list of tools has changed. The value ends it. */
  onChange(listener: SnapshotListener): () => void {
    this.#listListeners.add(listener);
    return () => this.#listListeners.delete(listener);
  }

  /** Calls `listener` with every new snapshot. The value ends it. */
  onSnapshot(listener: SnapshotListener): () => void {
    this.#snapshotListeners.add(listener);
    return () => this.#snapshotListeners.delete(listener);
  }

  /** Folds one source's change in. (2) (4) */
  apply(source: string, change: SourceChange): void {
    this.applyAll([{ source, change }]);
  }

  /** Folds the changes of several sources in, in their order, as one. (2) (4) */
  applyAll(changes: readonly NamedChange[]): void {
    for (const { source, change } of changes) this.#take(source, change);
    this.#settle();
  }

  /** Forgets all records of one source. */
  clear(source: string): void {
    this.apply(source, { put: [], remove: [...(this.#records.get(source)?.keys() ?? [])] });
    this.#records.delete(source);
  }

  /** Whether a record is held under this source and key. */
  has(source: string, key: string): boolean {
    return this.#records.get(source)?.has(key) ?? false;
  }

  /** Milliseconds until `expire` has something to do; undefined: nothing. */
  get nextExpiry(): number | undefined {
    return this.#claims.suppressions.nextEnd;
  }

  /** Lets Consul's word count again where its time of silence is over. */
  expire(): void {
    this.#claims.endSuppressions();
    this.#settle();
  }

  /**
   * Why a name is served as it is, or is not.
   *
   * @param reports of the sources. Default none
   */
  explain(name: string, reports: SourceReports = noReports): Explanation {
    return explain(name, {
      ...reports,
      snapshot: this.#snapshot,
      records: [...this.#records].flatMap(([source, held]) =>
        [...held.values()].map((record) => ({ source, ...record })),
      ),
      claims: this.#claims,
      filter: this.#options,
      now: this.#options.clock.now(),
    });
  }

  #take(source: string, { put, remove, suppress = [] }: SourceChange): void {
    const records = this.#records.get(source) ?? new Map<string, HeldRecord>();
    this.#records.set(source, records);
    for (const key of remove) {
      this.#unclaim(source, records.get(key)?.record);
      records.delete(key);
    }
    const at = this.#options.clock.now();
    for (const record of put) {
      this.#unclaim(source, records.get(record.key)?.record); // (7)
      records.set(record.key, { record, at });
      if ("tool" in record) this.#claims.addTool(record.tool);
      else this.#claims.addInstance(recordId(source, record.key), record.key, record.instance);
    }
    for (const serviceId of suppress) this.#claims.suppress(serviceId);
  }

  #unclaim(source: string, record: SourceRecord | undefined): void {
    if (record === undefined) return;
    if ("tool" in record) this.#claims.removeTool(record.tool);
    else this.#claims.removeInstance(recordId(source, record.key), record.instance);
  }

  /** (6) */
  #settle(): void {
    const holders = new Map<string, Tool | undefined>();
    let sameRefused = true;
    for (const name of this.#claims.takeStale()) {
      const { holder, refused } = judge(this.#claims.of(name), this.#options);
      holders.set(name, holder);
      sameRefused &&= sameItems(refused, this.#refused.get(name) ?? [], sameRefusal);
      if (refused.length === 0) this.#refused.delete(name);
      else this.#refused.set(name, refused);
    }
    this.#holders = withReplaced(this.#holders, holders);
    const { served, surplus } = withinLimit(this.#holders, this.#options.maxTools);
    sameRefused &&= !this.#claims.takeRefusedChanged();
    const sameWithheld = sameRefused && sameItems(surplus, this.#surplus, sameTool);
    this.#surplus = surplus;
    this.#publish(served, sameWithheld);
  }

  /** (1) (4) */
  #publish(served: readonly Tool[], sameWithheld: boolean): void {
    const before = this.#snapshot;
    const withheld = sameWithheld ? before.withheld : this.#withheld();
    const sameTools = sameItems(served, before.tools, (a, b) => sameTool(a, b) && sameEndpoints(a, b));
    if (sameTools && withheld === before.withheld) return;
    const sameList = sameTools || sameItems(served, before.tools, sameTool);
    this.#snapshot = snapshotOf(before.generation + 1, sameTools ? before.tools : served, withheld);
    for (const listener of [...this.#snapshotListeners]) this.#tell(listener);
    if (sameList) return;
    for (const listener of [...this.#listListeners]) this.#tell(listener);
  }

  /** In order of precedence. (5) */
  #withheld(): Withheld[] {
    const limit = `max_tools (${this.#options.maxTools}) is reached`;
    const absent = new Set(this.#surplus.map(({ name }) => name));
    const entries = this.#surplus.map((tool) => ({ tool, reason: limit }));
    for (const { tool, reason, isRival } of [...this.#refused.values()].flat()) {
      entries.push({ tool, reason: isRival && absent.has(tool.name) ? limit : reason });
    }
    const withheld = entries
      .sort((a, b) => byPrecedence(a.tool, b.tool))
      .map(({ tool: { name, source, owner }, reason }) => ({ name, source, owner, reason }));
    const refused = this.#claims.refused.map(
      ({ serviceName: name, source, id: owner, refused: reason = "" }) => {
        return { name, source, owner, reason };
      },
    );
    return [...withheld, ...refused.sort((a, b) => byteOrder(a.owner, b.owner))];
  }

  /** A listener's fault is its own: it is logged, and the others are told. */
  #tell(listener: SnapshotListener): void {
    try {
      listener(this.#snapshot);
    } catch (error) {
      this.#options.log.error({ err: messageOf(error) }, "a listener of the catalog failed");
    }
  }
}

const noReports: SourceReports = { problems: [], statuses: [] };

const recordId = (source: string, key: string): string => `${source}\n${key}`;

function sameItems<T>(
  a: readonly T[],
  b: readonly T[],
  same: (one: T, other: T | undefined) => boolean,
): boolean {
  return a.length === b.length && a.every((item, index) => item === b[index] || same(item, b[index]));
}

/** Revisions are compared only within one source and owner. */
const sameTool = (a: Tool, b: Tool | undefined): boolean =>
  a.name === b?.name && a.revision === b.revision && a.owner === b.owner && a.source === b.source;

const sameEndpoints = (a: Tool, b: Tool | undefined): boolean => a.endpoints === b?.endpoints;

const sameRefusal = (a: Refused, b: Refused | undefined): boolean =>
  sameTool(a.tool, b?.tool) && a.reason === b?.reason;
