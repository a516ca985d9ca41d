/** JSON values: their type, and turning anything into one. */

export type JsonValue =
  string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };
export type JsonObject = { readonly [key: string]: JsonValue };

/** True for an object that is neither null nor an array. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The type of a value in words: as `typeof`, but with `null` and `array`. */
export function typeName(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}

export class NotJsonError extends Error {
  override name = "NotJsonError";
}

/** Far below what the stack bears; a reader's JSON parser has limits of its own. */
const maxDepth = 1000;

/**
 * `value` as plain JSON: `toJSON` honoured, undefined members left out, numbers that JSON lacks as null, as
 * JSON.stringify does.
 *
 * @throws NotJsonError for a cycle, a BigInt, a function or a symbol, naming the path; for more than 1,000 levels
 */
export function toJsonValue(value: unknown): JsonValue {
  return convert(value, "$", new Set());
}

function convert(input: unknown, path: string, parents: Set<object>): JsonValue {
  let value = input;
  if (
    typeof value === "object" &&
    value !== null &&
    "toJSON" in value &&
    typeof value.toJSON === "function"
  ) {
    value = (value.toJSON as () => unknown)();
  }
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) ? value : null;
    case "undefined":
      return null;
    case "bigint":
      throw new NotJsonError(`a BigInt at ${path} has no JSON form; convert it to a string or a number`);
    case "function":
    case "symbol":
      throw new NotJsonError(`a ${typeof value} at ${path} has no JSON form`);
    case "object":
      break;
  }
  if (value === null) return null;
  const object = value;
  if (parents.has(object)) throw new NotJsonError(`a cycle at ${path}: the value contains itself`);
  if (parents.size >= maxDepth)
    throw new NotJsonError(`the value is nested more than ${maxDepth} levels deep`);
  parents.add(object);
  try {
    if (Array.isArray(object))
      // Unlike `map`, `Array.from` visits the holes of a sparse array, which JSON has as null.
      return Array.from(object, (item, index) => convert(item, `${path}[${index}]`, parents));
    const result: Record<string, JsonValue> = {};
    for (const [key, item] of Object.entries(object)) {
      if (item !== undefined) setOwn(result, key, convert(item, `${path}.${key}`, parents));
    }
    return result;
  } finally {
    parents.delete(object);
  }
}

/** As `target[key] = value`, but `__proto__` becomes a member like any other, as in JSON.parse. */
function setOwn(target: Record<string, JsonValue>, key: string, value: JsonValue): void {
  if (key === "__proto__")
    Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true });
  else target[key] = value;
}
