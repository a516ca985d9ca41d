/**
 * From a tool's execution and a call to an HTTP request. Everything that is the same for every call of a tool is worked
 * out once, in its plan. Does not own: sending, breakers, answers.
 */
import { randomFillSync, randomUUID } from "node:crypto";
import { inspect } from "node:util";
import { ProtocolConfigurationError } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import type { ToolCall } from "../tools/call.ts";
import type { OnexExecution, RestExecution, Tool } from "../tools/tool.ts";
import type { HttpRequest, Sending } from "./exchange.ts";
import {
  appendQuery,
  argumentOf,
  fillText,
  onlyName,
  originOf,
  parsePointer,
  parseTemplate,
  parseUrl,
  parseValue,
  PlaceholderError,
} from "./template.ts";

/** How the calls of one tool are made. */
export interface Plan {
  readonly kind: "onex" | "rest";
  readonly origin: string;
  /** Where in the answer the result is. */
  readonly pointer: readonly string[];
  /**
   * @param leftMs of the call's deadline
   * @throws PlaceholderError where an argument cannot be put where its placeholder stands
   */
  build(outgoing: Outgoing, leftMs: number): HttpRequest;
}

/**
 * One call on its way to a service. What tells a service that two attempts are the same call is the same in both: its
 * id, its key and its trace.
 */
export class Outgoing implements Sending {
  readonly call: ToolCall;
  begun = false;
  #id: string | undefined;
  #traceHeaders: readonly string[] | undefined;

  constructor(call: ToolCall) {
    this.call = call;
  }

  get id(): string {
    return (this.#id ??= randomUUID());
  }

  traceHeaders(set: ReadonlySet<string>): readonly string[] {
    return (this.#traceHeaders ??= traceHeaders(this.call, set));
  }
}

/**
 * @param base URL of the instance that is called; undefined where the execution is a whole URL
 * @throws ProtocolConfigurationError where the execution is not one that can be carried out
 */
export function planOf(tool: Tool, base: string | undefined): Plan {
  const { name, execution } = tool;
  if (execution.kind === "onex" && base !== undefined) return onexPlan(tool, execution, base);
  if (execution.kind === "rest") return restPlan(tool, execution, base);
  throw new ProtocolConfigurationError(`"${name}" is not called over HTTP, or has no endpoint`);
}

function onexPlan(tool: Tool, execution: OnexExecution, base: string): Plan {
  const origin = originOf(base);
  const below = execution.path.replace(/^\/+/, "");
  const url = new URL(below === "" ? base : `${base.replace(/\/+$/, "")}/${below}`);
  const path = url.pathname + url.search;
  const metadata = JSON.stringify({ tool_name: tool.name, tool_version: tool.version });
  const set = new Set<string>();
  const headers = ["Content-Type", "application/json", ...fixedHeaders(set)];
  const hasKey = tool.annotations.idempotent === true;
  return {
    kind: "onex",
    origin,
    pointer: [],
    build(outgoing, leftMs) {
      const { call, id } = outgoing;
      const correlationId = JSON.stringify(call.correlationId);
      const payload = JSON.stringify(call.arguments);
      const own = [...headers, ...outgoing.traceHeaders(set)];
      addCallHeaders(own, outgoing, leftMs, set, hasKey);
      return {
        method: "POST",
        path,
        headers: own,
        body: `{"envelope_id":"${id}","correlation_id":${correlationId},"source":"mcp-adapter","payload":${payload},"metadata":${metadata}}`,
      };
    },
  };
}

const methods = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
/** Of these methods arguments that no placeholder uses go to the query. */
const queryMethods = new Set(["GET", "HEAD", "DELETE"]);
/** Of these HTTP does not say that they may be repeated: a service needs the key to know a call again. */
const keyedMethods = new Set(["POST", "PATCH"]);
/** What HTTP itself sets; a contract that could would break the framing. */
const reservedHeaders = new Set([
  "connection",
  "content-length",
  "expect",
  "keep-alive",
  "transfer-encoding",
  "upgrade",
]);

function restPlan(tool: Tool, execution: RestExecution, base: string | undefined): Plan {
  const method = execution.method.toUpperCase();
  if (!methods.has(method))
    throw new ProtocolConfigurationError(
      `"${tool.name}": method must be one of ${[...methods].join(", ")}, got ${inspect(execution.method)}`,
    );
  const url = parseUrl(base === undefined ? execution.url : belowBase(tool, execution.url, base));
  const query = Object.entries(execution.query ?? {}).map(
    ([name, value]) => [name, parseValue(value, "the query")] as const,
  );
  const headers = parseHeaders(tool, execution.headers ?? {});
  const fixed = fixedHeaders(headers.set);
  const hasKey = tool.annotations.idempotent === true && keyedMethods.has(method);
  const body = execution.body === undefined ? undefined : parseValue(execution.body, "the body");
  const used = new Set([
    ...url.names,
    ...query.flatMap(([, value]) => value.names),
    ...headers.names,
    ...(body?.names ?? []),
  ]);
  // Only an object has room for more members.
  const isMergeable = body === undefined || isObject(execution.body);
  const restToQuery = queryMethods.has(method) || !isMergeable;
  const contractNames = restToQuery
    ? queryNames(execution)
    : new Set(isObject(execution.body) ? Object.keys(execution.body) : []);
  const declared = isObject(tool.inputSchema.properties) ? Object.keys(tool.inputSchema.properties) : [];
  // A service whose body members are all optional still wants a body.
  const hasBody = body !== undefined || (!restToQuery && declared.some((name) => !used.has(name)));

  const fillBody = (
    args: ToolCall["arguments"],
    rest: readonly (readonly [string, unknown])[],
  ): string | null => {
    const filled = body?.fill(args);
    if (restToQuery) return filled === undefined ? null : JSON.stringify(filled);
    if (!hasBody && rest.length === 0) return null;
    return JSON.stringify({ ...Object.fromEntries(rest), ...(filled as object | undefined) });
  };
  return {
    kind: "rest",
    origin: url.origin,
    pointer: parsePointer(execution.result ?? ""),
    build(outgoing, leftMs) {
      const args = outgoing.call.arguments;
      const rest = Object.entries(args).filter(([name]) => !used.has(name));
      // A caller may add to what the contract sends, but not replace or double it.
      const clash = rest.find(([name]) => contractNames.has(name));
      if (clash !== undefined) throw new PlaceholderError(clash[0], "is set by the tool itself");
      const pairs: string[] = [];
      for (const [name, value] of query) appendQuery(pairs, name, value.fill(args));
      if (restToQuery) for (const [name, value] of rest) appendQuery(pairs, name, value);
      const path = url.fill(args);
      const mark = pairs.length === 0 ? "" : path.includes("?") ? "&" : "?";
      const text = fillBody(args, rest);
      const type =
        text === null || headers.set.has("content-type") ? [] : ["Content-Type", "application/json"];
      const own = [...type, ...headers.fill(args), ...fixed, ...outgoing.traceHeaders(headers.set)];
      addCallHeaders(own, outgoing, leftMs, headers.set, hasKey);
      return {
        method,
        path: `${path}${mark}${pairs.join("&")}`,
        headers: own,
        body: text,
      };
    },
  };
}

/** A service never says that its tool is to be called somewhere else than at its own instances. */
function belowBase(tool: Tool, path: string, base: string): string {
  if (path !== "" && !path.startsWith("/"))
    throw new ProtocolConfigurationError(
      `"${tool.name}": the url of a service's tool is a path that begins with "/", got ${inspect(path)}`,
    );
  // In its canonical form a path holds no braces: what looks like a placeholder in an instance's address is none.
  return originOf(base) + new URL(base).pathname.replace(/\/+$/, "") + path;
}

/** Names of query parameters that the contract itself sends. */
function queryNames(execution: RestExecution): ReadonlySet<string> {
  const [, search = ""] = execution.url.split(/[?#]/, 2);
  return new Set([...new URLSearchParams(search).keys(), ...Object.keys(execution.query ?? {})]);
}

interface HeaderTemplates {
  readonly names: readonly string[];
  /** In lower case. */
  readonly set: ReadonlySet<string>;
  fill(args: ToolCall["arguments"]): string[];
}

function parseHeaders(tool: Tool, headers: Readonly<Record<string, string>>): HeaderTemplates {
  const templates = Object.entries(headers).map(([name, value]) => {
    if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name) || reservedHeaders.has(name.toLowerCase()))
      throw new ProtocolConfigurationError(`"${tool.name}": the header ${inspect(name)} cannot be set`);
    const template = parseTemplate(value);
    if (!template.texts.every(isHeaderText))
      throw new ProtocolConfigurationError(
        `"${tool.name}": the header ${name} has a value that HTTP cannot carry`,
      );
    return { name, template, only: onlyName(template) };
  });
  return {
    names: templates.flatMap(({ template }) => template.names),
    set: new Set(templates.map(({ name }) => name.toLowerCase())),
    fill(args) {
      const filled: string[] = [];
      for (const { name, template, only } of templates) {
        if (only !== undefined && argumentOf(args, only) === undefined) continue;
        const value = fillText(template, args, `the header ${name}`);
        if (!isHeaderText(value))
          throw new PlaceholderError(
            template.names[0] ?? name,
            `may hold no line breaks, control characters or characters beyond Latin-1: it is part of the header ${name}`,
          );
        filled.push(name, value);
      }
      return filled;
    },
  };
}

const isHeaderText = (text: string): boolean => /^[\t\x20-\x7e\x80-\xff]*$/.test(text);

/** The same for every call of a tool, unless the contract has set it. */
function fixedHeaders(set: ReadonlySet<string>): readonly string[] {
  const headers: string[] = [];
  if (!set.has("user-agent")) headers.push("User-Agent", "onex-runtime");
  if (!set.has("accept")) headers.push("Accept", "application/json, text/*;q=0.9, */*;q=0.8");
  return headers;
}

/**
 * What is left of the deadline, in whole milliseconds, and the key by which a service knows a repeated call
 * (draft-ietf-httpapi-idempotency-key-header: a string of RFC 9651), unless the contract has set them.
 */
function addCallHeaders(
  headers: string[],
  outgoing: Outgoing,
  leftMs: number,
  set: ReadonlySet<string>,
  hasKey: boolean,
): void {
  if (!set.has("x-request-timeout-ms"))
    headers.push("X-Request-Timeout-Ms", String(Math.max(1, Math.floor(leftMs))));
  if (hasKey && !set.has("idempotency-key")) headers.push("Idempotency-Key", `"${outgoing.id}"`);
}

/** Correlation and W3C trace context of one call, unless the contract has set it. Names and values in turn. */
export function traceHeaders({ correlationId: id, meta }: ToolCall, set: ReadonlySet<string>): string[] {
  const headers: string[] = [];
  const add = (name: string, value: string): void => {
    if (!set.has(name)) headers.push(name, value);
  };
  const fits = /^[\x21-\x7e]{1,200}$/.test(id);
  add("x-correlation-id", fits ? id : encodeURIComponent(id.slice(0, 200).toWellFormed()));
  const { traceparent, tracestate, baggage } = meta ?? {};
  if (typeof traceparent === "string" && isTraceparent(traceparent)) {
    add("traceparent", traceparent);
    if (typeof tracestate === "string" && isTraceText(tracestate)) add("tracestate", tracestate);
  } else {
    add("traceparent", newTraceparent());
  }
  if (typeof baggage === "string" && isTraceText(baggage)) add("baggage", baggage);
  return headers;
}

/** Bytes of a trace's id and of a span's. */
const traceIdBytes = 16;
const spanIdBytes = 8;
/** Many at a time: to draw a few bytes costs as much as to draw all of these. */
const randomBytes = Buffer.alloc(256 * (traceIdBytes + spanIdBytes));
let usedBytes = randomBytes.length;

/** Ids of nothing but zeros are invalid; one in 2^64 would be. */
function newTraceparent(): string {
  if (usedBytes === randomBytes.length) {
    randomFillSync(randomBytes);
    usedBytes = 0;
  }
  const middle = usedBytes + traceIdBytes;
  const traceId = randomBytes.toString("hex", usedBytes, middle);
  usedBytes = middle + spanIdBytes;
  return `00-${traceId}-${randomBytes.toString("hex", middle, usedBytes)}-01`;
}

/** W3C Trace Context, version 00: ids of nothing but zeros are invalid. */
const isTraceparent = (text: string): boolean =>
  /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/.test(text);

const isTraceText = (text: string): boolean => /^[\x20-\x7e]{1,8192}$/.test(text);
