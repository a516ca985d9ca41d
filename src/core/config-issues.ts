/**
 * What is wrong with a configuration value, in words. Owns: the message texts, the nearest known key, and turning a
 * zod result into them. Does not own: where the value stood in a file (`config/load.ts`) or any schema.
 */
import { closest, distance } from "fastest-levenshtein";
import { z } from "zod";
import { isObject, typeName } from "./json.ts";
import { redact } from "./redact.ts";

export type ConfigPath = readonly (string | number)[];

export interface ConfigIssue {
  readonly path: ConfigPath;
  /** Names the key and, unless the type is wrong or the value secret, shows the value. */
  readonly message: string;
  /** For an unknown key: the known key that is most like it. */
  readonly nearest?: string;
  /** The type that was wanted, where a value of another type was found. */
  readonly expectedType?: string;
}

/** `handlers.mcp.api_keys[0].role` */
export function pathText(path: ConfigPath): string {
  return path.reduce<string>(
    (text, part) => (typeof part === "number" ? `${text}[${part}]` : text === "" ? part : `${text}.${part}`),
    "",
  );
}

export const missingKey = (path: ConfigPath): ConfigIssue => ({
  path,
  message: `Missing required config: '${pathText(path)}'. Must be set in .env or the runtime config.`,
});

export const missingVariable = (path: ConfigPath, name: string): ConfigIssue => ({
  path,
  message: `Config key '${pathText(path)}' needs the environment variable ${name}, which is not set and has no default.`,
});

export const wrongType = (path: ConfigPath, expected: string, value: unknown): ConfigIssue => ({
  path,
  message: `Invalid config type for '${pathText(path) || "configuration"}': expected ${expected}, got ${typeName(value)}`,
  expectedType: expected,
});

/** @param expected a noun phrase: `at most 300` */
export const wrongValue = (path: ConfigPath, expected: string, value: unknown): ConfigIssue => ({
  path,
  message: `Invalid config value for '${pathText(path)}': expected ${expected}, got ${valueText(value, path)}`,
});

function unknownKey(path: ConfigPath, known: readonly string[]): ConfigIssue {
  const key = String(path.at(-1));
  const nearest = nearestKey(key, known);
  const message = `Unknown config key '${pathText(path)}'.`;
  return nearest === undefined
    ? { path, message }
    : { path, message: `${message} Did you mean '${nearest}'?`, nearest };
}

/** The key that `key` is probably a misspelling of: at most a third of its letters differ, two in a short one. */
export function nearestKey(key: string, known: readonly string[]): string | undefined {
  if (known.length === 0) return undefined;
  const candidate = closest(key, known);
  return distance(key, candidate) <= Math.max(2, Math.floor(key.length / 3)) ? candidate : undefined;
}

/** Every issue of `value` against `schema`; messages name paths relative to the schema's root. */
export function schemaIssues(schema: z.ZodType, value: unknown): ConfigIssue[] {
  const result = schema.safeParse(value);
  return result.success ? [] : result.error.issues.flatMap((issue) => fromZod(issue, schema, value));
}

/** The keys that a schema's object at `path` knows; empty where it is no object with known keys. */
function knownKeys(schema: z.ZodType, path: ConfigPath): string[] {
  const end = schemaAt(schema, path);
  return end instanceof z.ZodObject ? Object.keys(end.shape) : [];
}

function schemaAt(schema: z.ZodType, path: ConfigPath): unknown {
  let current = unwrap(schema);
  for (const part of path) {
    if (current instanceof z.ZodObject) current = unwrap(current.shape[part] ?? current.def.catchall);
    else if (current instanceof z.ZodRecord) current = unwrap(current.valueType);
    else if (current instanceof z.ZodArray) current = unwrap(current.element);
    else return undefined;
  }
  return current;
}

/** A copy in which a key without a value (`key:` in YAML) is absent, at every depth of objects. */
export function withoutNulls(value: unknown): unknown {
  if (!isObject(value)) return Array.isArray(value) ? value.map(withoutNulls) : value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, item]) => item !== null && item !== undefined)
      .map(([key, item]) => [key, withoutNulls(item)]),
  );
}

/** The value at `path`, or undefined. */
export function valueAt(value: unknown, path: ConfigPath): unknown {
  return path.reduce<unknown>(
    (current, part) =>
      typeof current === "object" && current !== null && Object.hasOwn(current, part)
        ? (current as Record<string | number, unknown>)[part]
        : undefined,
    value,
  );
}

function unwrap(schema: unknown): unknown {
  let inner = schema;
  while (
    inner instanceof z.ZodOptional ||
    inner instanceof z.ZodDefault ||
    inner instanceof z.ZodPrefault ||
    inner instanceof z.ZodNullable
  )
    inner = inner.unwrap();
  return inner;
}

function fromZod(issue: z.core.$ZodIssue, schema: z.ZodType, root: unknown): ConfigIssue[] {
  const path = issue.path.map((part) => (typeof part === "number" ? part : String(part)));
  const value = valueAt(root, path);
  switch (issue.code) {
    case "invalid_type":
      if (value === undefined && path.length > 0) return [missingKey(path)];
      return [wrongType(path, typeWord(issue.expected, schemaAt(schema, path)), value)];
    case "unrecognized_keys":
      return issue.keys.map((key) => unknownKey([...path, key], knownKeys(schema, path)));
    case "too_small":
      return [wrongValue(path, `${atLeast(issue.origin)} ${String(issue.minimum)}`, value)];
    case "too_big":
      return [wrongValue(path, `${atMost(issue.origin)} ${String(issue.maximum)}`, value)];
    case "invalid_value": {
      if (value === undefined) return [missingKey(path)];
      // A message of the schema's own begins in lower case; zod's begin with a capital.
      const expected = /^[a-z]/.test(issue.message) ? issue.message : issue.values.map(String).join(" or ");
      return [wrongValue(path, expected, value)];
    }
    case "invalid_key":
      return [wrongValue(path, issue.issues[0]?.message ?? "another key", String(path.at(-1)))];
    case "invalid_format":
    case "invalid_union":
    case "custom":
    case "not_multiple_of":
    case "invalid_element":
      return [wrongValue(path, issue.message, value)];
  }
}

function typeWord(expected: string, schema: unknown): string {
  if (expected === "int" || schema instanceof z.ZodNumberFormat) return "integer";
  return expected === "record" ? "object" : expected;
}

const atLeast = (origin: string): string => (origin === "string" ? "a length of at least" : "at least");
const atMost = (origin: string): string => (origin === "string" ? "a length of at most" : "at most");

/** Longer values are cut: a message is one line of a list. */
const maxValueLength = 120;

function valueText(value: unknown, path: ConfigPath): string {
  const text = JSON.stringify(redact(value, [], path)) as string | undefined;
  if (text === undefined) return "the default";
  return text.length > maxValueLength ? `${text.slice(0, maxValueLength)}…` : text;
}
