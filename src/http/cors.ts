/**
 * What browsers need before a page of another origin may read an answer (Fetch standard, CORS protocol). Does not own who
 * may call: the guard has refused foreign origins before.
 *
 * Only configured origins are served, not every page on this machine: without keys each of them would be an admin.
 */
import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";

const allowedHeaders = [
  "content-type",
  "accept",
  "authorization",
  "x-api-key",
  "x-mcp-api-key",
  "mcp-session-id",
  "mcp-protocol-version",
  "mcp-method",
  "mcp-name",
  "last-event-id",
];

/** Answers preflights of pages of `origins`, and lets those pages read what they asked for. Never `*`, no credentials. */
export function shareWith(origins: readonly string[]): MiddlewareHandler {
  const known = new Set(origins.map(canonical));
  const share = allowing([]);
  return (context, next) => {
    const { req } = context;
    const origin = req.header("origin");
    if (origin === undefined || !known.has(canonical(origin))) return next();
    if (req.method !== "OPTIONS") return share(context, next);
    if (req.header("access-control-request-method") === undefined) return next();
    // What is asked for may be any `Mcp-Param-*`.
    const asked = req.header("access-control-request-headers");
    return allowing(asked === undefined ? [] : [asked])(context, next);
  };
}

const allowing = (further: readonly string[]): MiddlewareHandler =>
  cors({
    origin: (origin) => origin,
    allowMethods: ["GET", "HEAD", "POST", "DELETE"],
    allowHeaders: [...allowedHeaders, ...further],
    exposeHeaders: ["Mcp-Session-Id", "WWW-Authenticate"],
  });

/** Scheme and host in lower case, no default port, no trailing slash. */
const canonical = (origin: string): string => {
  const url = URL.canParse(origin) ? new URL(origin) : undefined;
  return url === undefined || url.origin === "null" ? origin.toLowerCase() : url.origin;
};
