/** `key=value` on the command line as a tool's arguments. Pure. Owns: reading a value as the type that the schema gives the key. */
import { messageOf } from "../core/errors.ts";
import { isObject, typeName } from "../core/json.ts";
import type { JsonSchema } from "../tools/tool.ts";
import { UsageError } from "./usage.ts";

/**
 * The arguments of a call: `json`, with the pairs laid over it.
 *
 * @throws UsageError for text that is no JSON object, or a pair without `=`
 */
export function argumentsOf(
  json: string | undefined,
  pairs: readonly string[],
  schema: JsonSchema,
): Record<string, unknown> {
  const properties = isObject(schema.properties) ? schema.properties : {};
  const base = json === undefined ? {} : jsonObject(json, "--args");
  const entries = pairs.map((pair) => {
    const at = pair.indexOf("=");
    if (at < 1) throw new UsageError(`"${pair}" is not key=value`);
    const key = pair.slice(0, at);
    const own = Object.hasOwn(properties, key) ? properties[key] : undefined;
    return [key, valueOf(pair.slice(at + 1), typesOf(own))] as const;
  });
  // Not by assignment: `__proto__=1` is an argument like any other.
  return { ...base, ...Object.fromEntries(entries) };
}

/** @throws UsageError naming the option where the text is no JSON object */
export function jsonObject(text: string, option: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${option} is not JSON: ${messageOf(error)}`, { cause: error });
  }
  if (!isObject(value)) throw new UsageError(`${option} must be a JSON object, got ${text}`);
  return value;
}

/** Types that a property's schema names; none: any. */
function typesOf(schema: unknown): readonly unknown[] {
  if (!isObject(schema)) return [];
  if (schema.type !== undefined) return Array.isArray(schema.type) ? schema.type : [schema.type];
  if (Array.isArray(schema.enum)) return [...new Set(schema.enum.map(typeName))];
  const variants = schema.anyOf ?? schema.oneOf;
  return Array.isArray(variants) ? variants.flatMap(typesOf) : [];
}

/** What does not fit any type stays text: the tool's validation then says what is wrong with it. */
function valueOf(text: string, types: readonly unknown[]): unknown {
  const parsed = parse(text);
  // Quotes that reached us are part of the text.
  if (parsed === undefined || typeof parsed === "string") return text;
  const fits =
    types.length === 0 ||
    types.some((type) => type === typeName(parsed) || (type === "integer" && typeof parsed === "number"));
  return fits ? parsed : text;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
