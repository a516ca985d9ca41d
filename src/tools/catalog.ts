/**
 * The catalog: folds the records of every source into one immutable snapshot. Owns the records, and what a change of
 * them means. Does not own: who is served (`precedence.ts`), where records come from, or how tools are executed.
 *
 * Invariants, cited below as (n):
 * 1. A snapshot is frozen and replaced whole; its generation is one more than the last.
 * 2. The snapshot depends on the records held now, never on the order in which they came.
 * 3. Of several owners of one name the first by (source, owner in byte order) is served, the others are withheld.
 * 4. One `apply` is at most one new snapshot and one notification; a change that leaves the list as it was is none.
 * 5. A tool that a filter or the limit keeps out is in `withheld` with its reason.
 * 6. A change judges the names that it speaks of, however many tools there are.
 */
import { messageOf } from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import { withReplaced } from "./name-order.ts";
import { byPrecedence, judge, type Refused, withinLimit } from "./precedence.ts";
import type { SourceChange, ToolRecord } from "./source.ts";
import type { Tool } from "./tool.ts";

export interface CatalogOptions {
  /** 1..100000. Default 100. */
  readonly maxTools?: number;
  /** A tool needs all of these tags. Default none. */
  readonly requiredTags?: readonly string[];
  /** A tool with any of these tags is kept out. Default internal, deprecated, unsafe. */
  readonly excludedTags?: readonly string[];
  readonly log?: Logger;
}

export const defaultExcludedTags = ["internal", "deprecated", "unsafe"] as const;
export const defaultMaxTools = 100;

export interface Withheld {
  readonly name: string;
  readonly source: Tool["source"];
  readonly owner: string;
  readonly reason: string;
}

export interface Snapshot {
  readonly generation: number;
  /** In byte order of the name. */
  readonly tools: readonly Tool[];
  readonly byName: ReadonlyMap<string, Tool>;
  readonly withheld: readonly Withheld[];
}

export type SnapshotListener = (snapshot: Snapshot) => void;

export class Catalog {
  readonly #options: Required<CatalogOptions>;
  readonly #records = new Map<string, Map<string, ToolRecord>>();
  /** Every tool that claims a name. */
  readonly #claims = new Map<string, readonly Tool[]>();
  /** The first claim of each name that no tag keeps out; by name. */
  #holders: readonly Tool[] = [];
  /** The other claims, where there are any. */
  readonly #refused = new Map<string, readonly Refused[]>();
  /** The holders beyond the limit, by precedence. */
  #surplus: readonly Tool[] = [];
  readonly #listeners = new Set<SnapshotListener>();
  #snapshot: Snapshot = snapshotOf(0, [], []);

  constructor(options: CatalogOptions = {}) {
    this.#options = {
      maxTools: options.maxTools ?? defaultMaxTools,
      requiredTags: options.requiredTags ?? [],
      excludedTags: options.excludedTags ?? defaultExcludedTags,
      log: options.log ?? silentLogger,
    };
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
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Folds one source's change in. (2) (4) */
  apply(source: string, change: SourceChange): void {
    const records = this.#records.get(source) ?? new Map<string, ToolRecord>();
    this.#records.set(source, records);
    const touched = new Set<string>();
    for (const key of change.remove) {
      this.#unclaim(records.get(key)?.tool, touched);
      records.delete(key);
    }
    for (const record of change.put) {
      const { key, tool } = record;
      this.#unclaim(records.get(key)?.tool, touched);
      records.set(key, record);
      this.#claims.set(tool.name, [...(this.#claims.get(tool.name) ?? []), tool]);
      touched.add(tool.name);
    }
    this.#settle(touched);
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

  #unclaim(tool: Tool | undefined, touched: Set<string>): void {
    if (tool === undefined) return;
    const claims = this.#claims.get(tool.name) ?? [];
    const others = claims.toSpliced(claims.indexOf(tool), 1);
    if (others.length === 0) this.#claims.delete(tool.name);
    else this.#claims.set(tool.name, others);
    touched.add(tool.name);
  }

  /** (6) */
  #settle(touched: ReadonlySet<string>): void {
    const holders = new Map<string, Tool | undefined>();
    let sameRefused = true;
    for (const name of touched) {
      const { holder, refused } = judge(this.#claims.get(name) ?? [], this.#options);
      holders.set(name, holder);
      sameRefused &&= sameItems(refused, this.#refused.get(name) ?? [], sameRefusal);
      if (refused.length === 0) this.#refused.delete(name);
      else this.#refused.set(name, refused);
    }
    this.#holders = withReplaced(this.#holders, holders);
    const { served, surplus } = withinLimit(this.#holders, this.#options.maxTools);
    const sameWithheld = sameRefused && sameItems(surplus, this.#surplus, sameTool);
    this.#surplus = surplus;
    this.#publish(served, sameWithheld);
  }

  /** (1) (4) */
  #publish(served: readonly Tool[], sameWithheld: boolean): void {
    const before = this.#snapshot;
    const sameList = sameItems(served, before.tools, sameTool);
    if (sameList && sameWithheld) return;
    this.#snapshot = snapshotOf(
      before.generation + 1,
      sameList ? before.tools : served,
      sameWithheld ? before.withheld : this.#withheld(),
    );
    if (sameList) return;
    for (const listener of [...this.#listeners]) this.#tell(listener);
  }

  /** In order of precedence. (5) */
  #withheld(): Withheld[] {
    const limit = `max_tools (${this.#options.maxTools}) is reached`;
    const absent = new Set(this.#surplus.map(({ name }) => name));
    const entries = this.#surplus.map((tool) => ({ tool, reason: limit }));
    for (const { tool, reason, isRival } of [...this.#refused.values()].flat()) {
      entries.push({ tool, reason: isRival && absent.has(tool.name) ? limit : reason });
    }
    return entries
      .sort((a, b) => byPrecedence(a.tool, b.tool))
      .map(({ tool: { name, source, owner }, reason }) => ({ name, source, owner, reason }));
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

function snapshotOf(generation: number, tools: readonly Tool[], withheld: readonly Withheld[]): Snapshot {
  let byName: ReadonlyMap<string, Tool> | undefined;
  return Object.freeze({
    generation,
    tools: Object.freeze(tools),
    withheld: Object.freeze(withheld),
    // Made when it is first asked for: of many changes in a row most snapshots are never read.
    get byName() {
      byName ??= new Map(tools.map((tool) => [tool.name, tool]));
      return byName;
    },
  });
}

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

const sameRefusal = (a: Refused, b: Refused | undefined): boolean =>
  sameTool(a.tool, b?.tool) && a.reason === b?.reason;
