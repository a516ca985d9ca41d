/** What the tags of a service instance say of the tool it serves. Pure; the same for Consul and registration events. */
import { cleanName } from "../contract/tool-name.ts";
import type { Claim } from "../tools/instance.ts";

/** Without it an instance has nothing to do with us. */
export const enabledTag = "mcp-enabled";
const typeTag = "node-type:orchestrator";
const toolTag = "mcp-tool:";

/**
 * The tool that an instance claims to serve. All of `mcp-enabled`, `node-type:orchestrator` and one `mcp-tool:<name>`
 * are needed; tags of other instances never count.
 *
 * @param nodeType what an event says of the node: containing ORCHESTRATOR, in any case, it stands for the tag
 */
export function claimOf(tags: readonly string[], nodeType?: string): Claim {
  if (!tags.includes(enabledTag)) return { refused: `the tag ${enabledTag} is missing` };
  const isOrchestrator = tags.includes(typeTag) || nodeType?.toUpperCase().includes("ORCHESTRATOR") === true;
  if (!isOrchestrator) return { refused: `the tag ${typeTag} is missing` };
  const names = new Set(claimedNames(tags));
  const [name] = names;
  if (name === undefined) return { refused: `the tag ${toolTag}<name> is missing: the tool has no name` };
  if (names.size > 1) {
    const listed = [...names].map((each) => JSON.stringify(each)).join(", ");
    return {
      refused: `it has ${names.size} tags ${toolTag}<name> (${listed}): give each tool its own instance`,
    };
  }
  if (name.trim() === "") return { refused: `the tag ${toolTag} names no tool` };
  return { toolName: cleanName(name) };
}

/** What tags name as tools, as it is written. */
export const claimedNames = (tags: readonly string[]): readonly string[] =>
  tags.filter((tag) => tag.startsWith(toolTag)).map((tag) => tag.slice(toolTag.length));

/** The tag that names the tool. */
export const toolTagOf = (toolName: string): string => `${toolTag}${toolName}`;

/** The tags by which an instance claims the tool, with the tool's own; own ones that would claim something are left out. */
export const toolTags = (toolName: string, own: readonly string[]): readonly string[] => [
  enabledTag,
  typeTag,
  toolTagOf(toolName),
  ...own.filter((tag) => !tag.startsWith("mcp-") && !tag.startsWith("node-type:")),
];
