/**
 * Who is calling. Owns: API keys, roles, and the rule under which a server may be bound without either. Does not own:
 * what a route demands (`admin/routes.ts` and the gateway ask `authorize`).
 *
 * 1. Keys are held as SHA-256 only, and never appear in a log line, an error or an answer.
 * 2. Every key is compared with every caller's, in constant time: how long it takes tells nothing.
 * 3. Two headers that name different keys are a failure: no rule about which one wins can be guessed.
 * 4. To hash a key costs a tenth of a call: a connection's keys are remembered with it, once they were found right, as long
 *    as they come again. Node holds the headers of its last request as long as that.
 */
import { hash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { AuthorizationError, InfraAuthenticationError, ProtocolConfigurationError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { Principal } from "../tools/call.ts";
import { isLoopback } from "./address.ts";
import { problemOf } from "./problem.ts";

interface NamedKey {
  /** Shown in the audit log and counted against limits. */
  readonly name: string;
  readonly role: Principal["role"];
}

/** An API key as configured: its SHA-256 in hex, or the key itself, which is hashed at once and not kept. */
export type ApiKey = NamedKey & ({ readonly sha256: string } | { readonly key: string });

export interface AuthenticatorOptions {
  /** None: nobody needs a key. */
  readonly apiKeys: readonly ApiKey[];
  /** Whether callers are admins while no key is configured: true where only this machine can reach the server. */
  readonly loopbackIsAdmin: boolean;
  readonly log: Logger;
}

export type Authentication =
  | { readonly ok: true; readonly principal: Principal }
  | { readonly ok: false; readonly error: InfraAuthenticationError };

/** Headers of a web `Request` or of a node `IncomingMessage`. */
export type RequestHeaders = Headers | IncomingHttpHeaders;

export interface Authenticator {
  /** The caller, or why not. A failure is written to the audit log. */
  readonly authenticate: (headers: RequestHeaders) => Authentication;
  /** The same for a connection: what was found for its last headers holds for these, where they are the same ones. (4) */
  readonly identifyOn: (connection: object, headers: IncomingHttpHeaders) => Principal | undefined;
  /** The caller if the headers prove one. For routes that are open but show more to some. Not audited. */
  readonly identify: (request: { readonly headers: RequestHeaders }) => Principal | undefined;
  /** The caller if they hold `role` (an admin holds both), else the answer: 401 or 403. */
  readonly authorize: (request: Request, role: Principal["role"]) => Principal | Response;
}

interface StoredKey {
  readonly digest: Buffer;
  readonly principal: Principal;
}

interface Remembered {
  readonly headers: IncomingHttpHeaders;
  readonly principal: Principal;
}

const sameKeys = (a: IncomingHttpHeaders, b: IncomingHttpHeaders): boolean =>
  a.authorization === b.authorization &&
  a["x-api-key"] === b["x-api-key"] &&
  a["x-mcp-api-key"] === b["x-mcp-api-key"];

type Failure = "missing_key" | "unknown_key" | "conflicting_keys";

const failureText: Readonly<Record<Failure, string>> = {
  missing_key: "No API key was sent; use X-MCP-API-Key, X-API-Key or Authorization: Bearer",
  unknown_key: "The API key is not known",
  conflicting_keys: "Two headers carry different API keys; send one",
};

/** @throws ProtocolConfigurationError for a key without a name, an unusable digest, or one that is there twice */
export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const keys = options.apiKeys.map(stored);
  refuseDuplicates(keys);
  const remembered = new WeakMap<object, Remembered>();
  const open: Principal = Object.freeze({ name: "local", role: options.loopbackIsAdmin ? "admin" : "user" });

  const recognise = (headers: RequestHeaders): Principal | Failure => {
    if (keys.length === 0) return open;
    const presented = presentedKeys(headers);
    const [first] = presented;
    if (first === undefined) return "missing_key";
    const digest = sha256(first);
    // Digests again, so that neither length nor content of one header can be timed against another's. (2)
    if (presented.length > 1 && presented.some((other) => !timingSafeEqual(sha256(other), digest)))
      return "conflicting_keys";
    let found: Principal | undefined;
    for (const key of keys) if (timingSafeEqual(key.digest, digest)) found = key.principal;
    return found ?? "unknown_key";
  };

  const authenticate = (headers: RequestHeaders): Authentication => {
    const outcome = recognise(headers);
    if (typeof outcome !== "string") return { ok: true, principal: outcome };
    options.log.warn({ event: "authentication_failure", reason: outcome }, failureText[outcome]);
    return {
      ok: false,
      error: new InfraAuthenticationError(failureText[outcome], {
        facts: { transport: "http", reason: outcome },
      }),
    };
  };

  return {
    authenticate,
    identifyOn(connection, headers) {
      if (keys.length === 0) return open;
      const known = remembered.get(connection);
      if (known !== undefined && sameKeys(known.headers, headers)) return known.principal;
      const outcome = recognise(headers);
      if (typeof outcome === "string") return undefined;
      remembered.set(connection, { headers, principal: outcome });
      return outcome;
    },
    identify(request) {
      const outcome = recognise(request.headers);
      return typeof outcome === "string" ? undefined : outcome;
    },
    authorize(request, role) {
      const outcome = authenticate(request.headers);
      if (!outcome.ok) return problemOf(outcome.error);
      const { principal } = outcome;
      if (role === "user" || principal.role === "admin") return principal;
      return problemOf(new AuthorizationError(`${principal.name} has the role user; this needs admin`));
    },
  };
}

/**
 * Refuses to serve strangers by accident.
 *
 * @throws ProtocolConfigurationError where others than this machine could call and nobody asks who they are
 */
export function assertSafeBinding(options: {
  readonly host: string;
  readonly hasAuthentication: boolean;
  /** Absent where it cannot be configured. */
  readonly allowUnauthenticated?: boolean;
}): void {
  const { host, hasAuthentication, allowUnauthenticated } = options;
  if (isLoopback(host) || hasAuthentication || allowUnauthenticated === true) return;
  const wish = allowUnauthenticated === undefined ? "" : ", or set allow_unauthenticated: true";
  throw new ProtocolConfigurationError(
    `refuses to start on ${host} without authentication: anyone who reaches it could call it. ` +
      `Set api_keys, or bind to 127.0.0.1${wish}`,
  );
}

const sha256 = (text: string): Buffer => hash("sha256", text, "buffer");

/** What each of the three headers holds. An `Authorization` of another scheme is not a key. */
function presentedKeys(headers: RequestHeaders): string[] {
  const read = (name: string): string | undefined => {
    const value = headers instanceof Headers ? headers.get(name) : headers[name];
    // A header sent twice is joined like any list, and so matches no key.
    return (typeof value === "object" && value !== null ? value.join(", ") : value)?.trim();
  };
  const bearer = /^bearer +(.*)$/i.exec(read("authorization") ?? "")?.[1];
  return [read("x-mcp-api-key"), read("x-api-key"), bearer].filter(
    (key) => key !== undefined && key !== "",
  ) as string[];
}

function stored(key: ApiKey, index: number): StoredKey {
  const where = `api_keys[${index}]`;
  if (key.name.trim() === "")
    throw new ProtocolConfigurationError(`${where}: name is empty; name who holds the key`);
  const principal: Principal = Object.freeze({ name: key.name, role: key.role });
  if ("sha256" in key) {
    // The value is not shown: the likeliest mistake is the key itself in the digest's place.
    if (!/^[0-9a-f]{64}$/i.test(key.sha256))
      throw new ProtocolConfigurationError(
        `${where} (${key.name}): sha256 must be 64 hex digits; make it with: printf %s "$KEY" | sha256sum`,
      );
    return { digest: Buffer.from(key.sha256, "hex"), principal };
  }
  if (key.key.trim() === "") throw new ProtocolConfigurationError(`${where} (${key.name}): key is empty`);
  return { digest: sha256(key.key.trim()), principal };
}

function refuseDuplicates(keys: readonly StoredKey[]): void {
  const holders = new Map<string, string>();
  for (const { digest, principal } of keys) {
    const hex = digest.toString("hex");
    const holder = holders.get(hex);
    if (holder !== undefined)
      throw new ProtocolConfigurationError(
        `api_keys: ${holder} and ${principal.name} have the same key; give each a key of its own`,
      );
    holders.set(hex, principal.name);
  }
}
