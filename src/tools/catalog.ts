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

/** Byte order of UTF-8 equals code point order; `<` on strings compares UTF-16 units, which differs only above U+FFFF. */
export const byteOrder = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));

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
    const next = fold(this.#records.values(), this.#options);
    if (sameTools(next.tools, this.#snapshot.tools) && sameWithheld(next.withheld, this.#snapshot.withheld))
      return;
    const listChanged = !sameTools(next.tools, this.#snapshot.tools);
    this.#snapshot = Object.freeze({ ...next, generation: this.#snapshot.generation + 1 });
    if (!listChanged) return;
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

function fold(
  sources: Iterable<ReadonlyMap<string, ToolRecord>>,
  options: Required<CatalogOptions>,
): Omit<Snapshot, "generation"> {
  const candidates = [...sources].flatMap((records) => [...records.values()].map((record) => record.tool));
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
  const tools = Object.freeze([...served.values()].sort((a, b) => byteOrder(a.name, b.name)));
  return {
    tools,
    byName: new Map(tools.map((tool) => [tool.name, tool])),
    withheld: Object.freeze(withheld),
  };
}

function byPrecedence(a: Tool, b: Tool): number {
  return (
    sourceKinds.indexOf(a.source) - sourceKinds.indexOf(b.source) ||
    byteOrder(a.owner, b.owner) ||
    byteOrder(a.name, b.name)
  );
}

function refusedByTags(tool: Tool, options: Required<CatalogOptions>): string | undefined {
  const excluded = options.excludedTags.find((tag) => tool.tags.includes(tag));
  if (excluded !== undefined) return `the tag "${excluded}" is in excluded_tags`;
  const missing = options.requiredTags.find((tag) => !tool.tags.includes(tag));
  return missing === undefined ? undefined : `the tag "${missing}" of required_tags is missing`;
}

const sameTools = (a: readonly Tool[], b: readonly Tool[]): boolean =>
  a.length === b.length && a.every((tool, index) => sameTool(tool, b[index]));

/** Revisions are compared only within one source and owner. */
const sameTool = (a: Tool, b: Tool | undefined): boolean =>
  a.name === b?.name && a.revision === b.revision && a.owner === b.owner && a.source === b.source;

const sameWithheld = (a: readonly Withheld[], b: readonly Withheld[]): boolean =>
  JSON.stringify(a) === JSON.stringify(b);
