/**
 * The `execution` of a node contract: environment variables, the module's place, URLs and headers. Owns what can be told
 * before a call. Does not own: carrying a call out.
 *
 * 1. Arguments of a call never choose the server: placeholders stand in path and query only.
 * 2. Expanded values are secrets until proven otherwise: a problem shows what is written in the file.
 */
import { dirname, resolve } from "node:path";
import { isObject } from "../core/json.ts";
import { isTopicName } from "../core/topic-name.ts";
import { expandVariables } from "./expand.ts";
import type { ExecutionDocument, NodeExecution } from "./node.ts";
import type { Problem } from "./problems.ts";
import type { Reference } from "./references.ts";

export type Env = Readonly<Record<string, string | undefined>>;

const here = ["mcp", "execution"] as const;

/** The value with every string in it expanded; variables without a value become problems. */
export function expandExecution(execution: unknown, env: Env, problems: Problem[]): unknown {
  const expand = (value: unknown, path: readonly PropertyKey[]): unknown => {
    if (typeof value === "string") {
      const { text, missing } = expandVariables(value, env);
      for (const name of missing) {
        problems.push({ path, message: `the environment variable ${name} is not set and has no default` });
      }
      return text;
    }
    if (Array.isArray(value)) return value.map((item: unknown, index) => expand(item, [...path, index]));
    if (!isObject(value)) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, expand(item, [...path, key])]),
    );
  };
  return expand(execution, here);
}

/**
 * Checks what the schema cannot. Problems are added to `problems`; then the value is undefined.
 *
 * @param file absolute path of the contract
 * @param findModule looks a module up by its absolute path
 */
export async function checkExecution(
  execution: ExecutionDocument,
  file: string,
  findModule: (path: string) => Promise<Reference>,
  problems: Problem[],
): Promise<NodeExecution | undefined> {
  const before = problems.length;
  let checked: NodeExecution;
  if (execution.kind === "local") {
    const module = await findModule(resolve(dirname(file), execution.module));
    if (!module.ok) {
      problems.push({ path: [...here, "module"], message: module.problem });
      return undefined;
    }
    checked = { kind: "local", module: module.file, export: execution.export ?? "default" };
  } else if (execution.kind === "onex") {
    checked = onexExecution(execution, problems);
  } else if (execution.kind === "bus") {
    checked = busExecution(execution, problems);
  } else {
    checked = restExecution(execution, problems);
  }
  return problems.length === before ? checked : undefined;
}

/** The same for one kind, without looking anything up. */
export function onexExecution(
  execution: Extract<ExecutionDocument, { kind: "onex" }>,
  problems: Problem[],
): NodeExecution {
  const { endpoint, endpoints = [], service, path = "/" } = execution;
  if (service !== undefined && (endpoint !== undefined || endpoints.length > 0)) {
    const message = "names a service and endpoints; give one of them";
    problems.push({ path: [...here, "service"], message });
  }
  if (endpoint !== undefined) checkUrl(endpoint, [...here, "endpoint"], problems, "base");
  for (const [index, url] of endpoints.entries())
    checkUrl(url, [...here, "endpoints", index], problems, "base");
  if (path.startsWith("//") || /[\s\\?#]/.test(path)) {
    problems.push({ path: [...here, "path"], message: "expected a path such as /run" });
  }
  return {
    kind: "onex",
    endpoints: [...new Set([...(endpoint === undefined ? [] : [endpoint]), ...endpoints])],
    path: path.startsWith("/") ? path : `/${path}`,
    ...(service !== undefined && { service }),
  };
}

function busExecution(
  execution: Extract<ExecutionDocument, { kind: "bus" }>,
  problems: Problem[],
): NodeExecution {
  const { topic, reply_topic: replyTopic = `${topic}.replies`, key, operation } = execution;
  for (const [name, value] of [
    ["topic", topic],
    ["reply_topic", replyTopic],
  ] as const) {
    if (isTopicName(value)) continue;
    const message = "expected the name of a topic: 1 to 249 of a-z A-Z 0-9 . _ -";
    problems.push({ path: [...here, name], message });
  }
  if (replyTopic === topic) {
    problems.push({ path: [...here, "reply_topic"], message: "is the topic itself; name another one" });
  }
  if (operation !== undefined && !/^[^.\s]+\.\S+$/.test(operation)) {
    problems.push({ path: [...here, "operation"], message: "expected <type>.<verb>, as in orders.create" });
  }
  return {
    kind: "bus",
    topic,
    replyTopic,
    ...(key !== undefined && { key }),
    ...(operation !== undefined && { operation }),
  };
}

const headerName = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** What HTTP allows in a header's value: no control characters but the tab. */
const headerValue = /^[\t\x20-\x7e\x80-\xff]*$/;
/** Belong to the connection, not to the request. */
const connectionHeaders = new Set([
  "connection",
  "content-length",
  "expect",
  "keep-alive",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** As `onexExecution`. */
export function restExecution(
  execution: Extract<ExecutionDocument, { kind: "rest" }>,
  problems: Problem[],
): NodeExecution {
  const { method = "GET", url, query, headers, body, result } = execution;
  checkUrl(url, [...here, "url"], problems, "template");
  const texts: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers ?? {})) {
    const path = [...here, "headers", name];
    texts[name] = String(value);
    if (!headerName.test(name)) problems.push({ path, message: "is not a valid header name" });
    else if (connectionHeaders.has(name.toLowerCase())) {
      problems.push({ path, message: "is set by the runtime and cannot be given" });
    } else if (!headerValue.test(String(value))) {
      problems.push({ path, message: "has characters that a header cannot carry" });
    }
  }
  return {
    kind: "rest",
    method,
    url,
    ...(query !== undefined && { query }),
    ...(headers !== undefined && { headers: texts }),
    ...(body !== undefined && { body }),
    ...(result !== undefined && { result }),
  };
}

/** Adds why a URL cannot be called. The URL itself is not shown: it may hold an expanded secret. (1) (2) */
function checkUrl(
  url: string,
  path: readonly PropertyKey[],
  problems: Problem[],
  use: "base" | "template",
): void {
  const message = urlProblem(url) ?? (use === "base" ? baseProblem(url) : undefined);
  if (message !== undefined) problems.push({ path, message });
}

/** Why a URL with port 0 is refused. */
export const noPort = "has port 0, on which nothing listens; name one of 1 to 65535";

function urlProblem(url: string): string | undefined {
  const [, authority] = /^https?:\/\/([^/?#\\]*)/i.exec(url) ?? [];
  if (authority === undefined || authority === "") return "expected an absolute http or https URL";
  if (/[{}]/.test(authority)) return "a placeholder may stand in path and query, not in the server's name";
  if (authority.includes("@")) return "holds a user or password; give them in a header";
  const filled = url.replaceAll(/\{[^{}]+\}/g, "x");
  if (/[{}]/.test(filled)) return "has a brace that is not part of a {placeholder}";
  if (!URL.canParse(filled)) return "is not a valid URL";
  return new URL(filled).port === "0" ? noPort : undefined;
}

function baseProblem(url: string): string | undefined {
  if (/[?#]/.test(url)) return "an endpoint has neither query nor fragment";
  return /[{}]/.test(url) ? "an endpoint has no placeholders" : undefined;
}
