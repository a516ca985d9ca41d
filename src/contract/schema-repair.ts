/**
 * Rewrites what is meant well but breaks clients or validators, without changing what a schema accepts. Owns the list of
 * repairs. Does not own: whether the result is a valid schema (`schema-check.ts`).
 */
import { isMap, type Json, type JsonMap, pointerText } from "./schema-json.ts";
import { holdsSchemaMap, holdsSchemas, mapSubschemas } from "./schema-walk.ts";

/** Here every client takes a boolean. Elsewhere one as a property's schema makes clients refuse the whole list. */
const keepsBoolean = new Set([
  "additionalItems",
  "additionalProperties",
  "unevaluatedItems",
  "unevaluatedProperties",
]);

/** Values that are data, not schema: nothing in them is touched, null included. */
const dataKeywords = new Set(["const", "default", "enum", "examples"]);

/** Keywords of JSON Schema for which null is an author's empty line. */
const assertions = new Set([
  "$anchor",
  "$comment",
  "$ref",
  "contentEncoding",
  "contentMediaType",
  "dependentRequired",
  "deprecated",
  "description",
  "exclusiveMaximum",
  "exclusiveMinimum",
  "format",
  "maxContains",
  "maxItems",
  "maxLength",
  "maxProperties",
  "maximum",
  "minContains",
  "minItems",
  "minLength",
  "minProperties",
  "minimum",
  "multipleOf",
  "pattern",
  "readOnly",
  "required",
  "title",
  "type",
  "uniqueItems",
  "writeOnly",
]);

/** Keywords of other formats that a validator takes for its own and stumbles over. */
const foreign = ["$async", "id"] as const;

/** The repaired schema; each change is added to `repairs` with its place. */
export function repair(schema: JsonMap, repairs: string[]): JsonMap {
  const note = (tokens: readonly string[], what: string): void => {
    repairs.push(`${tokens.length === 0 ? "the schema" : pointerText(tokens)}: ${what}`);
  };
  const anchors = new Set<string>();
  return repairMap(schema, []);

  function repairAny(value: Json, keyword: string, tokens: readonly string[]): Json {
    if (typeof value === "boolean") {
      if (keepsBoolean.has(keyword)) return value;
      note(tokens, value ? "true is written {}" : "false is written {not: {}}");
      return value ? {} : { not: {} };
    }
    if (value === null && holdsSchemaMap(keyword)) {
      note(tokens, "empty, any value is accepted");
      return {};
    }
    return isMap(value) ? repairMap(value, tokens) : value;
  }

  function repairMap(schema: JsonMap, tokens: readonly string[]): JsonMap {
    const clean = dropKeywords(schema, tokens);
    const result = mapSubschemas(clean, (sub) =>
      repairAny(sub.value, sub.keyword, [...tokens, ...sub.tokens]),
    );
    if (result.nullable === undefined) return result;
    const { nullable, ...rest } = result;
    note(tokens, "nullable is no JSON Schema keyword, the type says it now");
    return nullable === true ? withNull(rest) : rest;
  }

  function dropKeywords(schema: JsonMap, tokens: readonly string[]): JsonMap {
    const result: JsonMap = {};
    for (const [keyword, value] of Object.entries(schema)) {
      if (value === null && (assertions.has(keyword) || holdsSchemas(keyword))) {
        note([...tokens, keyword], "empty, left out");
      } else if ((foreign as readonly string[]).includes(keyword)) {
        note([...tokens, keyword], "no JSON Schema keyword, left out");
      } else if (keyword === "$anchor" && typeof value === "string" && anchors.has(value)) {
        note([...tokens, keyword], "declared before, left out");
      } else if (holdsSchemas(keyword) || dataKeywords.has(keyword)) {
        result[keyword] = value;
      } else {
        if (keyword === "$anchor" && typeof value === "string") anchors.add(value);
        result[keyword] = withoutAddresses(value);
      }
    }
    return result;
  }
}

/** Validators look for addresses even in what they do not know. */
function withoutAddresses(value: Json): Json {
  if (Array.isArray(value)) return value.map(withoutAddresses);
  if (!isMap(value)) return value;
  const result: JsonMap = {};
  for (const [key, item] of Object.entries(value)) {
    if (typeof item === "string" && (key === "$id" || key === "$anchor" || key === "$dynamicAnchor"))
      continue;
    result[key] = withoutAddresses(item);
  }
  return result;
}

/** The schema with null accepted as well, as OpenAPI's `nullable` means it. */
function withNull(schema: JsonMap): JsonMap {
  const { type, enum: values } = schema;
  const types = Array.isArray(type) ? type : typeof type === "string" ? [type] : undefined;
  if (types === undefined || types.includes("null")) return schema;
  const result: JsonMap = { ...schema, type: [...types, "null"] };
  if (Array.isArray(values) && !values.includes(null)) result.enum = [...values, null];
  return result;
}
