/**
 * A handler's configuration. Owns: laying its three layers over one another. Does not own: reading the configuration
 * file, or checking values: each handler checks its own.
 *
 * Each layer wins over the one before, key by key: what its contract says, its own section, the environment's
 * `HANDLER_<TYPE>_<FIELD>`. Nothing else reaches a handler.
 */
import { parseDocument } from "yaml";
import type { HandlerConfig } from "./handler.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * @param section with the environment laid over it already, as the configuration is read; undefined where the
 *   configuration does not name the handler, and the environment is laid over what its contract says
 * @param types every handler's type: `HANDLER_MCP_PROXY_PORT` is `port` of `mcp_proxy` where there is such a handler,
 *   and not `proxy_port` of `mcp`
 */
export function handlerConfig(
  type: string,
  types: readonly string[],
  contractDefaults: HandlerConfig,
  section: HandlerConfig | undefined,
  env: Environment,
): HandlerConfig {
  if (section !== undefined) return Object.freeze({ ...contractDefaults, ...section });
  const prefix = handlerPrefix(type);
  const longer = types.map(handlerPrefix).filter((other) => other.startsWith(prefix) && other !== prefix);
  const fromEnvironment: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(env)) {
    // An empty variable counts as not set, as in most .env files.
    if (value === undefined || value === "" || !name.startsWith(prefix) || name === prefix) continue;
    if (longer.some((other) => name.startsWith(other))) continue;
    fromEnvironment[name.slice(prefix.length).toLowerCase()] = environmentValue(value);
  }
  return Object.freeze({ ...contractDefaults, ...fromEnvironment });
}

/** How the variables begin that set keys of this handler. */
export const handlerPrefix = (type: string): string =>
  `HANDLER_${type.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_")}_`;

/**
 * The value as YAML reads it: `8090` a number, `true` a boolean, `[a, b]` a list, `"8090"` a string. Text without quotes
 * stays as it is, also where YAML would see a comment, an alias or a tag in it.
 */
function environmentValue(text: string): unknown {
  let value: unknown;
  try {
    const document = parseDocument(text);
    value = document.errors.length > 0 ? text : document.toJS();
  } catch {
    return text;
  }
  if (/^\s*["'[{]/.test(text) || typeof value === "number" || typeof value === "boolean") return value;
  return text;
}
