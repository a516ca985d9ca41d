/** A JSON-RPC message as it comes in, by POST or over stdio: read once, checked for shape, its id kept for the answer. */
import { isObject } from "../core/json.ts";

export type RpcId = string | number;

export interface Refusal {
  readonly code: number;
  readonly message: string;
  readonly id: RpcId | null;
}

export type BodyReading =
  { readonly ok: true; readonly body: unknown } | { readonly ok: false; readonly refusal: Refusal };

/** Messages of one batch, at most (2025-03-26 only). */
const maxBatch = 100;

/**
 * Parses and checks one message, or a batch.
 *
 * Not JSON is -32700, JSON that is no JSON-RPC 2.0 message is -32600, with the id where one can be read (JSON-RPC 2.0,
 * section 5).
 */
export function readMessage(text: string): BodyReading {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return {
      ok: false,
      refusal: { code: -32700, message: "Parse error: the message is not valid JSON", id: null },
    };
  }
  if (!Array.isArray(body)) return check(body, problemOf(body), idOf(body));
  const batch = body as unknown[];
  if (batch.length === 0) return check(body, "an empty batch", null);
  if (batch.length > maxBatch) return check(body, `a batch of more than ${maxBatch} messages`, null);
  const faulty = batch.find((message) => problemOf(message) !== undefined);
  return check(body, faulty === undefined ? undefined : problemOf(faulty), idOf(faulty));
}

function check(body: unknown, problem: string | undefined, id: RpcId | null): BodyReading {
  if (problem === undefined) return { ok: true, body };
  return { ok: false, refusal: { code: -32600, message: `Invalid Request: ${problem}`, id } };
}

function problemOf(message: unknown): string | undefined {
  if (!isObject(message)) return "the message is not an object";
  if (message["jsonrpc"] !== "2.0") return 'jsonrpc must be "2.0"';
  if ("id" in message && idOf(message) === null) return "id must be a string or an integer";
  if ("method" in message) {
    if (typeof message["method"] !== "string") return "method must be a string";
    if (message["params"] !== undefined && !isObject(message["params"])) return "params must be an object";
    return undefined;
  }
  if (!("id" in message)) return "neither method nor id is there";
  const hasResult = isObject(message["result"]);
  const hasError = isErrorObject(message["error"]);
  return hasResult === hasError ? "neither a request nor a response" : undefined;
}

const isErrorObject = (value: unknown): boolean =>
  isObject(value) && Number.isInteger(value["code"]) && typeof value["message"] === "string";

/** The message's id where it is one; null otherwise. */
export function idOf(message: unknown): RpcId | null {
  if (!isObject(message)) return null;
  const id = message["id"];
  return typeof id === "string" || (typeof id === "number" && Number.isSafeInteger(id)) ? id : null;
}

/** An HTTP answer that carries a JSON-RPC error. */
export function rpcError(
  status: number,
  code: number,
  message: string,
  id: RpcId | null,
  headers?: Record<string, string>,
): Response {
  return Response.json(
    { jsonrpc: "2.0", error: { code, message }, id },
    { status, ...(headers && { headers }) },
  );
}
