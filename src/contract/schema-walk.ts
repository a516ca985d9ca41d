/** Where a JSON Schema holds further schemas, for 2020-12 and draft-07 alike, and which dialect it is in. */
import { isMap, type Json, type JsonMap, SchemaProblem } from "./schema-json.ts";

export type Dialect = "2020-12" | "draft-07";

/** The one spelling of each dialect's `$schema` that every validator knows. */
export const dialectUris: Readonly<Record<Dialect, string>> = {
  "2020-12": "https://json-schema.org/draft/2020-12/schema",
  "draft-07": "http://json-schema.org/draft-07/schema#",
};

/** The dialect a `$schema` names, undefined where there is none. @throws SchemaProblem for any other dialect */
export function declaredDialect(schema: Json): Dialect | undefined {
  if (!isMap(schema) || schema.$schema === undefined || schema.$schema === null) return undefined;
  const declared = schema.$schema;
  if (typeof declared === "string") {
    const uri = declared.replace(/^https?:\/\//, "").replace(/#$/, "");
    if (uri === "json-schema.org/draft/2020-12/schema") return "2020-12";
    if (uri === "json-schema.org/draft-07/schema") return "draft-07";
  }
  throw new SchemaProblem(
    `$schema ${JSON.stringify(declared)} is not supported; use ${dialectUris["2020-12"]} or ${dialectUris["draft-07"]}`,
  );
}

const singles = new Set([
  "additionalItems",
  "additionalProperties",
  "contains",
  "contentSchema",
  "else",
  "if",
  "items",
  "not",
  "propertyNames",
  "then",
  "unevaluatedItems",
  "unevaluatedProperties",
]);
const lists = new Set(["allOf", "anyOf", "items", "oneOf", "prefixItems"]);
const maps = new Set([
  "$defs",
  "definitions",
  "dependencies",
  "dependentSchemas",
  "patternProperties",
  "properties",
]);

/** Sub-schemas that judge the same value as the schema they stand in. */
export const inPlace = new Set([
  "allOf",
  "anyOf",
  "dependencies",
  "dependentSchemas",
  "else",
  "if",
  "not",
  "oneOf",
  "then",
]);

export const holdsSchemas = (keyword: string): boolean =>
  singles.has(keyword) || lists.has(keyword) || maps.has(keyword);
export const holdsSchemaMap = (keyword: string): boolean => maps.has(keyword);

export interface Subschema {
  readonly keyword: string;
  /** From the schema it stands in: `["items"]`, `["properties", "city"]`, `["anyOf", "0"]`. */
  readonly tokens: readonly string[];
  /** What stands there; may be no schema at all. */
  readonly value: Json;
}

/** A copy of `schema` in which `change` has replaced every direct sub-schema. */
export function mapSubschemas(schema: JsonMap, change: (sub: Subschema) => Json): JsonMap {
  const result: JsonMap = {};
  for (const [keyword, value] of Object.entries(schema)) {
    if (Array.isArray(value)) {
      result[keyword] = lists.has(keyword)
        ? value.map((item, index) => change({ keyword, tokens: [keyword, String(index)], value: item }))
        : value;
    } else if (maps.has(keyword) && isMap(value)) {
      const members: JsonMap = {};
      for (const [name, item] of Object.entries(value)) {
        // In `dependencies` a list names required properties; it is no schema.
        members[name] = Array.isArray(item)
          ? item
          : change({ keyword, tokens: [keyword, name], value: item });
      }
      result[keyword] = members;
    } else {
      result[keyword] = singles.has(keyword) ? change({ keyword, tokens: [keyword], value }) : value;
    }
  }
  return result;
}

/** The direct sub-schemas of a schema. */
export function subschemas(schema: JsonMap): Subschema[] {
  const found: Subschema[] = [];
  mapSubschemas(schema, (sub) => {
    found.push(sub);
    return sub.value;
  });
  return found;
}
