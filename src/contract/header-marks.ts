/**
 * `x-mcp-header` marks (MCP 2026-07-28, basic/transports/streamable-http, "Schema Extension"). Clients must drop a tool
 * with a mark that breaks the rules, so such a mark is left out here and the tool stays.
 */
import { isMap, type Json, type JsonMap, pointerText } from "./schema-json.ts";
import { mapSubschemas } from "./schema-walk.ts";

const mark = "x-mcp-header";
/** RFC 9110, section 5.6.2. */
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const markableTypes = new Set<Json | undefined>(["string", "integer", "boolean"]);

/** The schema without marks that clients refuse; each that is left out is told in `repairs`. */
export function withoutBadMarks(schema: JsonMap, repairs: string[]): JsonMap {
  const taken = new Set<string>();
  return walk(schema, [], true);

  /** @param reachable through a chain of `properties` alone */
  function walk(node: JsonMap, tokens: readonly string[], reachable: boolean): JsonMap {
    const problem = mark in node ? problemOf(node, tokens, reachable) : undefined;
    if (problem !== undefined) {
      repairs.push(`${pointerText([...tokens, mark])}: ${problem}, left out`);
    } else if (typeof node[mark] === "string") {
      taken.add(node[mark].toLowerCase());
    }
    const kept = problem === undefined ? node : without(node, mark);
    return mapSubschemas(kept, ({ keyword, tokens: below, value }) =>
      isMap(value) ? walk(value, [...tokens, ...below], reachable && keyword === "properties") : value,
    );
  }

  function problemOf(node: JsonMap, tokens: readonly string[], reachable: boolean): string | undefined {
    const name = node[mark];
    if (typeof name !== "string" || !token.test(name)) return "it is no header's name";
    if (!reachable || tokens.length === 0) return "only what properties alone lead to can be a header";
    if (!markableTypes.has(node.type)) return "only a string, an integer or a boolean can be a header";
    return taken.has(name.toLowerCase()) ? "another property has the same header" : undefined;
  }
}

function without(node: JsonMap, key: string): JsonMap {
  const { [key]: _, ...rest } = node;
  return rest;
}
