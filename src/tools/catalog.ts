/**
 * The catalog: folds the records of every source into one immutable snapshot. Owns precedence, name conflicts, tag
 * filters and the limit. Does not own: where records come from, or how tools are executed.
 *
 * Invariants, cited below as (n):
 * 1. A snapshot is frozen and replaced whole; its generation is one more than the last.
 * 2. The snapshot depends on the records held now, never on the order in which they came.
 * 3. Of several owners of one name the first by (source, owner in byte order) is served, the others are withheld.
 * 4. One `apply` is at most one new snapshot and one notification; a change that leaves the list as it was is none.
 * 5. A tool that a filter or the limit keeps out is in `withheld` with its reason.
 */
import { messageOf } from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import { sourceKinds, type Tool } from "./tool.ts";
import type { SourceChange, ToolRecord } from "./source.ts";

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

const emptySnapshot: Snapshot = Object.freeze({ generation: 0, tools: [], byName: new Map(), withheld: [] });

/** As the UTF-8 bytes compare, without making them: every change sorts every name. */
export function byteOrder(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length);
  for (let index = 0; index < shorter; index += 1) {
    const left = a.charCodeAt(index);
    const right = b.charCodeAt(index);
    if (left !== right) return codePointRank(left) - codePointRank(right);
  }
  return a.length - b.length;
}

/** Surrogates stand for code points above U+FFFF, but their units are below those of U+E000..U+FFFF. */
const codePointRank = (unit: number): number => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit);

export class Catalog {
  readonly #options: Required<CatalogOptions>;
  readonly #records = new Map<string, Map<string, ToolRecord>>();
  readonly #listeners = new Set<SnapshotListener>();
  #snapshot: Snapshot = emptySnapshot;

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

  /** Calls `listener` after every new snapshot. The value ends it. */
  onChange(listener: SnapshotListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Folds one source's change in. (2) (4) */
  apply(source: string, change: SourceChange): void {
    let records = this.#records.get(source);
    if (records === undefined) {
      records = new Map();
      this.#records.set(source, records);
    }
    for (const key of change.remove) records.delete(key);
    for (const record of change.put) records.set(record.key, record);
    this.#rebuild();
  }

  /** Forgets all records of one source. */
  clear(source: string): void {
    if (this.#records.delete(source)) this.#rebuild();
  }

  /** Whether a record is held under this source and key. */
  has(source: string, key: string): boolean {
    return this.#records.get(source)?.has(key) ?? false;
  }

  #rebuild(): void {
    const before = this.#snapshot;
    const next = fold(this.#records.values(), this.#options, before);
    const sameList = sameItems(next.tools, before.tools, sameTool);
    if (sameList && sameItems(next.withheld, before.withheld, sameEntry)) return;
    this.#snapshot = Object.freeze({ ...next, generation: before.generation + 1 });
    if (sameList) return;
    for (const listener of [...this.#listeners]) this.#tell(listener);
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

/** @param before spares work, and has no influence on the result */
function fold(
  sources: Iterable<ReadonlyMap<string, ToolRecord>>,
  options: Required<CatalogOptions>,
  before: Snapshot,
): Omit<Snapshot, "generation"> {
  const candidates: Tool[] = [];
  for (const records of sources) for (const { tool } of records.values()) candidates.push(tool);
  candidates.sort(byPrecedence);
  const withheld: Withheld[] = [];
  const withhold = (tool: Tool, reason: string): void => {
    withheld.push({ name: tool.name, source: tool.source, owner: tool.owner, reason });
  };
  const served = new Map<string, Tool>();
  for (const tool of candidates) {
    const tagReason = refusedByTags(tool, options);
    const holder = served.get(tool.name);
    if (tagReason !== undefined) withhold(tool, tagReason);
    else if (holder !== undefined) withhold(tool, `the name is served by ${holder.source} ${holder.owner}`);
    else if (served.size >= options.maxTools) withhold(tool, `max_tools (${options.maxTools}) is reached`);
    else served.set(tool.name, tool);
  }
  return {
    tools: Object.freeze(sortedByName(served, before)),
    byName: served,
    withheld: Object.freeze(withheld),
  };
}

/** What was listed before comes in its old order, so that the sort has little left to do. */
function sortedByName(served: ReadonlyMap<string, Tool>, before: Snapshot): Tool[] {
  const tools: Tool[] = [];
  for (const { name } of before.tools) {
    const tool = served.get(name);
    if (tool !== undefined) tools.push(tool);
  }
  for (const tool of served.values()) if (!before.byName.has(tool.name)) tools.push(tool);
  return tools.sort((a, b) => byteOrder(a.name, b.name));
}

/** Ends with the revision, so that two records never stand in the order in which they came. (2) */
function byPrecedence(a: Tool, b: Tool): number {
  return (
    sourceKinds.indexOf(a.source) - sourceKinds.indexOf(b.source) ||
    byteOrder(a.owner, b.owner) ||
    byteOrder(a.name, b.name) ||
    byteOrder(a.revision, b.revision)
  );
}

function refusedByTags(tool: Tool, options: Required<CatalogOptions>): string | undefined {
  const excluded = tool.tags.find((tag) => options.excludedTags.includes(tag));
  if (excluded !== undefined) return `the tag "${excluded}" is in excluded_tags`;
  const missing = options.requiredTags.find((tag) => !tool.tags.includes(tag));
  return missing === undefined ? undefined : `the tag "${missing}" of required_tags is missing`;
}

function sameItems<T>(a: readonly T[], b: readonly T[], same: (a: T, b: T | undefined) => boolean): boolean {
  return a.length === b.length && a.every((item, index) => same(item, b[index]));
}

/** Revisions are compared only within one source and owner. */
const sameTool = (a: Tool, b: Tool | undefined): boolean =>
  a.name === b?.name && a.revision === b.revision && a.owner === b.owner && a.source === b.source;

const sameEntry = (a: Withheld, b: Withheld | undefined): boolean =>
  a.name === b?.name && a.source === b.source && a.owner === b.owner && a.reason === b.reason;
