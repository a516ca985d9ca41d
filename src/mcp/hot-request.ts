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
const traceKeys: ReadonlySet<string> = new Set(["traceparent", "tracestate", "baggage"]);
const noMeta: PlainCall["meta"] = Object.freeze({});
const noArguments: PlainCall["arguments"] = Object.freeze({});

/** Whether a POST with these headers may be plain. The body has the last word. */
export function mayBePlain(headers: IncomingHttpHeaders): boolean {
  return (
    jsonTypes.has(headers["content-type"] ?? "") &&
    takesJson(headers.accept) &&
    headers["content-encoding"] === undefined
  );
}

/** Absent and `*` mean anything (RFC 9110, section 12.5.1). */
function takesJson(accept: string | undefined): boolean {
  return accept === undefined || accept.includes("application/json") || accept.includes("*/*");
}

/** Undefined for what is not plain. */
export function readPlain(headers: IncomingHttpHeaders, text: string): PlainRequest | undefined {
  // A member of this name does not survive every way of copying an object. (2)
  if (text.includes("__proto__")) return undefined;
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(body)) return undefined;
  const { jsonrpc, id, method, params = noArguments, ...others } = body;
  if (jsonrpc !== "2.0" || !isId(id) || !isObject(params) || !isEmpty(others)) return undefined;
  if (typeof method !== "string") return undefined;
  const era = eraOf(headers, method);
  if (era === undefined) return undefined;
  switch (method) {
    case "tools/call":
      return readCall(headers, params, id, era);
    case "tools/list": {
      const { cursor, _meta, ...rest } = params;
      if (!isEmpty(rest) || (cursor !== undefined && typeof cursor !== "string")) return undefined;
      // A name belongs to a call.
      if (headers["mcp-name"] !== undefined || metaOf(_meta, era) === undefined) return undefined;
      return { method, id, era, cursor };
    }
    case "ping": {
      const { _meta, ...rest } = params;
      if (era === "modern" || !isEmpty(rest) || metaOf(_meta, era) === undefined) return undefined;
      return { method, id, era };
    }
    default:
      return undefined;
  }
}

function readCall(
  headers: IncomingHttpHeaders,
  params: Readonly<Record<string, unknown>>,
  id: RpcId,
  era: Era,
): PlainRequest | undefined {
  const { name, arguments: args = noArguments, _meta, ...rest } = params;
  if (typeof name !== "string" || !isObject(args) || !isEmpty(rest)) return undefined;
  if (era === "modern" && headers["mcp-name"] !== name) return undefined;
  const meta = metaOf(_meta, era);
  return meta && { method: "tools/call", id, era, name, arguments: args, meta };
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
  if (era === "legacy") return meta === undefined ? noMeta : traceOf(meta);
  if (!isObject(meta)) return undefined;
  const { [versionKey]: version, [clientKey]: client, [capabilitiesKey]: capabilities, ...rest } = meta;
  if (version !== modernRevision || !isClient(client) || !isCapabilities(capabilities)) return undefined;
  return traceOf(rest);
}

function traceOf(meta: unknown): PlainCall["meta"] | undefined {
  if (!isObject(meta)) return undefined;
  for (const key in meta) if (!traceKeys.has(key) || typeof meta[key] !== "string") return undefined;
  return meta;
}

function isClient(client: unknown): boolean {
  if (client === undefined) return true;
  if (!isObject(client)) return false;
  const { name, version, title, ...rest } = client;
  if (typeof name !== "string" || typeof version !== "string") return false;
  return (title === undefined || typeof title === "string") && isEmpty(rest);
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
