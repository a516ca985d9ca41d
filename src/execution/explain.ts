/** Ajv's errors as sentences for whoever made the call: where, what was expected, what was there. */
import type { ErrorObject } from "ajv";
import { closest, distance } from "fastest-levenshtein";
import { escapePointer } from "./limits.ts";

/** More problems than a reader takes in at once are only counted. */
const maxProblems = 10;
const maxValueLength = 60;
const maxChoices = 12;

/** One line per problem, without repetitions, at most ten and a count of the rest. Never empty. */
export function explain(errors: readonly ErrorObject[]): readonly string[] {
  const lines = new Set<string>();
  for (const error of merged(errors)) lines.add(line(error));
  const all = [...lines];
  if (all.length <= maxProblems) return all.length === 0 ? ["not valid"] : all;
  return [...all.slice(0, maxProblems), `and ${all.length - maxProblems} more`];
}

/** The JSON pointers that `errors` speak of, without the values found there: fit for a log. */
export function pathsOf(errors: readonly ErrorObject[]): readonly string[] {
  const paths = new Set(errors.map((error) => `${error.instancePath}${memberOf(error)}`));
  return [...paths].slice(0, maxProblems);
}

function memberOf({ keyword, params }: ErrorObject): string {
  const name: unknown = keyword === "required" ? params.missingProperty : undefined;
  return typeof name === "string" ? `/${escapePointer(name)}` : "";
}

/**
 * The branches of an `anyOf` each complain that the type is wrong: one complaint that lists the types says it better,
 * and the umbrella error over branches that have complained says nothing more.
 */
function merged(errors: readonly ErrorObject[]): readonly ErrorObject[] {
  const typeErrors = new Map<string, { error: ErrorObject; types: Set<string> }>();
  const rest: ErrorObject[] = [];
  for (const error of errors) {
    if (error.keyword !== "type") {
      rest.push(error);
      continue;
    }
    const types = [error.params.type as string | string[]].flat();
    const known = typeErrors.get(error.instancePath);
    if (known === undefined) typeErrors.set(error.instancePath, { error, types: new Set(types) });
    else for (const type of types) known.types.add(type);
  }
  const typed = [...typeErrors.values()].map(({ error, types }) => ({
    ...error,
    params: { type: [...types] },
  }));
  const all = [...typed, ...rest];
  const details = all.filter((error) => !isUmbrella(error));
  return details.length > 0 ? details : all;
}

/** True for an error that only says that something below it failed. */
function isUmbrella({ keyword, params }: ErrorObject): boolean {
  if (keyword === "oneOf") return params.passingSchemas === null;
  return keyword === "anyOf" || keyword === "if" || keyword === "propertyNames";
}

function line(error: ErrorObject): string {
  const where = error.instancePath === "" ? "" : `${error.instancePath}: `;
  return `${where}${sentence(error)}`;
}

function sentence(error: ErrorObject): string {
  const { keyword, data } = error;
  const params = error.params as Readonly<Record<string, unknown>>;
  switch (keyword) {
    case "required":
      return `missing required property ${quote(params.missingProperty)}`;
    case "dependentRequired":
    case "dependencies":
      return `missing property ${quote(params.missingProperty)}, which ${quote(params.property)} requires`;
    case "additionalProperties":
      return unknownProperty(params.additionalProperty, error.parentSchema);
    case "unevaluatedProperties":
      return unknownProperty(params.unevaluatedProperty, error.parentSchema);
    case "type":
      return `expected ${[params.type].flat().join(" or ")}, got ${shown(data)}`;
    case "enum":
      return expectedOneOf(params.allowedValues, data);
    case "const":
      return `expected ${literal(params.allowedValue)}, got ${shown(data)}`;
    case "minimum":
    case "maximum":
    case "exclusiveMinimum":
    case "exclusiveMaximum":
      return `expected a number ${String(params.comparison)} ${String(params.limit)}, got ${literal(data)}`;
    case "multipleOf":
      return `expected a multiple of ${String(params.multipleOf)}, got ${literal(data)}`;
    case "minLength":
    case "maxLength":
      return `expected ${bound(keyword, params.limit)} characters, got ${literal(data)}`;
    case "minItems":
    case "maxItems":
      return `expected ${bound(keyword, params.limit)} items, got ${(data as readonly unknown[]).length}`;
    case "minProperties":
    case "maxProperties":
      return `expected ${bound(keyword, params.limit)} properties, got ${Object.keys(data as object).length}`;
    case "pattern":
      return `expected text that matches ${String(params.pattern)}, got ${literal(data)}`;
    case "format":
      return `expected text of the format ${String(params.format)}, got ${literal(data)}`;
    case "uniqueItems":
      return `expected items that differ, but items ${String(params.j)} and ${String(params.i)} are equal`;
    case "oneOf":
      return "matches more than one of the forms of which it may match only one";
    case "not":
    case "false schema":
      return `not allowed here: ${shown(data)}`;
    default:
      return error.message ?? `breaks the rule ${quote(keyword)}`;
  }
}

const bound = (keyword: string, limit: unknown): string =>
  `${keyword.startsWith("min") ? "at least" : "at most"} ${String(limit)}`;

function unknownProperty(name: unknown, parentSchema: unknown): string {
  const properties = (parentSchema as { readonly properties?: object } | undefined)?.properties;
  const guess = nearest(String(name), Object.keys(properties ?? {}));
  return `unknown property ${quote(name)}${guess === undefined ? "" : `; did you mean ${quote(guess)}?`}`;
}

function expectedOneOf(allowed: unknown, data: unknown): string {
  const values = Array.isArray(allowed) ? (allowed as readonly unknown[]) : [];
  const choices = values.slice(0, maxChoices).map(literal).join(", ");
  const more = values.length > maxChoices ? ` or ${values.length - maxChoices} others` : "";
  const names = values.filter((value) => typeof value === "string");
  const guess = typeof data === "string" ? nearest(data, names) : undefined;
  return `expected one of ${choices}${more}, got ${shown(data)}${guess === undefined ? "" : `; did you mean ${quote(guess)}?`}`;
}

/** The candidate that `name` is most likely a slip of, if any is near enough. */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  // The distance of two long texts costs their product; nobody mistypes a name of that length.
  if (candidates.length === 0 || name.length > 100) return undefined;
  const guess = closest(name, candidates);
  return distance(name, guess) <= Math.max(1, Math.floor(guess.length / 3)) ? guess : undefined;
}

/** The type and, for a scalar, the value. */
function shown(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "object") return "object";
  return `${typeof value} (${literal(value)})`;
}

const quote = (value: unknown): string => literal(String(value));

function literal(value: unknown): string {
  // A long text is cut before it is escaped, not after.
  const cut = typeof value === "string" && value.length > maxValueLength;
  const text = cut
    ? JSON.stringify(value.slice(0, maxValueLength))
    : value === undefined
      ? "nothing"
      : JSON.stringify(value);
  return cut || text.length > maxValueLength + 2 ? `${text.slice(0, maxValueLength)}…` : text;
}
