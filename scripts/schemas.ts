/**
 * Writes what is generated from the zod schemas: the JSON Schemas in `schemas/`, and the table of keys in
 * `docs/configuration.md`. Run `node scripts/schemas.ts` after a change of a schema; a test compares.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as prettier from "prettier";
import { z } from "zod";
import { publishedSchema } from "../src/config/schema.ts";
import { handlerContractSchema } from "../src/contract/handler.ts";
import { nodeContractSchema } from "../src/contract/node.ts";
import { registrationEventSchema } from "../src/discovery/registration-schema.ts";

const root = join(import.meta.dirname, "..");

interface Schema {
  readonly [keyword: string]: unknown;
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
}

/** Every generated file's text, by its path from the root. */
export async function generatedFiles(): Promise<Map<string, string>> {
  const docs = "docs/configuration.md";
  return new Map([
    ["schemas/runtime_config.schema.json", json(withVariables(configSchema()))],
    ["schemas/node_contract.schema.json", json(jsonSchema(nodeContractSchema))],
    ["schemas/handler_contract.schema.json", json(jsonSchema(handlerContractSchema))],
    ["schemas/registration-event.schema.json", json(jsonSchema(registrationEventSchema))],
    [docs, await withTable(docs)],
  ]);
}

const jsonSchema = (schema: z.ZodType): Schema =>
  z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as Schema;

/** The runtime configuration's schema, before variables are let in. */
export const configSchema = (): Schema => jsonSchema(publishedSchema);

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

/** Where the file may say `${NAME}` an editor must accept it, whatever the key's own type is. */
function withVariables(schema: Schema): Schema {
  return {
    ...variablesIn(schema),
    $defs: {
      variable: {
        type: "string",
        pattern: "\\$\\{.+\\}",
        description: "A value from the environment: ${NAME}, ${NAME:-default}, ${env:NAME} or ${file:PATH}.",
      },
    },
  };
}

function variablesIn(schema: Schema): Schema {
  // The name of a variable is for the table of keys.
  const { environment: _environment, ...rest } = schema;
  if (rest.type !== "object") {
    const { description, default: fallback, ...own } = rest;
    const withItems = own.items === undefined ? own : { ...own, items: variablesIn(own.items) };
    if (Object.keys(own).join() === "type" && own.type === "string") return rest;
    return {
      ...(description === undefined ? {} : { description }),
      ...(fallback === undefined ? {} : { default: fallback }),
      anyOf: [withItems, { $ref: "#/$defs/variable" }],
    };
  }
  const { properties, additionalProperties } = rest;
  return {
    ...rest,
    ...(properties && {
      properties: Object.fromEntries(
        Object.entries(properties).map(([key, value]) => [key, variablesIn(value)]),
      ),
    }),
    ...(typeof additionalProperties === "object" && {
      additionalProperties: variablesIn(additionalProperties),
    }),
  };
}

export interface KeyRow {
  readonly key: string;
  readonly section: string;
  readonly type: string;
  /** As YAML; undefined: none. */
  readonly default: string | undefined;
  readonly range: string;
  readonly environment: string;
  readonly meaning: string;
}

/** A row for every key of the configuration, in the schema's order. */
export const keyRows = (): KeyRow[] => rowsOf(configSchema(), "");

function rowsOf(schema: Schema, section: string): KeyRow[] {
  const rows: KeyRow[] = [];
  const below: KeyRow[] = [];
  for (const [key, value] of Object.entries(schema.properties ?? {})) {
    const path = section === "" ? key : `${section}.${key}`;
    if (value.type === "object") {
      below.push(...rowsOf(value, path));
      continue;
    }
    rows.push(rowOf(key, value, section));
    if (value.items?.type === "object") below.push(...rowsOf(value.items, `${path}[]`));
  }
  if (typeof schema.additionalProperties === "object" && schema.additionalProperties.properties)
    below.push(...rowsOf(schema.additionalProperties, `${section}.<type>`));
  return [...rows, ...below];
}

function rowOf(key: string, schema: Schema, section: string): KeyRow {
  const handler = /^handlers\.([^.[]+)$/.exec(section)?.[1];
  const own = typeof schema.environment === "string" ? schema.environment : undefined;
  const overridden = handler === undefined || key === "required" ? undefined : handler.toUpperCase();
  const override = overridden === undefined ? "" : `HANDLER_${overridden}_${key.toUpperCase()}`;
  return {
    key,
    section,
    type: typeText(schema),
    default: schema.default === undefined ? undefined : JSON.stringify(schema.default),
    range: rangeText(schema),
    environment: own ?? override,
    meaning: schema.description ?? "",
  };
}

function typeText(schema: Schema): string {
  if (schema.anyOf)
    return schema.anyOf.map((one) => ("const" in one ? String(one.const) : typeText(one))).join(" or ");
  if (schema.type === "array") return `list of ${typeText(schema.items ?? {})}`;
  return schema.type ?? "any";
}

function rangeText(schema: Schema): string {
  const [first] = schema.anyOf ?? [];
  if (first) return rangeText(first);
  if (Array.isArray(schema.enum)) return schema.enum.join(", ");
  const { minimum, maximum, minLength } = schema;
  if (typeof minimum === "number" && typeof maximum === "number") return `${minimum}..${maximum}`;
  if (typeof minLength === "number" && minLength > 1) return `at least ${minLength} characters`;
  return "";
}

const tableStart = "<!-- generated by scripts/schemas.ts: begin -->";
const tableEnd = "<!-- generated by scripts/schemas.ts: end -->";

async function withTable(path: string): Promise<string> {
  const file = join(root, path);
  const text = await readFile(file, "utf8");
  const [before, rest] = split(text, tableStart, path);
  const [, after] = split(rest, tableEnd, path);
  const generated = `${before}${tableStart}\n\n${table()}\n\n${tableEnd}${after}`;
  return prettier.format(generated, { ...(await prettier.resolveConfig(file)), filepath: file });
}

function split(text: string, mark: string, path: string): [string, string] {
  const at = text.indexOf(mark);
  if (at === -1) throw new Error(`${path} has no line ${mark}`);
  return [text.slice(0, at), text.slice(at + mark.length)];
}

function table(): string {
  const code = (text: string): string => (text === "" ? "" : `\`${text.replaceAll("|", "\\|")}\``);
  const rows = keyRows().map((row) =>
    [
      code(row.key),
      row.section === "" ? "top" : code(row.section),
      row.type,
      row.default === undefined ? "none" : code(row.default),
      row.range,
      code(row.environment),
      row.meaning.replaceAll("|", "\\|"),
    ].join(" | "),
  );
  const head = ["Key", "Section", "Type", "Default", "Range", "Environment", "Meaning"];
  return [head.join(" | "), head.map(() => "---").join(" | "), ...rows].map((row) => `| ${row} |`).join("\n");
}

if (import.meta.main) {
  for (const [path, text] of await generatedFiles()) await writeFile(join(root, path), text);
}
