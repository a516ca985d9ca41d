/** Who is served, of the tools that claim a name, and of all where there are too many. Pure. */
import { byteOrder } from "./name-order.ts";
import { sourceKinds, type Tool } from "./tool.ts";

/** Which tags keep a tool out. */
export interface TagFilter {
  readonly requiredTags: readonly string[];
  readonly excludedTags: readonly string[];
}

/** A tool that is not served. */
export interface Refused {
  readonly tool: Tool;
  readonly reason: string;
  /** It lost its name to another. */
  readonly isRival: boolean;
}

/** Who holds a name, of those who claim it: the first by precedence that no tag keeps out. */
export function judge(
  claims: readonly Tool[],
  filter: TagFilter,
): { holder: Tool | undefined; refused: Refused[] } {
  let holder: Tool | undefined;
  const refused: Refused[] = [];
  for (const tool of claims.toSorted(byPrecedence)) {
    const tagReason = refusedByTags(tool.tags, filter);
    if (tagReason !== undefined) refused.push({ tool, reason: tagReason, isRival: false });
    else if (holder === undefined) holder = tool;
    else {
      const reason = `the name is served by ${holder.source} ${holder.owner}`;
      refused.push({ tool, reason, isRival: true });
    }
  }
  return { holder, refused };
}

/** The first `max` by precedence, in their old order, and the rest by precedence. */
export function withinLimit(
  holders: readonly Tool[],
  max: number,
): { served: readonly Tool[]; surplus: readonly Tool[] } {
  if (holders.length <= max) return { served: holders, surplus: [] };
  const surplus = holders.toSorted(byPrecedence).slice(max);
  const absent = new Set(surplus);
  return { served: holders.filter((tool) => !absent.has(tool)), surplus };
}

/** Ends with the revision, so that two records never stand in the order in which they came. */
export function byPrecedence(a: Tool, b: Tool): number {
  return (
    sourceKinds.indexOf(a.source) - sourceKinds.indexOf(b.source) ||
    byteOrder(a.owner, b.owner) ||
    byteOrder(a.name, b.name) ||
    byteOrder(a.revision, b.revision)
  );
}

/** Why tags keep something out; undefined where they do not. */
export function refusedByTags(tags: readonly string[], filter: TagFilter): string | undefined {
  const excluded = tags.find((tag) => filter.excludedTags.includes(tag));
  if (excluded !== undefined) return `the tag "${excluded}" is in excluded_tags`;
  const missing = filter.requiredTags.find((tag) => !tags.includes(tag));
  return missing === undefined ? undefined : `the tag "${missing}" of required_tags is missing`;
}
