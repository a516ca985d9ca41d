/** What the catalog comes to: the tools that are served, and what is not and why. */
import type { Tool } from "./tool.ts";

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

/** @param tools in byte order of their names */
export function snapshotOf(
  generation: number,
  tools: readonly Tool[],
  withheld: readonly Withheld[],
): Snapshot {
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
