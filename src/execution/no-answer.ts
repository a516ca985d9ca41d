/**
 * Why an HTTP request got no answer. Owns what the errors of undici and of the system stand for. Does not own: what a
 * caller is told.
 */
import { isObject } from "../core/json.ts";

/**
 * - `connect_timeout`, `timeout`: no connection, no answer in time.
 * - `closed`: our own pool is; nothing was sent.
 * - `unwritable`: the request itself is none that HTTP can carry.
 * - `lost`: the connection broke off before the answer was whole.
 * - `not_http`: what came is no HTTP answer, or has more headers than are read.
 * - `unreachable`: any other, such as a refused connection or a name that does not resolve.
 */
export type NoAnswer =
  "connect_timeout" | "timeout" | "closed" | "unwritable" | "lost" | "not_http" | "unreachable";

const meanings: ReadonlyMap<string, NoAnswer> = new Map([
  ["UND_ERR_CONNECT_TIMEOUT", "connect_timeout"],
  ["UND_ERR_HEADERS_TIMEOUT", "timeout"],
  ["UND_ERR_BODY_TIMEOUT", "timeout"],
  ["ETIMEDOUT", "timeout"],
  ["UND_ERR_CLOSED", "closed"],
  ["UND_ERR_DESTROYED", "closed"],
  ["UND_ERR_INVALID_ARG", "unwritable"],
  ["UND_ERR_SOCKET", "lost"],
  ["UND_ERR_RES_CONTENT_LENGTH_MISMATCH", "lost"],
  ["ECONNRESET", "lost"],
  ["EPIPE", "lost"],
  ["UND_ERR_HEADERS_OVERFLOW", "not_http"],
]);

/** The meaning of what was thrown, and its code for the log where it has one. */
export function noAnswer(thrown: unknown): { readonly kind: NoAnswer; readonly code: string | undefined } {
  // One error for each address of a name: the first one's.
  const first: unknown = thrown instanceof AggregateError ? (thrown.errors[0] ?? thrown) : thrown;
  const code =
    isObject(first) && typeof first.code === "string" && first.code !== "" ? first.code : undefined;
  // undici's parser gives no code to everything that is not HTTP.
  if (first instanceof Error && first.name === "HTTPParserError") return { kind: "not_http", code };
  return { kind: meanings.get(code ?? "") ?? "unreachable", code };
}
