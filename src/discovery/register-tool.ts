/**
 * What of a contract's tool others may be told: the service it is, instance by instance. Pure. Owns: which tools are
 * services at all, and that nothing secret leaves this machine. Does not own: registering (`register-service.ts`).
 *
 * 1. A value that came from the environment, or that stands where secrets stand, is never published: a tool that needs one
 *    is left out, with the reason. Only addresses may come from the environment.
 * 2. What is published is what is served: a contract file that has changed since is left out until it is served.
 */
import { expandVariables } from "../contract/expand.ts";
import { nodeContractSchema } from "../contract/node.ts";
import { type Env, expandExecution, onexExecution, restExecution } from "../contract/node-execution.ts";
import { pathText, type Problem } from "../contract/problems.ts";
import { isObject, type JsonObject } from "../core/json.ts";
import { isSecretPath } from "../core/redact.ts";
import type { Execution, Tool } from "../tools/tool.ts";

/** One address of a service. */
export interface ServiceAddress {
  readonly scheme: "http" | "https";
  /** An IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
  /** Begins with `/`, and ends with one only where it is nothing else. */
  readonly path: string;
  /** Without a slash at its end. */
  readonly url: string;
}

/** A tool that is a service over HTTP. */
export interface ToolService {
  readonly tool: Tool;
  /** The contract's node. */
  readonly serviceName: string;
  readonly addresses: readonly ServiceAddress[];
  /** How it is called at any of its addresses, as contracts and events write it. */
  readonly execution: JsonObject & { readonly kind: "onex" | "rest" };
}

/** The service, or why others are not told of it. */
export type ToolServiceReading =
  | { readonly ok: true; readonly service: ToolService }
  | { readonly ok: false; readonly tool: string; readonly reason: string };

/**
 * The service behind a tool of a contract file.
 *
 * @param document the contract as it is written
 * @param env what its variables were taken from
 */
export function toolService(tool: Tool, document: unknown, env: Env): ToolServiceReading {
  const refuse = (reason: string): ToolServiceReading => ({ ok: false, tool: tool.name, reason });
  const located = locate(tool.execution);
  if (typeof located === "string") return refuse(located);
  if (!isObject(document) || !isObject(document.mcp)) return refuse(changed);
  const written = withoutNulls(document.mcp.execution);
  const { name } = document;
  if (typeof name !== "string" || name === "" || !isServed(tool.execution, written, env))
    return refuse(changed); // (2)
  const secret = unpublishable(written, tool.execution);
  if (secret !== undefined) return refuse(secret); // (1)
  return { ok: true, service: { tool, serviceName: name, ...located } };
}

/** A key without a value is an absent key; what templates hold stays. */
const withoutNulls = (execution: unknown): unknown =>
  isObject(execution)
    ? Object.fromEntries(Object.entries(execution).filter(([, value]) => value !== null))
    : execution;

const changed = "its contract file is not the one that is served";

/** The tool's addresses and what follows them, or why it has none. */
function locate(execution: Execution): Pick<ToolService, "addresses" | "execution"> | string {
  switch (execution.kind) {
    case "local":
    case "function":
      return "it runs in the runtime's process, and is called through the runtime";
    case "bus":
      return "it is called over the event bus, and has no address";
    case "onex": {
      const { endpoints, path } = execution;
      if (endpoints.length === 0) return "its instances come from Consul and registration events themselves";
      return { addresses: endpoints.map(addressOf), execution: { kind: "onex", path } };
    }
    case "rest": {
      const { url, method, query, headers, body, result } = execution;
      const [, origin = "", rest = ""] = /^(https?:\/\/[^/?#\\]*)(.*)$/is.exec(url) ?? [];
      return {
        addresses: [addressOf(origin)],
        execution: {
          kind: "rest",
          method,
          url: rest.startsWith("/") ? rest : `/${rest}`,
          ...(query !== undefined && { query }),
          ...(headers !== undefined && { headers }),
          ...(body !== undefined && { body }),
          ...(result !== undefined && { result }),
        },
      };
    }
  }
}

function addressOf(url: string): ServiceAddress {
  const { protocol, hostname, port, origin, pathname } = new URL(url);
  const scheme = protocol === "https:" ? "https" : "http";
  const path = pathname.replace(/\/+$/, "");
  return {
    scheme,
    host: hostname.replace(/^\[(.*)\]$/, "$1"),
    port: port === "" ? (scheme === "https" ? 443 : 80) : Number(port),
    path: path === "" ? "/" : path,
    url: origin + path,
  };
}

/** Whether the contract, as it is written, comes to this execution. (2) */
function isServed(served: Execution, written: unknown, env: Env): boolean {
  const problems: Problem[] = [];
  const execution = expandExecution(written, env, problems);
  const parsed = nodeContractSchema.shape.mcp.shape.execution.safeParse(execution);
  if (!parsed.success) return false;
  const { data } = parsed;
  const checked =
    data.kind === "onex"
      ? onexExecution(data, problems)
      : data.kind === "rest"
        ? restExecution(data, problems)
        : undefined;
  return problems.length === 0 && JSON.stringify(checked) === JSON.stringify(served);
}

/** Why the execution cannot be published; undefined: it can. (1) */
function unpublishable(written: unknown, served: Execution): string | undefined {
  let reason: string | undefined;
  const look = (value: unknown, path: readonly PropertyKey[]): void => {
    if (Array.isArray(value)) value.forEach((item: unknown, index) => look(item, [...path, index]));
    else if (isObject(value)) for (const [key, item] of Object.entries(value)) look(item, [...path, key]);
    else if (typeof value === "string") reason ??= secretAt(value, path, served);
  };
  look(written, []);
  return reason;
}

/** Stands for the value of a variable. */
const mark = "\u0000";

/** The text with every variable replaced by the mark. */
function marked(text: string): string {
  const names = [...text.matchAll(/\$\{([A-Za-z_][A-Za-z0-9_]*)/g)].map(([, name]) => [name, mark]);
  return expandVariables(text, Object.fromEntries(names) as Env).text;
}

function secretAt(text: string, path: readonly PropertyKey[], served: Execution): string | undefined {
  const [key] = path;
  const where = pathText(["mcp", "execution", ...path]);
  const withMarks = marked(text);
  if (withMarks.includes(mark)) {
    const isAddress =
      key === "endpoint" || key === "endpoints" || (key === "url" && isAddressOnly(withMarks, served));
    return isAddress
      ? undefined
      : `${where} takes a value from the environment, which may be a secret: it would be shown to everyone`;
  }
  // What the caller gives is the caller's; headers are secret by their own names only.
  const isSecret = isSecretPath(path.slice(1).map(String)) && !/^\{[^{}]+\}$/.test(text);
  return isSecret ? `${where} looks like a secret: it would be shown to everyone` : undefined;
}

/** Whether all that came from variables is a part of scheme, host and port. */
function isAddressOnly(withMarks: string, served: Execution): boolean {
  if (served.kind !== "rest") return false;
  const tail = withMarks.slice(withMarks.lastIndexOf(mark) + 1);
  const head = served.url.slice(0, served.url.length - tail.length);
  return served.url.endsWith(tail) && /^[a-z]*:?\/{0,2}[^/?#\\]*\/?$/i.test(head);
}
