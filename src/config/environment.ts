/**
 * What the environment lays over the file. Owns: the names of the variables that are read, and which key each one
 * sets. Pure. Does not own: `${VAR}` inside the file.
 */
import { parseDocument } from "yaml";
import type { ConfigPath } from "../core/config-issues.ts";
import { isObject } from "../core/json.ts";
import { isSecretPath } from "../core/redact.ts";
import { handlerPrefix, type Environment } from "../runtime/settings.ts";
import { readings } from "./document.ts";

export interface Override {
  /** The variable. */
  readonly name: string;
  readonly path: ConfigPath;
  /** What its text can be read as, the likeliest first. */
  readonly readings: readonly unknown[];
}

/**
 * The overrides in `env` for the host and for the handlers that the configuration names; for any other handler the host
 * lays the environment over its contract. Empty variables are none.
 */
export function environmentOverrides(env: Environment, types: readonly string[]): Override[] {
  const overrides: Override[] = [];
  const add = (name: string, path: ConfigPath, text: string): void => {
    overrides.push({ name, path, readings: overrideReadings(text, isSecretPath(path)) });
  };
  const { ONEX_HTTP_PORT: httpPort } = env;
  if (httpPort !== undefined && httpPort !== "") add("ONEX_HTTP_PORT", ["health", "port"], httpPort);
  const { KAFKA_BOOTSTRAP_SERVERS: servers } = env;
  if (servers !== undefined && servers !== "") {
    add("KAFKA_BOOTSTRAP_SERVERS", ["event_bus", "bootstrap_servers"], servers);
    overrides.push({ name: "KAFKA_BOOTSTRAP_SERVERS", path: ["event_bus", "type"], readings: ["kafka"] });
  }
  // Of two types where one's prefix begins with the other's, the longer one is meant.
  const prefixes = types
    .map((type) => ({ type, prefix: handlerPrefix(type) }))
    .sort((a, b) => b.prefix.length - a.prefix.length);
  for (const [name, text] of Object.entries(env)) {
    if (text === undefined || text === "") continue;
    const match = prefixes.find(({ prefix }) => name.startsWith(prefix) && name.length > prefix.length);
    if (match === undefined) continue;
    add(name, ["handlers", match.type, name.slice(match.prefix.length).toLowerCase()], text);
  }
  return overrides;
}

/** A variable's text may also be a list or a map in YAML's flow form (`[a, b]`), or a text in quotes. */
function overrideReadings(text: string, secret: boolean): unknown[] {
  const plain = readings(text, secret);
  if (!/^\s*["'[{]/.test(text)) return plain;
  const document = parseDocument(text);
  return document.errors.length > 0 ? plain : [document.toJS(), ...plain];
}

/** `document` with the overrides' first readings in place. */
export function withOverrides(document: unknown, overrides: readonly Override[]): unknown {
  return overrides.reduce(
    (value, override) => withValue(value, override.path, override.readings[0]),
    document,
  );
}

/** A copy of `root` with `value` at `path`; objects on the way are made. Something else in the way stays as it is. */
export function withValue(root: unknown, path: ConfigPath, value: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return value;
  if (Array.isArray(root) && typeof key === "number") {
    return root.map((item: unknown, index) => (index === key ? withValue(item, rest, value) : item));
  }
  if (root !== undefined && root !== null && !isObject(root)) return root;
  return { ...root, [key]: withValue(root?.[key], rest, value) };
}
