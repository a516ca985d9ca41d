/**
 * The MCP front: one URL, every revision. Owns the choice of era and door. Does not own: who may come in, how large a
 * body may be (the HTTP guard), or how a tool is executed (it receives `call`).
 *
 * 1. A request with the `_meta` envelope of 2026-07-28, or with its header, goes through the modern door: no session.
 * 2. `initialize` opens a session (unless stateless), its id leads back to it.
 * 3. A POST of an older revision without a session id stands alone.
 */
import {
  createMcpHandler,
  isInitializeRequest,
  isJsonContentType,
  isLegacyRequest,
  legacyStatelessFallback,
  type AuthInfo,
  type LegacyHttpHandler,
  type McpHttpHandler,
} from "@modelcontextprotocol/server";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { monotonicClock } from "../core/clock.ts";
import { isObject } from "../core/json.ts";
import type { Principal } from "../tools/call.ts";
import type { SnapshotListener } from "../tools/catalog.ts";
import { acceptedBy } from "./accept.ts";
import { Hot } from "./hot.ts";
import { idOf, readMessage, rpcError } from "./message.ts";
import { paramMismatch } from "./params.ts";
import { plainWherePossible } from "./plain.ts";
import { buildServer, listTtlMs, type ServerDeps } from "./server.ts";
import type { SessionRequest } from "./session.ts";
import { legacyRevisions, Sessions, type SessionOptions } from "./sessions.ts";

export interface FrontOptions extends ServerDeps {
  readonly onChange: (listener: SnapshotListener) => () => void;
  /** No sessions: every POST stands alone, no GET stream. */
  readonly stateless: boolean;
  /** A plain answer is JSON; false: always a stream. */
  readonly jsonResponse: boolean;
  readonly sessions: SessionOptions;
}

/** Subscription streams open at once (2026-07-28 `subscriptions/listen`). */
const maxSubscriptions = 10_000;
const headerMismatch = -32020;
const revisionWithParams = "2026-07-28";

export class Front {
  readonly #options: FrontOptions;
  readonly #sessions: Sessions;
  readonly #calls: McpHttpHandler;
  /** A handler of its own for subscriptions: they end before the calls do. */
  readonly #subscriptions: McpHttpHandler;
  readonly #standalone: LegacyHttpHandler;
  readonly #stopListening: () => void;
  readonly #hot: Hot | undefined;

  constructor(options: FrontOptions) {
    this.#options = options;
    const build = (): ReturnType<typeof buildServer> => buildServer(options);
    const onerror = (error: Error): void => options.log.debug({ err: error.message }, "MCP request refused");
    // Always a stream, which `plainWherePossible` undoes: only a stream can be kept alive while a tool works.
    const modern = { legacy: "reject", responseMode: "sse", onerror } as const;
    this.#calls = createMcpHandler(build, modern);
    this.#subscriptions = createMcpHandler(build, { ...modern, maxSubscriptions });
    this.#standalone = legacyStatelessFallback(build, onerror);
    this.#sessions = new Sessions({
      ...options.sessions,
      build,
      clock: options.clock ?? monotonicClock,
      log: options.log,
    });
    // A plain answer is a stream where they are wanted always: the SDK writes those.
    this.#hot = options.jsonResponse
      ? new Hot({
          ...options,
          listTtlMs,
          sessions: options.stateless ? undefined : this.#sessions,
        })
      : undefined;
    this.#stopListening = options.onChange(() => {
      this.#subscriptions.notify.toolsChanged();
      this.#sessions.toolsChanged();
    });
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /**
   * Answers one request to the MCP endpoint.
   *
   * @param body the text of a POST's body, already bounded in size
   */
  async fetch(request: Request, principal: Principal, body?: string): Promise<Response> {
    const authInfo: AuthInfo = { token: "", clientId: principal.name, scopes: [], extra: { principal } };
    switch (request.method) {
      case "POST":
        return this.#post(request, body ?? "", principal, authInfo);
      case "GET":
      case "DELETE":
        return this.#sessionRequest(request, principal, authInfo);
      default:
        return rpcError(405, -32000, "Method not allowed", null, {
          allow: this.#options.stateless ? "POST" : "GET, POST, DELETE",
        });
    }
  }

  /** Whether a POST with these headers may be one that `take` takes. */
  mayTake(headers: IncomingHttpHeaders): boolean {
    return this.#hot?.mayTake(headers) ?? false;
  }

  /** Answers a plain request to the MCP endpoint. False: it is none, and `fetch` must answer it. */
  take(request: IncomingMessage, response: ServerResponse, text: string, principal: Principal): boolean {
    return this.#hot?.take(request, response, text, principal) ?? false;
  }

  /** Ends subscriptions and waiting streams; calls go on. */
  async endStreams(): Promise<void> {
    this.#stopListening();
    this.#sessions.endStreams();
    await this.#subscriptions.close();
  }

  /** Ends everything that is still open. */
  async close(): Promise<void> {
    await this.endStreams();
    await Promise.all([this.#calls.close(), this.#sessions.close()]);
  }

  async #post(request: Request, text: string, principal: Principal, authInfo: AuthInfo): Promise<Response> {
    const reading = readMessage(text);
    if (!isJsonContentType(request.headers.get("content-type"))) {
      const problem = "Unsupported Media Type: send application/json";
      return rpcError(415, -32000, problem, reading.ok ? idOf(reading.body) : null);
    }
    if (!reading.ok) return rpcError(400, reading.refusal.code, reading.refusal.message, reading.refusal.id);
    const parsedBody = reading.body;
    const accepted = acceptedBy(request.headers.get("accept"));
    const isOlder = await isLegacyRequest(request, parsedBody);
    if (isOlder && accepted === "none") {
      const problem = "Not Acceptable: accept application/json or text/event-stream";
      return rpcError(406, -32000, problem, idOf(parsedBody));
    }
    const exchange = { parsedBody, authInfo };
    if (isObject(parsedBody) && parsedBody["method"] === "subscriptions/listen" && !isOlder)
      return this.#subscriptions.fetch(request, exchange);
    const answer = isOlder
      ? await this.#legacyAnswer(namesBoth(request) ? request : withFullAccept(request), exchange, principal)
      : (this.#checkParams(request, parsedBody) ?? (await this.#calls.fetch(request, exchange)));
    if (accepted === "json") return plainWherePossible(answer, "json");
    return this.#options.jsonResponse && accepted !== "stream" ? plainWherePossible(answer, "auto") : answer;
  }

  /** A later revision, which is refused, may know other headers. */
  #checkParams(request: Request, body: unknown): Response | undefined {
    if (request.headers.get("mcp-protocol-version") !== revisionWithParams) return undefined;
    if (!isObject(body) || body["method"] !== "tools/call" || !isObject(body["params"])) return undefined;
    const { name, arguments: args } = body["params"];
    const tool = typeof name === "string" ? this.#options.snapshot().byName.get(name) : undefined;
    const mismatch = tool === undefined ? undefined : paramMismatch(tool, args, request.headers);
    return mismatch === undefined ? undefined : rpcError(400, headerMismatch, mismatch, idOf(body));
  }

  async #legacyAnswer(request: Request, exchange: SessionRequest, principal: Principal): Promise<Response> {
    const { parsedBody: body, authInfo } = exchange;
    if (this.#options.stateless) return this.#standalone(request, exchange);
    if (isInitializeRequest(body)) {
      const session = await this.#sessions.open(body.params.protocolVersion, principal);
      return session?.fetch(request, exchange) ?? tooManySessions(body);
    }
    const id = request.headers.get("mcp-session-id");
    if (id === null) return this.#standalone(request, exchange);
    const found = await this.#sessions.acquire(id, principal, authInfo);
    if (found.kind === "full") return tooManySessions(body);
    if (found.kind === "unknown") return unknownSession(body);
    return found.session.fetch(request, exchange);
  }

  async #sessionRequest(request: Request, principal: Principal, authInfo: AuthInfo): Promise<Response> {
    const id = request.headers.get("mcp-session-id");
    if (this.#options.stateless || id === null) {
      return rpcError(405, -32000, "Method not allowed: this needs a session", null, { allow: "POST" });
    }
    if (request.method === "DELETE") {
      const revision = request.headers.get("mcp-protocol-version");
      if (revision !== null && !legacyRevisions.includes(revision))
        return rpcError(400, -32000, "Bad Request: unsupported MCP-Protocol-Version", null);
      const isEnded = await this.#sessions.end(id, principal);
      return isEnded ? new Response(null) : unknownSession(undefined);
    }
    const found = await this.#sessions.acquire(id, principal, authInfo);
    if (found.kind === "full") return tooManySessions(undefined);
    if (found.kind === "unknown") return unknownSession(undefined);
    return found.session.fetch(request, { authInfo });
  }
}

const unknownSession = (body: unknown): Response => rpcError(404, -32001, "Session not found", idOf(body));

const tooManySessions = (body: unknown): Response =>
  rpcError(503, -32000, "Too many sessions are open; try again later", idOf(body), { "retry-after": "5" });

const namesBoth = ({ headers }: Request): boolean => {
  const accept = headers.get("accept") ?? "";
  return accept.includes("application/json") && accept.includes("text/event-stream");
};

/** The SDK's older door demands both types by name; a plain `curl` sends neither. */
function withFullAccept(request: Request): Request {
  const headers = new Headers(request.headers);
  headers.set("accept", "application/json, text/event-stream");
  return new Request(request.url, { method: request.method, headers, signal: request.signal });
}
