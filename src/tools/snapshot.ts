/** What the catalog comes to: the tools that are served, and what is not and why. */
import { positionOf } from "./name-order.ts";
import type { Tool } from "./tool.ts";

export interface Withheld {
  readonly name: string;
  readonly source: Tool["source"];
  readonly owner: string;
  readonly reason: string;
}

/** Tools by their names. */
export type ToolsByName = Pick<ReadonlyMap<string, Tool>, "get" | "has"> & {
  keys(): Iterable<string>;
};

export interface Snapshot {
  readonly generation: number;
  /** In byte order of the name. */
  readonly tools: readonly Tool[];
  readonly byName: ToolsByName;
  readonly withheld: readonly Withheld[];
}

/** @param tools in byte order of their names */
export function snapshotOf(
  generation: number,
  tools: readonly Tool[],
  withheld: readonly Withheld[],
): Snapshot {
  return Object.freeze({
    generation,
    tools: Object.freeze(tools),
    withheld: Object.freeze(withheld),
    byName: Object.freeze(sorted(tools)),
  });
}

/** Looked up in their order: a map of 10,000 tools takes 1 ms to make, and every change would need another. */
function sorted(tools: readonly Tool[]): ToolsByName {
  const get = (name: string): Tool | undefined => {
    const tool = tools[positionOf(tools, name)];
    return tool?.name === name ? tool : undefined;
  };
  return { get, has: (name) => get(name) !== undefined, keys: () => tools.map(({ name }) => name) };
}
