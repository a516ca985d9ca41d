/**
 * JSON as it is while a schema is worked on: a private copy that may be changed, within limits. Owns the limits and the
 * error by which any step gives a schema up.
 */

export type Json = null | boolean | number | string | Json[] | JsonMap;
export interface JsonMap {
  [key: string]: Json;
}

/** Why a schema cannot be served. Thrown by the steps, caught where normalising begins. */
export class SchemaProblem extends Error {
  override name = "SchemaProblem";
}

/** Bytes of one schema as JSON, with all it refers to. */
export const maxSchemaBytes = 256 * 1024;
/** Containers within each other in one schema. */
const maxSchemaDepth = 64;

export const tooLarge = `the schema has more than ${maxSchemaBytes / 1024} KiB with what it refers to`;

export const isMap = (value: unknown): value is JsonMap =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Keys as a JSON pointer, `""` for the root. */
export const pointerText = (tokens: readonly string[]): string =>
  tokens.map((token) => `/${token.replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");

/**
 * A deep copy that shares nothing with `value`, whatever was handed in.
 *
 * @throws SchemaProblem for what is not JSON, is too large or too deep, or contains itself
 */
export function copyJson(value: unknown): Json {
  let budget = maxSchemaBytes;
  const spend = (bytes: number): void => {
    budget -= bytes;
    if (budget < 0) throw new SchemaProblem(tooLarge);
  };
  const copy = (item: unknown, tokens: readonly string[]): Json => {
    if (tokens.length > maxSchemaDepth) {
      throw new SchemaProblem(
        `the schema is nested more than ${maxSchemaDepth} levels deep, or contains itself`,
      );
    }
    if (item === null || typeof item === "boolean") {
      spend(4);
      return item;
    }
    if (typeof item === "string") {
      spend(item.length + 2);
      if (!item.isWellFormed()) throw new SchemaProblem(`${place(tokens)} is not valid Unicode`);
      return item;
    }
    if (typeof item === "number" && Number.isFinite(item)) {
      spend(1);
      return item;
    }
    if (Array.isArray(item)) {
      spend(item.length + 2);
      return item.map((element: unknown, index) => copy(element, [...tokens, String(index)]));
    }
    if (typeof item !== "object") {
      throw new SchemaProblem(
        `${place(tokens)} is not JSON but ${typeof item === "number" ? "not a finite number" : `a ${typeof item}`}`,
      );
    }
    const result: JsonMap = {};
    for (const [key, member] of Object.entries(item)) {
      if (member === undefined) continue;
      if (key === "__proto__" || !key.isWellFormed()) {
        throw new SchemaProblem(
          `${place(tokens)} has the key ${JSON.stringify(key)}, which no client accepts`,
        );
      }
      spend(key.length + 4);
      result[key] = copy(member, [...tokens, key]);
    }
    return result;
  };
  return copy(value, []);
}

const place = (tokens: readonly string[]): string =>
  tokens.length === 0 ? "the schema" : pointerText(tokens);
