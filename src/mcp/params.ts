/**
 * `Mcp-Param-*` headers of revision 2026-07-28 (basic/transports/streamable-http, "Schema Extension"): a property marked
 * `x-mcp-header` is repeated as a header, and the two must agree. The SDK checks them only for its high-level server.
 */
import { isObject } from "../core/json.ts";
import type { JsonSchema, Tool } from "../tools/tool.ts";

interface Declaration {
  readonly header: string;
  readonly path: readonly string[];
  readonly numeric: boolean;
}

const declarations = new WeakMap<JsonSchema, readonly Declaration[]>();

/** How the headers of a tools/call for `tool` disagree with its arguments, if they do. */
export function paramMismatch(tool: Tool, args: unknown, headers: Headers): string | undefined {
  for (const declaration of declarationsOf(tool.inputSchema)) {
    const value = valueAt(args, declaration.path);
    if (value === undefined || value === null) continue;
    const expected = textOf(value);
    if (expected === undefined) continue;
    const name = `Mcp-Param-${declaration.header}`;
    const given = headers.get(name);
    const where = declaration.path.join(".");
    if (given === null) return `Header mismatch: ${name} is missing, the body has a value at ${where}`;
    const decoded = decodeParam(given);
    if (decoded === undefined) return `Header mismatch: ${name} is not valid base64`;
    const equal =
      declaration.numeric && typeof value === "number" && decimal.test(decoded)
        ? Number(decoded) === value
        : decoded === expected;
    if (!equal) return `Header mismatch: ${name} differs from the body at ${where}`;
  }
  return undefined;
}

/** Whether calls of `tool` carry such headers. */
export const hasParamHeaders = (tool: Tool): boolean => declarationsOf(tool.inputSchema).length > 0;

const decimal = /^-?\d+(\.\d+)?$/;
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

function decodeParam(value: string): string | undefined {
  if (!value.startsWith("=?base64?") || !value.endsWith("?=")) return value;
  const encoded = value.slice("=?base64?".length, -"?=".length);
  if (!base64.test(encoded)) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(encoded, "base64"));
  } catch {
    return undefined;
  }
}

function textOf(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return String(value);
  if (typeof value !== "number" || !Number.isFinite(value)) return undefined;
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? undefined : String(value);
}

function valueAt(root: unknown, path: readonly string[]): unknown {
  let value = root;
  for (const key of path) value = isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  return value;
}

function declarationsOf(schema: JsonSchema): readonly Declaration[] {
  let found = declarations.get(schema);
  if (found === undefined) {
    found = [...collect(schema, [])];
    declarations.set(schema, found);
  }
  return found;
}

/** A header's name (RFC 9110, section 5.1). */
const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/**
 * Only what a chain of `properties` reaches counts, and only under a name that a header can have: clients drop a tool
 * with any other mark, and nobody could send its header.
 */
function* collect(schema: unknown, path: readonly string[]): Generator<Declaration> {
  if (!isObject(schema)) return;
  const header = schema["x-mcp-header"];
  const type = schema["type"];
  if (path.length > 0 && typeof header === "string" && token.test(header)) {
    yield { header, path, numeric: type === "integer" || type === "number" };
  }
  const properties = schema["properties"];
  if (!isObject(properties)) return;
  for (const [key, child] of Object.entries(properties)) yield* collect(child, [...path, key]);
}
