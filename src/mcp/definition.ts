/** Tools as MCP shows them. Owns the wire form of a definition and the pages of a list; each is made once. */
import { isObject, type JsonObject, type JsonValue } from "../core/json.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import { positionOf } from "../tools/name-order.ts";
import type { Tool, ToolAnnotations } from "../tools/tool.ts";

/** A tool in `tools/list`. */
export type ToolOnWire = JsonObject & {
  readonly name: string;
  readonly inputSchema: JsonObject & { readonly type: "object" };
};

const definitions = new WeakMap<Tool, ToolOnWire>();

/** The definition of `tool`, the same object for as long as the tool is. */
export function definitionOf(tool: Tool): ToolOnWire {
  let definition = definitions.get(tool);
  if (definition === undefined) {
    definition = makeDefinition(tool);
    definitions.set(tool, definition);
  }
  return definition;
}

function makeDefinition(tool: Tool): ToolOnWire {
  const annotations = annotationsOnWire(tool.annotations);
  return Object.freeze({
    name: tool.name,
    ...(tool.title !== undefined && { title: tool.title }),
    description: tool.description,
    inputSchema: { ...tool.inputSchema, type: "object" as const },
    ...(tool.outputSchema !== undefined && { outputSchema: tool.outputSchema }),
    ...(annotations !== undefined && { annotations }),
    ...(tool.icons !== undefined && { icons: tool.icons as unknown as JsonValue }),
  });
}

/** The hints under the names MCP gives them; undefined where there is none. */
function annotationsOnWire(annotations: ToolAnnotations): JsonObject | undefined {
  const hints: Record<string, boolean> = {};
  if (annotations.readOnly !== undefined) hints["readOnlyHint"] = annotations.readOnly;
  if (annotations.destructive !== undefined) hints["destructiveHint"] = annotations.destructive;
  if (annotations.idempotent !== undefined) hints["idempotentHint"] = annotations.idempotent;
  if (annotations.openWorld !== undefined) hints["openWorldHint"] = annotations.openWorld;
  return Object.keys(hints).length === 0 ? undefined : hints;
}

export interface ToolPage {
  readonly tools: readonly ToolOnWire[];
  /** Absent on the last page. */
  readonly nextCursor?: string;
}

/**
 * The page of `snapshot` that starts behind `cursor`. A cursor names the last tool already seen, so it stays valid
 * when tools come and go between two pages.
 *
 * @returns undefined for a cursor that this runtime did not make
 */
export function pageOf(snapshot: Snapshot, cursor: string | undefined, size: number): ToolPage | undefined {
  const after = cursor === undefined ? undefined : readCursor(cursor);
  if (cursor !== undefined && after === undefined) return undefined;
  const { tools } = snapshot;
  const start = after === undefined ? 0 : firstBehind(tools, after);
  const page = tools.slice(start, start + size);
  const last = page.at(-1);
  const more = last !== undefined && start + size < tools.length;
  return { tools: page.map(definitionOf), ...(more && { nextCursor: writeCursor(last.name) }) };
}

function firstBehind(tools: readonly Tool[], name: string): number {
  const at = positionOf(tools, name);
  return tools[at]?.name === name ? at + 1 : at;
}

const writeCursor = (after: string): string => Buffer.from(JSON.stringify({ after })).toString("base64url");

function readCursor(cursor: string): string | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString("utf8"));
    return isObject(value) && typeof value["after"] === "string" ? value["after"] : undefined;
  } catch {
    return undefined;
  }
}
