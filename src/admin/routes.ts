/**
 * The plain HTTP routes: those beside the MCP endpoint, and the host's own operator port. Owns paths, methods, bodies,
 * cache headers, and what "ready" means for the gateway. Does not own the facts (read functions) or who may ask
 * (`HttpParts`).
 *
 * 1. A wrong method on a known path is 405 with Allow; an unknown path is 404; both are problems.
 * 2. The guard runs before every route, those that others add to the app included.
 * 3. What names an address or a path, or may hold one (endpoints, error texts, load reports), is shown to admins only.
 */
import { createHash } from "node:crypto";
import { Hono, type Context, type MiddlewareHandler } from "hono";
import { errorTable } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import type { Principal } from "../tools/call.ts";
import type { Explanation } from "../tools/explain.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { SourceStatus } from "../tools/source.ts";
import type { Tool } from "../tools/tool.ts";
import { breakerOnWire, breakersOnWire, type BreakerReading } from "./breakers.ts";
import { endpointUrls } from "./endpoints.ts";
import { explanationOnWire } from "./explain.ts";

/** What the routes need of `http/`, handed in by the composition. */
export interface HttpParts {
  readonly guard: MiddlewareHandler;
  /** The caller if the request proves one. */
  readonly identify: (request: Request) => Principal | undefined;
  /** The caller if they hold the role, else the answer. */
  readonly authorize: (request: Request, role: Principal["role"]) => Principal | Response;
  readonly problem: (
    status: number,
    options?: { readonly detail?: string; readonly headers?: Readonly<Record<string, string>> },
  ) => Response;
  /** The body within the limit, else the answer. */
  readonly readBody: (request: Request) => Promise<Uint8Array | Response>;
}

export interface GatewayReads {
  readonly snapshot: () => Snapshot;
  readonly sources: () => readonly SourceStatus[];
  /** What became of each contract file; undefined where none are read. */
  readonly report: () => object | undefined;
  readonly initialized: () => boolean;
  readonly draining: () => boolean;
  /** The tool as tools/list publishes it: name, title, description, schemas, annotations under their MCP names. */
  readonly definition: (tool: Tool) => JsonObject;
  /** False while a call would be refused: its breaker is open. */
  readonly available: (tool: Tool) => boolean;
  /** All that is counted, in Prometheus' text format. */
  readonly metrics: { readonly contentType: string; text(): Promise<string> };
  /** Why a name is served as it is, or is not. */
  readonly explain: (name: string) => Explanation;
  /** The circuit breakers of services, by origin. */
  readonly breakers: () => ReadonlyMap<string, BreakerReading>;
  /** Closes one; false where there is none of this name. */
  readonly resetBreaker: (name: string, by: Principal) => boolean;
  /** Of the breakers' clock, in milliseconds. */
  readonly now: () => number;
  /** The answer to a readiness probe's nonce; undefined where there is none. */
  readonly readinessProof: (nonce: string) => string | undefined;
}

type Health = "healthy" | "degraded" | "unhealthy";

/** Of a probe of the server's own start, and of the answer to it. */
const readinessHeader = "x-onex-readiness";

/**
 * `/health`, `/ready`, `/mcp/tools`, why a tool is there or not, and the circuit breakers, guarded; the gateway adds the MCP
 * endpoint to the app.
 */
export function gatewayRoutes(reads: GatewayReads, http: HttpParts): Hono {
  const app = plainApp(http);

  readOnly(app, http, "/health", (context) => {
    const proof = reads.readinessProof(context.req.header(readinessHeader) ?? "");
    if (proof !== undefined) context.header(readinessHeader, proof);
    return json(context, {
      status: healthOf(reads),
      tool_count: reads.snapshot().tools.length,
      initialized: reads.initialized(),
    });
  });

  readOnly(app, http, "/ready", (context) => {
    const reasons = unreadyReasons(reads);
    const ready = reasons.length === 0;
    const admin = http.identify(context.req.raw)?.role === "admin";
    const sources = reads.sources().map((source) => sourceOnWire(source, admin));
    const report = admin ? { load_report: reads.report() ?? null } : {};
    return json(context, { ready, reasons, sources, ...report }, ready ? 200 : 503);
  });

  readOnly(app, http, "/mcp/tools", (context) => {
    const caller = http.authorize(context.req.raw, "user");
    if (caller instanceof Response) return caller;
    const { tools, generation } = reads.snapshot();
    const body = JSON.stringify({
      tools: tools.map((tool) => ({
        ...reads.definition(tool),
        version: tool.version,
        source: tool.source,
        server_name: tool.source === "upstream" ? tool.owner : null,
        available: reads.available(tool),
        ...(caller.role === "admin" ? { endpoints: endpointUrls(tool) } : {}),
      })),
      generation,
    });
    // Of the text, not of the generation, which starts anew with the process and does not move with `available`.
    const etag = `"${createHash("sha256").update(body).digest("base64url")}"`;
    const headers = {
      etag,
      "cache-control": "private, no-cache",
      vary: "Authorization, X-API-Key, X-MCP-API-Key",
    };
    if (matches(context.req.header("if-none-match"), etag)) return context.body(null, 304, headers);
    return context.body(body, 200, { ...headers, "content-type": "application/json" });
  });

  readOnly(app, http, "/metrics", async (context) => {
    const caller = http.authorize(context.req.raw, "user");
    if (caller instanceof Response) return caller;
    return context.body(await reads.metrics.text(), 200, { "content-type": reads.metrics.contentType });
  });

  readOnly(app, http, "/mcp/tools/:name/explain", (context) => {
    const caller = http.authorize(context.req.raw, "admin");
    if (caller instanceof Response) return caller;
    return json(context, explanationOnWire(reads.explain(context.req.param("name") ?? "")));
  });

  readOnly(app, http, "/mcp/circuit-breakers", (context) => {
    const caller = http.authorize(context.req.raw, "admin");
    if (caller instanceof Response) return caller;
    return json(context, breakersOnWire(reads.breakers(), reads.now()));
  });

  // The name is an origin, percent-encoded. (3)
  app.post("/mcp/circuit-breakers/:name/reset", (context) => {
    const caller = http.authorize(context.req.raw, "admin");
    if (caller instanceof Response) return caller;
    const name = context.req.param("name");
    if (!reads.resetBreaker(name, caller))
      return http.problem(404, { detail: "There is no circuit breaker of this name." });
    return json(context, breakerOnWire(name, { kind: "closed", failures: 0 }, reads.now()));
  });
  app.all("/mcp/circuit-breakers/:name/reset", () => methodNotAllowed(http, "POST"));

  return app;
}

export interface HostStatus {
  readonly status: Health;
  readonly version: string;
  readonly details: object;
}

/** The part of an envelope's answer that decides the HTTP status. */
export interface EnvelopeAnswer {
  readonly success: boolean;
  readonly handler_id: string | null;
  readonly error?: { readonly code: string };
}

export interface HostReads {
  /** Liveness: that it answers is the answer. */
  readonly health: () => HostStatus | Promise<HostStatus>;
  readonly readiness: () => HostReadiness | Promise<HostReadiness>;
  /** Takes the bytes as they came; resolves with the envelope's answer, also for bytes that are no envelope. */
  readonly handle: (bytes: Uint8Array, signal: AbortSignal) => Promise<EnvelopeAnswer>;
}

/** Ready: every required handler is healthy and nothing drains. */
export interface HostReadiness extends HostStatus {
  readonly ready: boolean;
}

/**
 * The host's operator port: `/health`, `/ready` and `POST /envelopes`.
 *
 * `POST /envelopes` answers 200 with the envelope's answer for every envelope that a handler could be asked to serve,
 * whether it then succeeded or not; 400 with the answer for what the runtime itself refused as malformed or as no
 * handler's operation.
 */
export function hostRoutes(reads: HostReads, http: HttpParts): Hono {
  const app = plainApp(http);

  /** (3) */
  const shown = (context: Context, status: HostStatus): HostStatus => {
    if (http.identify(context.req.raw)?.role === "admin") return status;
    return { status: status.status, version: status.version, details: {} };
  };

  readOnly(app, http, "/health", async (context) => json(context, shown(context, await reads.health())));

  readOnly(app, http, "/ready", async (context) => {
    const { ready, ...status } = await reads.readiness();
    return json(context, shown(context, status), ready ? 200 : 503);
  });

  app.post("/envelopes", async (context) => {
    const caller = http.authorize(context.req.raw, "admin");
    if (caller instanceof Response) return caller;
    // Taken before the body is read: a client that leaves during the reading is noticed as well.
    const { signal } = context.req.raw;
    const body = await http.readBody(context.req.raw);
    if (body instanceof Response) return body;
    const answer = await reads.handle(body, signal);
    return json(context, answer, refused(answer) ? 400 : 200);
  });
  app.all("/envelopes", () => methodNotAllowed(http, "POST"));

  return app;
}

function plainApp(http: HttpParts): Hono {
  const app = new Hono();
  app.use(http.guard);
  app.notFound(() => http.problem(404, { detail: "There is nothing at this path." }));
  // The server reports what a route throws and answers it; Hono would print it and answer in plain text.
  app.onError((error) => {
    throw error;
  });
  return app;
}

/** A route for GET, and so for HEAD; anything else is 405. (1) */
function readOnly(
  app: Hono,
  http: HttpParts,
  path: string,
  handler: (context: Context) => Response | Promise<Response>,
): void {
  app.get(path, handler);
  app.all(path, () => methodNotAllowed(http, "GET, HEAD"));
}

const methodNotAllowed = (http: HttpParts, allow: string): Response =>
  http.problem(405, { detail: `Allowed here: ${allow}.`, headers: { allow } });

function json(context: Context, body: object, status: 200 | 400 | 503 = 200): Response {
  return context.body(JSON.stringify(body), status, {
    "content-type": "application/json",
    "cache-control": "no-store",
  });
}

const refused = (answer: EnvelopeAnswer): boolean =>
  !answer.success &&
  answer.handler_id === null &&
  answer.error?.code === errorTable.EnvelopeValidationError.code;

/** Degraded is still alive and serving: the last good state of a source that cannot be reached stays. */
function healthOf(reads: GatewayReads): Health {
  if (!reads.initialized()) return "unhealthy";
  return reads.draining() || reads.sources().some((source) => source.state !== "ready")
    ? "degraded"
    : "healthy";
}

/** Why no traffic should come; a source that serves its last good state is no reason. */
function unreadyReasons(reads: GatewayReads): string[] {
  return [
    ...(reads.initialized() ? [] : ["not_initialized"]),
    ...(reads.draining() ? ["draining"] : []),
    ...reads
      .sources()
      .filter(({ state }) => state === "starting" || state === "closed")
      .map(({ name, state }) => `source ${name} is ${state}`),
  ];
}

const sourceOnWire = (source: SourceStatus, admin: boolean): object => ({
  name: source.name,
  kind: source.kind,
  state: source.state,
  age_seconds: source.ageSeconds,
  ...(source.counters !== undefined && { counters: source.counters }),
  ...(source.restoredFrom !== undefined && { restored_from: source.restoredFrom }),
  // (3)
  ...(admin && source.lastError !== undefined ? { last_error: source.lastError } : {}),
});

/** RFC 9110 If-None-Match: weak comparison, a list, or `*`. */
function matches(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  return ifNoneMatch.split(",").some((part) => {
    const candidate = part.trim();
    return candidate === "*" || candidate.replace(/^W\//, "") === etag;
  });
}
