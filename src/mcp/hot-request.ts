/**
 * Which requests are plain: a `tools/call`, `tools/list` or `ping` that asks for nothing but its answer, in the form that
 * every client sends. Owns: telling them from all others. Does not own: what any other request means, right or wrong.
 *
 * 1. Whatever is not certain is not plain: the SDK answers it. So nothing is refused here.
 * 2. What is plain the SDK would accept, and hand to a handler as it is read here.
 */
import { isSpecType } from "@modelcontextprotocol/server";
import type { IncomingHttpHeaders } from "node:http";
import { isObject } from "../core/json.ts";
import { acceptedBy, type Accepted } from "./accept.ts";
import type { RpcId } from "./message.ts";
import { legacyRevisions } from "./sessions.ts";

export type Era = "legacy" | "modern";

interface PlainCall {
  readonly method: "tools/call";
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  /** Trace context only. */
  readonly meta: Readonly<Record<string, unknown>>;
}

interface PlainList {
  readonly method: "tools/list";
  readonly cursor: string | undefined;
}

export type PlainRequest = (PlainCall | PlainList | { readonly method: "ping" }) & {
  readonly id: RpcId;
  readonly era: Era;
};

const modernRevision = "2026-07-28";
const legacySet: ReadonlySet<string> = new Set(legacyRevisions);
const jsonTypes: ReadonlySet<string> = new Set(["application/json", "application/json; charset=utf-8"]);
const versionKey = "io.modelcontextprotocol/protocolVersion";
const clientKey = "io.modelcontextprotocol/clientInfo";
const capabilitiesKey = "io.modelcontextprotocol/clientCapabilities";
const envelopeKeys: ReadonlySet<string> = new Set([versionKey, clientKey, capabilitiesKey]);
const traceKeys: ReadonlySet<string> = new Set(["traceparent", "tracestate", "baggage"]);
/** A member named `__proto__`, escapes included, does not survive every way of copying an object. (2) */
const protoName = /__proto__|\\u00[567]/i;
const noMeta: PlainCall["meta"] = Object.freeze({});
const noArguments: PlainCall["arguments"] = Object.freeze({});

/** Whether a POST with these headers may be plain. The body has the last word. */
export function mayBePlain(headers: IncomingHttpHeaders): boolean {
  return (
    jsonTypes.has(headers["content-type"] ?? "") &&
    takesJson(acceptedBy(headers.accept)) &&
    headers["content-encoding"] === undefined
  );
}

const takesJson = (accepted: Accepted): boolean => accepted !== "stream" && accepted !== "none";

/** Undefined for what is not plain. */
export function readPlain(headers: IncomingHttpHeaders, text: string): PlainRequest | undefined {
  if (protoName.test(text)) return undefined;
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(body) || !hasOnly(body, messageKeys)) return undefined;
  const { jsonrpc, id, method, params = noArguments } = body;
  if (jsonrpc !== "2.0" || !isId(id) || !isObject(params) || typeof method !== "string") return undefined;
  const era = eraOf(headers, method);
  if (era === undefined) return undefined;
  const meta = metaOf(params["_meta"], era);
  if (meta === undefined) return undefined;
  switch (method) {
    case "tools/call": {
      const { name, arguments: args = noArguments } = params;
      if (typeof name !== "string" || !isObject(args) || !hasOnly(params, callKeys)) return undefined;
      if (era === "modern" && headers["mcp-name"] !== name) return undefined;
      return { method, id, era, name, arguments: args, meta };
    }
    case "tools/list": {
      const { cursor } = params;
      if (cursor !== undefined && typeof cursor !== "string") return undefined;
      // A name belongs to a call.
      if (!hasOnly(params, listKeys) || headers["mcp-name"] !== undefined) return undefined;
      return { method, id, era, cursor };
    }
    case "ping":
      return era === "legacy" && hasOnly(params, metaOnly) ? { method, id, era } : undefined;
    default:
      return undefined;
  }
}

const messageKeys: ReadonlySet<string> = new Set(["jsonrpc", "id", "method", "params"]);
const callKeys: ReadonlySet<string> = new Set(["name", "arguments", "_meta"]);
const listKeys: ReadonlySet<string> = new Set(["cursor", "_meta"]);
const metaOnly: ReadonlySet<string> = new Set(["_meta"]);
const clientKeys: ReadonlySet<string> = new Set(["name", "version", "title"]);

/** A loop: to take an object apart costs ten times as much. */
function hasOnly(value: object, keys: ReadonlySet<string>): boolean {
  for (const key in value) if (!keys.has(key)) return false;
  return true;
}

/** The era that headers and method speak of; the body's `_meta` must agree. */
function eraOf(headers: IncomingHttpHeaders, method: string): Era | undefined {
  const revision = headers["mcp-protocol-version"];
  if (revision === modernRevision) return headers["mcp-method"] === method ? "modern" : undefined;
  if (headers["mcp-method"] !== undefined || headers["mcp-name"] !== undefined) return undefined;
  if (revision !== undefined && (typeof revision !== "string" || !legacySet.has(revision))) return undefined;
  return "legacy";
}

/** The trace context of `_meta`, where `_meta` holds nothing else but what the era demands. */
function metaOf(meta: unknown, era: Era): PlainCall["meta"] | undefined {
  if (meta === undefined) return era === "legacy" ? noMeta : undefined;
  if (!isObject(meta)) return undefined;
  let trace: Record<string, unknown> | undefined;
  for (const key in meta) {
    if (traceKeys.has(key) && typeof meta[key] === "string") (trace ??= {})[key] = meta[key];
    else if (era === "legacy" || !envelopeKeys.has(key)) return undefined;
  }
  if (era === "legacy") return trace ?? noMeta;
  if (meta[versionKey] !== modernRevision || !isClient(meta[clientKey])) return undefined;
  return isCapabilities(meta[capabilitiesKey]) ? (trace ?? noMeta) : undefined;
}

function isClient(client: unknown): boolean {
  if (client === undefined) return true;
  if (!isObject(client) || !hasOnly(client, clientKeys)) return false;
  const { name, version, title } = client;
  return (
    typeof name === "string" &&
    typeof version === "string" &&
    (title === undefined || typeof title === "string")
  );
}

/** Capabilities that were checked, as JSON: a client sends the same ones with every request. */
const checked = new Set<string>();
const maxChecked = 100;
const maxCheckedLength = 1000;

function isCapabilities(value: unknown): boolean {
  if (!isObject(value)) return false;
  if (isEmpty(value)) return true;
  const text = JSON.stringify(value);
  if (checked.has(text)) return true;
  if (text.length > maxCheckedLength || !isSpecType.ClientCapabilities(value)) return false;
  if (checked.size >= maxChecked) checked.clear();
  checked.add(text);
  return true;
}

const isId = (id: unknown): id is RpcId => typeof id === "string" || Number.isSafeInteger(id);

function isEmpty(value: object): boolean {
  for (const _ in value) return false;
  return true;
}
