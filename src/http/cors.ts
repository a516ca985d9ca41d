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
  return (context, next) => {
    const { req } = context;
    const origin = req.header("origin");
    if (origin === undefined || !known.has(canonical(origin))) return next();
    if (req.method === "OPTIONS" && req.header("access-control-request-method") === undefined) return next();
    // What is asked for may be any `Mcp-Param-*`.
    const asked = req.header("access-control-request-headers");
    const share = cors({
      origin,
      allowMethods: ["GET", "HEAD", "POST", "DELETE"],
      allowHeaders: asked === undefined ? allowedHeaders : [...allowedHeaders, asked],
      exposeHeaders: ["Mcp-Session-Id", "WWW-Authenticate"],
    });
    return share(context, next);
  };
}

/** Scheme and host in lower case, no default port, no trailing slash. */
const canonical = (origin: string): string => {
  const url = URL.canParse(origin) ? new URL(origin) : undefined;
  return url === undefined || url.origin === "null" ? origin.toLowerCase() : url.origin;
};
