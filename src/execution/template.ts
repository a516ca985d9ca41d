/**
 * Templates with `{placeholders}`: read once per tool, filled once per call. Owns: URL, query, header and body encoding.
 * Does not own: sending.
 */
import { ProtocolConfigurationError } from "../core/errors.ts";
import { isObject, type JsonValue } from "../core/json.ts";

type Arguments = Readonly<Record<string, unknown>>;

/** An argument that cannot be put where its placeholder stands. `argument` names it. */
export class PlaceholderError extends Error {
  override readonly name = "PlaceholderError";
  readonly argument: string;
  constructor(argument: string, reason: string) {
    super(`/${argument}: ${reason}`);
    this.argument = argument;
  }
}

/** Text and placeholders in turn: texts[0] names[0] texts[1] names[1] … texts[n]. */
export interface Template {
  readonly texts: readonly string[];
  readonly names: readonly string[];
}

const placeholder = /\{([A-Za-z_][\w.-]*)\}/;

/** Reads `{name}` placeholders; any other brace is text. */
export function parseTemplate(text: string): Template {
  const parts = text.split(placeholder);
  return {
    texts: parts.filter((_part, index) => index % 2 === 0),
    names: parts.filter((_part, index) => index % 2 === 1),
  };
}

/** The name, where the template is exactly one placeholder. */
export const onlyName = ({ texts, names }: Template): string | undefined =>
  names.length === 1 && texts.every((text) => text === "") ? names[0] : undefined;

/** The argument, unless it is absent or null. Only what the caller sent counts, not what objects inherit. */
export function argumentOf(args: Arguments, name: string): unknown {
  return Object.hasOwn(args, name) ? (args[name] ?? undefined) : undefined;
}

/** @throws PlaceholderError where the argument is absent or has no plain text form */
function textOf(args: Arguments, name: string, where: string): string {
  const value = argumentOf(args, name);
  if (value === undefined) throw new PlaceholderError(name, `required: it is part of ${where}`);
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  throw new PlaceholderError(
    name,
    `expected a string, a number or a boolean, as it is part of ${where}, got ${Array.isArray(value) ? "array" : typeof value}`,
  );
}

/** @throws PlaceholderError as `textOf` */
export function fillText(template: Template, args: Arguments, where: string): string {
  let text = template.texts[0] ?? "";
  for (const [index, name] of template.names.entries())
    text += textOf(args, name, where) + (template.texts[index + 1] ?? "");
  return text;
}

/** Percent-encoding of one component; a lone surrogate becomes U+FFFD rather than an error. */
const encode = (text: string): string => encodeURIComponent(text.toWellFormed());

/** A literal part of a URL as it may stand in a request line; what is encoded already stays. */
const encodeLiteral = (text: string): string =>
  text.toWellFormed().replaceAll(/[^\x21-\x7e]|["<>\\^`{|}]/gu, encodeURIComponent);

export interface UrlTemplate {
  /** Scheme, host and port: the same for every call. */
  readonly origin: string;
  readonly names: readonly string[];
  /** Path and query. @throws PlaceholderError where an argument is absent or would change the path's shape */
  fill(args: Arguments): string;
}

/**
 * Reads an absolute http(s) URL with placeholders in its path and query.
 *
 * @throws ProtocolConfigurationError where it is not one, or scheme, host or port hold a placeholder
 */
export function parseUrl(text: string): UrlTemplate {
  const [, authority, rest] = /^(https?:\/\/[^/?#]*)([^#]*)/i.exec(text) ?? [];
  if (authority === undefined || rest === undefined)
    throw new ProtocolConfigurationError(`the URL must start with http:// or https://, got ${quote(text)}`);
  const origin = originOf(authority);
  const mark = rest.indexOf("?");
  const path = parseTemplate(mark === -1 ? rest : rest.slice(0, mark));
  const query = parseTemplate(mark === -1 ? "" : rest.slice(mark));
  const encoded = (template: Template): Template => ({
    texts: template.texts.map(encodeLiteral),
    names: template.names,
  });
  const [pathParts, queryParts] = [encoded(path), encoded(query)];
  return {
    origin,
    names: [...path.names, ...query.names],
    fill: (args) => fillPath(pathParts, args) + fillEncoded(queryParts, args),
  };
}

/**
 * Scheme, host and port of an absolute http(s) URL, in canonical form.
 *
 * @throws ProtocolConfigurationError where it is not one, holds a placeholder there, or credentials
 */
export function originOf(text: string): string {
  const authority = /^https?:\/\/[^/?#]*/i.exec(text)?.[0] ?? "";
  if (/[{}]/.test(authority))
    throw new ProtocolConfigurationError(
      `a placeholder may stand in the path, the query, a header or the body, not in scheme, host or port: ${quote(authority)}`,
    );
  const url = authority === "" || !URL.canParse(authority) ? undefined : new URL(authority);
  if (url === undefined || url.hostname === "")
    throw new ProtocolConfigurationError(`not an absolute http or https URL: ${quote(text)}`);
  if (url.username !== "" || url.password !== "")
    throw new ProtocolConfigurationError("credentials belong into a header, not into the URL");
  return url.origin;
}

const quote = (text: string): string => JSON.stringify(text.slice(0, 200));

function fillEncoded(template: Template, args: Arguments): string {
  let text = template.texts[0] ?? "";
  for (const [index, name] of template.names.entries())
    text += encode(textOf(args, name, "the URL")) + (template.texts[index + 1] ?? "");
  return text;
}

function fillPath(template: Template, args: Arguments): string {
  for (const name of template.names) {
    // An empty segment is another resource: DELETE /users/{id} would become DELETE /users/.
    if (textOf(args, name, "the URL") === "")
      throw new PlaceholderError(name, "may not be empty: it is part of the URL's path");
  }
  const path = fillEncoded(template, args);
  const bad = template.names[0];
  if (bad !== undefined && path.split("/").some((segment) => segment === "." || segment === ".."))
    throw new PlaceholderError(bad, '"." and ".." may not be a segment of the URL\'s path');
  return path.startsWith("/") ? path : `/${path}`;
}

/** Writes `name=value` pairs: arrays repeated, objects as JSON, null and absent left out. */
export function appendQuery(pairs: string[], name: string, value: unknown): void {
  if (value === undefined || value === null) return;
  if (Array.isArray(value)) {
    for (const item of value) appendQuery(pairs, name, item);
    return;
  }
  const text = typeof value === "string" ? value : JSON.stringify(value);
  pairs.push(`${encode(name)}=${encode(text)}`);
}

export interface ValueTemplate {
  readonly names: readonly string[];
  /** Undefined where the whole value is one placeholder whose argument is absent. */
  fill(args: Arguments): unknown;
}

/**
 * A JSON value as a template: a string that is exactly `{name}` becomes that argument with its type, a placeholder
 * inside a longer string becomes text. A member whose whole value is an absent argument is left out.
 */
export function parseValue(value: JsonValue, where: string): ValueTemplate {
  if (typeof value === "string") {
    const template = parseTemplate(value);
    const name = onlyName(template);
    if (name !== undefined) return { names: [name], fill: (args) => wholeArgument(args, name) };
    return {
      names: template.names,
      fill: template.names.length === 0 ? () => value : (args) => fillText(template, args, where),
    };
  }
  if (Array.isArray(value)) {
    const items = (value as readonly JsonValue[]).map((item) => parseValue(item, where));
    return {
      names: items.flatMap((item) => item.names),
      fill: (args) => items.map((item) => item.fill(args)).filter((item) => item !== undefined),
    };
  }
  if (isObject(value)) {
    const members = Object.entries(value as Readonly<Record<string, JsonValue>>).map(
      ([key, member]) => [key, parseValue(member, where)] as const,
    );
    return {
      names: members.flatMap(([, member]) => member.names),
      fill: (args) => Object.fromEntries(members.map(([key, member]) => [key, member.fill(args)])),
    };
  }
  return { names: [], fill: () => value };
}

const wholeArgument = (args: Arguments, name: string): unknown =>
  Object.hasOwn(args, name) ? args[name] : undefined;

/** Reads a JSON pointer (RFC 6901). @throws ProtocolConfigurationError where it is not one */
export function parsePointer(pointer: string): readonly string[] {
  if (pointer === "") return [];
  if (!pointer.startsWith("/"))
    throw new ProtocolConfigurationError(`a JSON pointer starts with "/", got ${quote(pointer)}`);
  return pointer
    .slice(1)
    .split("/")
    .map((segment) => segment.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** What stands at the pointer; undefined where nothing does. */
export function resolvePointer(value: unknown, segments: readonly string[]): unknown {
  let found = value;
  for (const segment of segments) {
    if (Array.isArray(found))
      found = /^(?:0|[1-9]\d*)$/.test(segment) ? (found[Number(segment)] as unknown) : undefined;
    else found = isObject(found) && Object.hasOwn(found, segment) ? found[segment] : undefined;
    if (found === undefined) return undefined;
  }
  return found;
}
