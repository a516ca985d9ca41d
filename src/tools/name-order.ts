/** Lists of tools in byte order of their names. Pure. */
import type { Tool } from "./tool.ts";

/** As the UTF-8 bytes compare, without making them: lists are long. */
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

/** Where the tool of this name stands in `tools`, or would stand. */
export function positionOf(tools: readonly Tool[], name: string): number {
  let low = 0;
  let high = tools.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const tool = tools[middle];
    if (tool !== undefined && byteOrder(tool.name, name) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** `tools`, in order of their names, with the tools of some names replaced or, where there is none, left out. */
export function withReplaced(tools: readonly Tool[], changes: ReadonlyMap<string, Tool | undefined>): Tool[] {
  const replaced: Tool[] = [];
  let from = 0;
  for (const name of [...changes.keys()].sort(byteOrder)) {
    const at = positionOf(tools, name);
    for (const kept of tools.slice(from, at)) replaced.push(kept);
    const tool = changes.get(name);
    if (tool !== undefined) replaced.push(tool);
    from = tools[at]?.name === name ? at + 1 : at;
  }
  return replaced.concat(tools.slice(from));
}
