/**
 * Normalises the JSON Schemas of tools: one odd schema makes real clients refuse a server's whole list, so what is served
 * is self-contained, valid and of a shape all of them take. Owns the order of the steps and the root's rules.
 *
 * 1. The result depends on the input alone, and normalising it again changes nothing.
 * 2. Nothing is thrown, whatever is handed in: a schema that cannot be mended is a value that says why.
 */
import { messageOf } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { withoutBadMarks } from "./header-marks.ts";
import { bundle, type LoadDocument } from "./schema-bundle.ts";
import { checkSchema } from "./schema-check.ts";
import {
  copyJson,
  isMap,
  type Json,
  type JsonMap,
  maxSchemaBytes,
  SchemaProblem,
  tooLarge,
} from "./schema-json.ts";
import { repair } from "./schema-repair.ts";

export type NormalisedSchema =
  | { readonly ok: true; readonly schema: JsonObject; readonly repairs: readonly string[] }
  | { readonly ok: false; readonly problem: string };

export type SchemaRole = "input" | "output";

/** Reads a file that a schema refers to; a refusal is thrown as an Error. */
export type ReadSchemaFile = (file: string) => Promise<unknown>;

/** The schema of a tool's arguments; absent means any object. Roots are of `type: object`. */
export function normaliseInputSchema(schema: unknown): NormalisedSchema {
  return normalise(schema, "input", undefined, noFiles) ?? { ok: false, problem: "it refers to files" };
}

/** The schema of a tool's result; its root may be of any type. */
export function normaliseOutputSchema(schema: unknown): NormalisedSchema {
  return normalise(schema, "output", undefined, noFiles) ?? { ok: false, problem: "it refers to files" };
}

/** Of a schema that stands in a file and may refer to others, relative to it. */
export async function normaliseFileSchema(
  schema: unknown,
  role: SchemaRole,
  file: string,
  read: ReadSchemaFile,
): Promise<NormalisedSchema> {
  const documents = new Map<string, Json | SchemaProblem>();
  for (;;) {
    const wanted: string[] = [];
    const load: LoadDocument = (path) => {
      const document = documents.get(path);
      if (document instanceof SchemaProblem) throw document;
      if (document === undefined) wanted.push(path);
      return document;
    };
    const result = normalise(schema, role, file, load);
    if (result !== undefined) return result;
    for (const path of wanted) documents.set(path, await readDocument(path, read));
  }
}

async function readDocument(path: string, read: ReadSchemaFile): Promise<Json | SchemaProblem> {
  try {
    // Parsed YAML is JSON but for infinities and odd keys, which the final copy refuses.
    return ((await read(path)) ?? null) as Json;
  } catch (error) {
    return new SchemaProblem(messageOf(error));
  }
}

const noFiles: LoadDocument = () => undefined;

/** Undefined where a file that is referred to has not been loaded yet. */
function normalise(
  input: unknown,
  role: SchemaRole,
  file: string | undefined,
  load: LoadDocument,
): NormalisedSchema | undefined {
  try {
    const repairs: string[] = [];
    const start = startFrom(input, role, repairs);
    const bundled = bundle(start, file, load);
    if (bundled === undefined) return undefined;
    const copied = copyJson(bundled.schema) as JsonMap;
    const repaired = repair(copied, repairs);
    const schema = role === "input" ? withoutBadMarks(objectRoot(repaired, repairs), repairs) : repaired;
    checkSchema(schema, bundled.dialect);
    if (Buffer.byteLength(JSON.stringify(schema)) > maxSchemaBytes) throw new SchemaProblem(tooLarge);
    return { ok: true, schema, repairs };
  } catch (error) {
    // A JSON file may nest deeper than any walk can follow.
    return { ok: false, problem: error instanceof RangeError ? "it is nested too deeply" : messageOf(error) };
  }
}

function startFrom(input: unknown, role: SchemaRole, repairs: string[]): JsonMap {
  if (role === "input" && (input === undefined || input === null || input === true)) {
    repairs.push("no schema of the arguments: any object is accepted");
    return { type: "object" };
  }
  if (input === false) throw new SchemaProblem("false accepts nothing");
  if (input === true) return {};
  const copy = copyJson(input);
  if (!isMap(copy)) throw new SchemaProblem("expected a JSON Schema: an object");
  return copy;
}

/** Arguments are always an object; every client wants the root to say so, and in one word. */
function objectRoot(schema: JsonMap, repairs: string[]): JsonMap {
  const { type } = schema;
  if (type === "object") return schema;
  if (type === undefined) {
    repairs.push("the schema: type: object is added");
    const { $schema, ...rest } = schema;
    return { ...($schema === undefined ? {} : { $schema }), type: "object", ...rest };
  }
  if (Array.isArray(type) && type.includes("object")) {
    repairs.push("the schema: of its types only object can be an argument list");
    return { ...schema, type: "object" };
  }
  throw new SchemaProblem(`the root's type must be object, got ${JSON.stringify(type)}`);
}
