/**
 * What every request must pass before anything reads it. Owns: the Host check (DNS rebinding), the Origin check
 * (foreign web pages), the content type and the size of bodies. Does not own: who the caller is (`auth.ts`).
 *
 * 1. A Host is accepted by name, never because it resolves here: a foreign name that was made to point at this
 *    machine is refused, with any port.
 * 2. An Origin is accepted if it is the Host that was asked, a configured one, or, bound to loopback, a loopback one.
 *    `null` is nobody's origin.
 * 3. No body larger than the limit is ever held, whatever Content-Length says or does not say.
 */
import { hostname } from "node:os";
import type { MiddlewareHandler } from "hono";
import { ProtocolConfigurationError } from "../core/errors.ts";
import { canonicalHost, isAddress, isLoopback, isWildcard } from "./address.ts";
import { problemResponse, toProblem, type Problem } from "./problem.ts";

const defaultMaxBodyBytes = 4 * 1024 * 1024;
const maxKnownHosts = 100;

export interface GuardOptions {
  /** The address the server is bound to. */
  readonly host: string;
  /** Further names clients may call the server by: `name` (any port) or `name:port`. */
  readonly allowedHosts?: readonly string[];
  /** Further origins whose pages may call: `https://name[:port]`. */
  readonly allowedOrigins?: readonly string[];
  /** Default 4 MiB. */
  readonly maxBodyBytes?: number;
}

/** The part of a request that is judged. A node `IncomingMessage` is one. */
export interface GuardedRequest {
  readonly method?: string | undefined;
  readonly headers: {
    readonly host?: string | undefined;
    readonly origin?: string | undefined;
    readonly "content-type"?: string | undefined;
    readonly "content-length"?: string | undefined;
    readonly "transfer-encoding"?: string | undefined;
  };
}

export interface Guard {
  readonly maxBodyBytes: number;
  /** What is wrong with the request (400, 403, 413, 415); undefined where nothing is. Reads no body. */
  check(request: GuardedRequest): Problem | undefined;
  /** Answers what `check` finds, on every route. */
  readonly middleware: MiddlewareHandler;
}

interface Authority {
  /** Canonical. */
  readonly host: string;
  readonly port: string | undefined;
}

/** @throws ProtocolConfigurationError for an entry of `allowedHosts` or `allowedOrigins` that is not one */
export function createGuard(options: GuardOptions): Guard {
  const maxBodyBytes = options.maxBodyBytes ?? defaultMaxBodyBytes;
  const loopbackOnly = isLoopback(options.host);
  const anyAddress = isWildcard(options.host);
  const hosts = (options.allowedHosts ?? []).map(configuredHost);
  const origins = new Set((options.allowedOrigins ?? []).map(configuredOrigin));
  const ownNames = new Set([canonicalHost(options.host)]);
  if (loopbackOnly || anyAddress) for (const name of ["localhost", "127.0.0.1", "[::1]"]) ownNames.add(name);
  if (!loopbackOnly) ownNames.add(canonicalHost(hostname()));

  const hostAllowed = ({ host, port }: Authority): boolean =>
    ownNames.has(host) ||
    // A page that was rebound still sends its own name, so an address as Host is harmless; which of them lead to a
    // wildcard bind (a container's published port, a load balancer) cannot be known from inside.
    (anyAddress && isAddress(host)) ||
    hosts.some((entry) => entry.host === host && (entry.port === undefined || entry.port === port));

  const originAllowed = (origin: string, asked: Authority): boolean => {
    const parsed = parseOrigin(origin);
    if (parsed === undefined) return false;
    if (origins.has(parsed.origin)) return true;
    if (!parsed.web) return false;
    return (
      (parsed.host === asked.host && parsed.port === (asked.port ?? defaultPort(parsed.scheme))) ||
      (loopbackOnly && isLoopback(parsed.host))
    );
  };

  /** Hosts that are allowed, as they were sent: clients send few forms of them. */
  const known = new Map<string, Authority>();

  const check = ({ method, headers }: GuardedRequest): Problem | undefined => {
    if (headers.host === undefined) return toProblem(400, { detail: "The Host header is missing." });
    let asked = known.get(headers.host);
    if (asked === undefined) {
      asked = parseAuthority(headers.host);
      if (asked !== undefined && hostAllowed(asked)) {
        if (known.size >= maxKnownHosts) known.clear();
        known.set(headers.host, asked);
      } else asked = undefined;
    }
    if (asked === undefined)
      return toProblem(403, {
        detail: "This Host name is not served here; the operator can add it to the allowed hosts.",
      });
    if (headers.origin !== undefined && !originAllowed(headers.origin, asked))
      return toProblem(403, {
        detail:
          "Pages of this Origin may not call this server; the operator can add it to the allowed origins.",
      });
    const length = headers["content-length"];
    if (length !== undefined && !(Number(length) <= maxBodyBytes)) return tooLarge(maxBodyBytes);
    const hasBody = headers["transfer-encoding"] !== undefined || (length !== undefined && length !== "0");
    if (method === "POST" && hasBody && !isJson(headers["content-type"]))
      return toProblem(415, { detail: "The body must be sent as Content-Type: application/json." });
    return undefined;
  };

  const middleware: MiddlewareHandler = async (context, next) => {
    const header = (name: string): string | undefined => context.req.header(name);
    const found = check({
      method: context.req.method,
      headers: {
        host: header("host"),
        origin: header("origin"),
        "content-type": header("content-type"),
        "content-length": header("content-length"),
        "transfer-encoding": header("transfer-encoding"),
      },
    });
    if (found !== undefined) return problemResponse(found);
    return next();
  };
  return { maxBodyBytes, check, middleware };
}

export type ReadBody =
  { readonly ok: true; readonly bytes: Uint8Array } | { readonly ok: false; readonly problem: Problem };

/** The whole body, or 413 as soon as more than `limit` bytes have come, or 400 if it breaks off. (3) */
export async function readBody(request: Request, limit: number): Promise<ReadBody> {
  if (request.body === null) return { ok: true, bytes: new Uint8Array() };
  const reader: ReadableStreamDefaultReader<Uint8Array> = request.body.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done)
        return { ok: true, bytes: chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks) };
      size += value.byteLength;
      if (size > limit) {
        // Not awaited: a peer that stopped sending must not hold back the answer.
        reader.cancel().catch(() => undefined);
        return { ok: false, problem: tooLarge(limit) };
      }
      chunks.push(value);
    }
  } catch {
    return { ok: false, problem: toProblem(400, { detail: "The body broke off before its end." }) };
  }
}

const tooLarge = (limit: number): Problem =>
  toProblem(413, { detail: `The body is larger than the limit of ${limit} bytes.` });

/** True for `application/json`, with or without parameters. */
const isJson = (contentType: string | undefined): boolean =>
  contentType?.split(";", 1)[0]?.trim().toLowerCase() === "application/json";

/** `name`, `name:port`, `[v6]`, `[v6]:port`; undefined for anything else. */
function parseAuthority(text: string): Authority | undefined {
  const match = /^(\[[0-9a-f:.]+\]|[^\s:[\]/@?#\\,]+)(?::(\d{1,5}))?$/i.exec(text);
  if (match?.[1] === undefined) return undefined;
  return { host: canonicalHost(match[1]), port: match[2] };
}

interface Origin {
  readonly origin: string;
  /** False for what is no web page: an extension, a desktop webview. Only configuration lets those in. */
  readonly web: boolean;
  readonly scheme: string;
  readonly host: string;
  readonly port: string;
}

function parseOrigin(text: string): Origin | undefined {
  if (!/^[a-z][a-z0-9+.-]*:\/\/[^\s/@?#\\]+$/i.test(text) || !URL.canParse(text)) return undefined;
  const url = new URL(text);
  const scheme = url.protocol.slice(0, -1);
  return {
    origin: `${scheme}://${url.host}`,
    web: scheme === "http" || scheme === "https",
    scheme,
    host: canonicalHost(url.hostname),
    port: url.port === "" ? defaultPort(scheme) : url.port,
  };
}

const defaultPort = (scheme: string): string => (scheme === "https" ? "443" : "80");

function configuredHost(entry: string): Authority {
  const parsed = parseAuthority(entry);
  if (parsed === undefined)
    throw new ProtocolConfigurationError(
      `allowed_hosts: "${entry}" is not a host name; write it as "tools.example.com" or "tools.example.com:8443"`,
    );
  return parsed;
}

function configuredOrigin(entry: string): string {
  const parsed = parseOrigin(entry);
  if (parsed === undefined)
    throw new ProtocolConfigurationError(
      `allowed_origins: "${entry}" is not an origin; write it as "https://app.example.com"`,
    );
  return parsed.origin;
}
