/** Whether a self-contained schema can be compiled by every validator: checked without compiling, which costs far more. */
import { Ajv } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import type { ErrorObject, ValidateFunction } from "ajv";
import { isMap, type Json, type JsonMap, pointerText, SchemaProblem } from "./schema-json.ts";
import { type Dialect, inPlace, subschemas } from "./schema-walk.ts";
import { valueText } from "./problems.ts";

/** @throws SchemaProblem */
export function checkSchema(schema: JsonMap, dialect: Dialect): void {
  const validate = metaValidator(dialect);
  if (!validate(schema)) throw new SchemaProblem(metaProblem(validate.errors?.[0], schema));
  const places = collect(schema);
  for (const [pointer, place] of places) checkPlace(pointer, place, places);
  checkLoops(places);
}

interface Place {
  readonly schema: JsonMap;
  /** Pointers of the schemas that judge the same value. */
  readonly same: readonly string[];
}

function collect(root: JsonMap): Map<string, Place> {
  const places = new Map<string, Place>();
  const visit = (value: Json, tokens: readonly string[]): void => {
    if (!isMap(value)) {
      if (typeof value === "boolean") places.set(pointerText(tokens), { schema: {}, same: [] });
      return;
    }
    const same: string[] = [];
    if (typeof value.$ref === "string") same.push(decodeURIComponent(value.$ref.slice(1)));
    for (const sub of subschemas(value)) {
      const inner = [...tokens, ...sub.tokens];
      if (inPlace.has(sub.keyword)) same.push(pointerText(inner));
      visit(sub.value, inner);
    }
    places.set(pointerText(tokens), { schema: value, same });
  };
  visit(root, []);
  return places;
}

function checkPlace(pointer: string, { schema, same }: Place, places: ReadonlyMap<string, Place>): void {
  const where = pointer === "" ? "the schema" : pointer;
  if (typeof schema.$ref === "string" && !places.has(same[0] ?? "")) {
    throw new SchemaProblem(
      `${where}: $ref ${JSON.stringify(schema.$ref)} leads to something that is no schema`,
    );
  }
  if (Array.isArray(schema.enum) && schema.enum.length === 0) {
    throw new SchemaProblem(`${where}: enum is empty, no value can be valid`);
  }
  // Ajv leaves formats out when it checks a schema, so a bad expression would surface only when it compiles.
  const patterns = isMap(schema.patternProperties) ? Object.keys(schema.patternProperties) : [];
  if (typeof schema.pattern === "string") patterns.push(schema.pattern);
  for (const pattern of patterns) {
    if (!isRegExp(pattern)) {
      throw new SchemaProblem(`${where}: ${JSON.stringify(pattern)} is not a regular expression`);
    }
  }
}

function isRegExp(pattern: string): boolean {
  try {
    return new RegExp(pattern, "u") instanceof RegExp;
  } catch {
    return false;
  }
}

/** A schema that refers to itself for the same value would be judged for ever. */
function checkLoops(places: ReadonlyMap<string, Place>): void {
  const done = new Set<string>();
  const open = new Set<string>();
  const visit = (pointer: string): void => {
    if (done.has(pointer)) return;
    if (open.has(pointer)) {
      throw new SchemaProblem(`${pointer === "" ? "the schema" : pointer} refers to itself without end`);
    }
    open.add(pointer);
    for (const next of places.get(pointer)?.same ?? []) visit(next);
    open.delete(pointer);
    done.add(pointer);
  };
  for (const pointer of places.keys()) visit(pointer);
}

const validators = new Map<Dialect, ValidateFunction>();

function metaValidator(dialect: Dialect): ValidateFunction {
  let validate = validators.get(dialect);
  if (validate === undefined) {
    const ajv = dialect === "2020-12" ? new Ajv2020({ strict: false }) : new Ajv({ strict: false });
    validate = ajv.getSchema(
      dialect === "2020-12"
        ? "https://json-schema.org/draft/2020-12/schema"
        : "http://json-schema.org/draft-07/schema",
    );
    if (validate === undefined) throw new Error(`Ajv has no meta-schema of ${dialect}`);
    validators.set(dialect, validate);
  }
  return validate;
}

function metaProblem(error: ErrorObject | undefined, schema: JsonMap): string {
  if (error === undefined) return "not a valid JSON Schema";
  const tokens = error.instancePath
    .split("/")
    .slice(1)
    .map((token) => token.replaceAll("~1", "/").replaceAll("~0", "~"));
  const value = tokens.reduce<unknown>(
    (parent, token) =>
      typeof parent === "object" && parent !== null ? (parent as JsonMap)[token] : undefined,
    schema,
  );
  const allowed: unknown = error.params.allowedValues;
  const choices = Array.isArray(allowed) ? `: ${allowed.join(", ")}` : "";
  const where = error.instancePath === "" ? "the schema" : error.instancePath;
  return `${where} ${error.message ?? "is not valid"}${choices}, got ${valueText(value)}`;
}
