/**
 * From an envelope's payload to an HTTP request. Owns: the payload's keys, what of a request the caller may set, and the
 * limit on its size. Pure. Does not own: sending it (`http-exchange.ts`).
 *
 * 1. A message names the field and shows its value, but never that of a header, which may be a secret.
 */
import { z } from "zod";
import { ProtocolConfigurationError } from "../core/errors.ts";
import { isObject, typeName } from "../core/json.ts";
import type { HttpConfig } from "./http-config.ts";

export type HttpMethod = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

export interface OutboundRequest {
  readonly method: HttpMethod;
  readonly url: URL;
  /** Names as they were written, none twice. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
  readonly timeoutSeconds: number;
}

const scalar = z.union([z.string(), z.number(), z.boolean()], {
  error: "expected text, a number or a boolean",
});
const payloadSchema = z.strictObject({
  url: z.string({ error: "expected an http or https URL" }),
  query: z
    .record(
      z.string(),
      z.union([scalar, z.array(scalar)], { error: "expected text, a number, a boolean or a list of them" }),
      { error: "expected an object" },
    )
    .default({}),
  headers: z.record(z.string(), scalar, { error: "expected an object" }).default({}),
  body: z.json().optional(),
  timeout_seconds: z.number({ error: "expected a number of seconds" }).optional(),
});

/** Methods whose requests carry no body. */
const bodyless: ReadonlySet<HttpMethod> = new Set(["GET", "DELETE"]);

/** What HTTP itself sets, hop by hop; one that a caller sets could smuggle a second request or name another host. */
const reserved = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "http2-settings",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/**
 * The request that a payload asks for.
 *
 * @throws ProtocolConfigurationError naming the first field that is wrong and its value
 */
export function outboundRequest(method: HttpMethod, payload: unknown, config: HttpConfig): OutboundRequest {
  const fields = parsePayload(payload);
  const url = targetOf(fields.url, config);
  for (const [name, value] of Object.entries(fields.query)) {
    for (const item of [value].flat()) url.searchParams.append(name, String(item));
  }
  if (fields.body !== undefined && bodyless.has(method))
    throw refused("body", `a ${method} request has none; use POST, PUT or PATCH, or leave it out`);
  const headers = headersOf(fields.headers);
  const body = bodyOf(fields.body, headers);
  const size = sizeOf(url, headers, body);
  if (size > config.maxRequestBytes) {
    throw new ProtocolConfigurationError(
      `the request has ${size} bytes, and max_request_bytes is ${config.maxRequestBytes}`,
      { facts: { transport: "http", operation: "request" } },
    );
  }
  return {
    method,
    url,
    headers,
    body,
    timeoutSeconds: timeoutOf(fields.timeout_seconds, config),
  };
}

function parsePayload(payload: unknown): z.output<typeof payloadSchema> {
  // Senders write null for what they leave out.
  const given = isObject(payload)
    ? Object.fromEntries(Object.entries(payload).filter(([, value]) => value !== null))
    : payload;
  const parsed = payloadSchema.safeParse(given);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  if (issue?.code === "unrecognized_keys") {
    const known = Object.keys(payloadSchema.shape).join(", ");
    throw refused(issue.keys[0] ?? "", `unknown key; a request has ${known}`);
  }
  const path = issue?.path.map(String) ?? [];
  const value = path.reduce<unknown>((at, key) => (isObject(at) ? at[key] : undefined), given);
  if (value === undefined) throw refused(path.join("."), "is missing");
  const got = path[0] === "headers" ? typeName(value) : shown(value); // (1)
  throw refused(path.join("."), `${issue?.message ?? "is not valid"}, got ${got}`);
}

function targetOf(text: string, { allowedHosts }: HttpConfig): URL {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw refused("url", `expected an absolute http or https URL, got ${shown(withoutCredentials(text))}`);
  if (url.username !== "" || url.password !== "")
    throw refused("url", "it holds credentials; send them in the header Authorization");
  const { hostname, host, port, protocol } = url;
  const withPort = port === "" ? `${host}:${protocol === "https:" ? 443 : 80}` : host;
  if (allowedHosts.length > 0 && !allowedHosts.includes(hostname) && !allowedHosts.includes(withPort))
    throw refused("url", `its host is not one of allowed_hosts, got ${shown(withPort)}`);
  url.hash = "";
  return url;
}

function headersOf(given: Readonly<Record<string, string | number | boolean>>): Record<string, string> {
  const headers: Record<string, string> = {};
  const names = new Set<string>();
  for (const [name, value] of Object.entries(given)) {
    const key = name.toLowerCase();
    const field = `headers.${name}`;
    if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name)) throw refused(field, "it is no header's name");
    if (reserved.has(key)) throw refused(field, "this header is HTTP's own and cannot be set");
    if (names.has(key)) throw refused(field, "the header is given twice");
    const text = String(value);
    if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(text))
      throw refused(field, "line breaks, control characters and characters beyond Latin-1 cannot be sent"); // (1)
    names.add(key);
    headers[name] = text;
  }
  const set = (name: string, value: string): void => {
    if (!names.has(name.toLowerCase())) headers[name] = value;
  };
  set("User-Agent", "onex-runtime");
  set("Accept", "application/json, text/*;q=0.9, */*;q=0.5");
  return headers;
}

/** Text as it is, anything else as JSON; its type goes to the headers unless the caller has set one. */
function bodyOf(body: unknown, headers: Record<string, string>): string | null {
  if (body === undefined) return null;
  if (!Object.keys(headers).some((name) => name.toLowerCase() === "content-type"))
    headers["Content-Type"] = typeof body === "string" ? "text/plain; charset=utf-8" : "application/json";
  return typeof body === "string" ? body : JSON.stringify(body);
}

function timeoutOf(asked: number | undefined, config: HttpConfig): number {
  if (asked === undefined) return config.defaultTimeoutSeconds;
  if (asked >= 1 && asked <= config.timeoutSeconds) return asked;
  throw refused("timeout_seconds", `expected 1 to ${config.timeoutSeconds}, got ${asked}`);
}

function sizeOf(url: URL, headers: Readonly<Record<string, string>>, body: string | null): number {
  const ofHeaders = Object.entries(headers).reduce(
    (sum, [name, value]) => sum + name.length + value.length + 4,
    0,
  );
  return url.href.length + ofHeaders + (body === null ? 0 : Buffer.byteLength(body));
}

const refused = (field: string, why: string): ProtocolConfigurationError =>
  new ProtocolConfigurationError(`payload${field === "" ? "" : `.${field}`}: ${why}`, {
    facts: { transport: "http", operation: "request" },
  });

const withoutCredentials = (text: string): string => text.replace(/\/\/[^/@]*@/, "//***@");

function shown(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
