/**
 * Sessions of the older revisions (2025-03-26 .. 2025-11-25; `initialize` answers 2024-11-05 too). Owns: their table, age and limit.
 *
 * 1. A session belongs to the principal that opened it; for anybody else it does not exist.
 * 2. An id signed with our secret that is not in the table is taken over, unless it was ended here or is too old.
 * 3. A session without an open stream is ended after `ttlSeconds` without a request.
 * 4. At the limit the session idle for longest gives way; it can be taken over again. Where every one is in use a
 *    new one is refused.
 */
import {
  SUPPORTED_PROTOCOL_VERSIONS,
  WebStandardStreamableHTTPServerTransport,
  type AuthInfo,
  type Server,
} from "@modelcontextprotocol/server";
import { createHash, randomUUID } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/log.ts";
import type { Principal } from "../tools/call.ts";
import type { RpcId } from "./message.ts";
import { SessionIds } from "./session-id.ts";

export interface SessionOptions {
  /** Seconds without a request after which a session ends. */
  readonly ttlSeconds: number;
  /** Sessions held at once. */
  readonly max: number;
  readonly secret?: string;
}

export interface SessionDeps extends SessionOptions {
  readonly build: () => Server;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Revisions that `initialize` negotiates, newest first as the SDK lists them. */
export const legacyRevisions: readonly string[] = SUPPORTED_PROTOCOL_VERSIONS;
const latestLegacy = legacyRevisions[0] ?? "2025-11-25";

/** Ids are refused after a day, however busy the session. */
const maxAgeSeconds = 24 * 3600;
/** Ended ids remembered; the oldest are forgotten first. */
const maxEnded = 100_000;
const sweepMs = 1000;

/** One session. The SDK's transport and server hold its protocol state. */
export interface Session {
  readonly id: string;
  readonly principal: string;
  readonly transport: WebStandardStreamableHTTPServerTransport;
  readonly server: Server;
  /** Requests and streams under way. */
  busy: number;
  /** Ids of the requests under way that did not come in a batch: no other answer needs their stream. */
  readonly single: Set<RpcId>;
  /** Monotonic ms. */
  lastUsed: number;
}

export type Lookup =
  | { readonly kind: "found"; readonly session: Session }
  | { readonly kind: "unknown" }
  | { readonly kind: "full" };

export class Sessions {
  readonly #deps: SessionDeps;
  readonly #ids: SessionIds;
  readonly #replica = randomUUID();
  readonly #sessions = new Map<string, Session>();
  /** Digest of an ended id -> seconds since the epoch when it may be forgotten. */
  readonly #ended = new Map<string, number>();
  readonly #adopting = new Map<string, Promise<Lookup>>();
  readonly #sweeper: NodeJS.Timeout;

  constructor(deps: SessionDeps) {
    this.#deps = deps;
    this.#ids = new SessionIds(deps.secret);
    this.#sweeper = setInterval(() => this.#sweep(), sweepMs);
    this.#sweeper.unref();
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** A new session for an `initialize` that asks for `revision`; undefined at the limit. (4) */
  async open(revision: unknown, principal: Principal): Promise<Session | undefined> {
    if (!this.#makeRoom()) return undefined;
    const id = this.#ids.create({
      issuedAt: secondsNow(),
      revision: typeof revision === "string" && legacyRevisions.includes(revision) ? revision : latestLegacy,
      principal: principal.name,
      replica: this.#replica,
    });
    return this.#add(id, principal.name);
  }

  /** The session of a request's id. (1) (2) */
  async find(id: string, principal: Principal, authInfo: AuthInfo): Promise<Lookup> {
    const session = this.#sessions.get(id);
    if (session !== undefined)
      return session.principal === principal.name ? { kind: "found", session } : { kind: "unknown" };
    const claims = this.#ids.read(id);
    if (claims?.principal !== principal.name || this.#ended.has(digest(id))) return { kind: "unknown" };
    if (secondsNow() - claims.issuedAt > maxAgeSeconds) return { kind: "unknown" };
    let adoption = this.#adopting.get(id);
    if (adoption === undefined) {
      adoption = this.#adopt(id, claims.revision, principal, authInfo).finally(() =>
        this.#adopting.delete(id),
      );
      this.#adopting.set(id, adoption);
    }
    return adoption;
  }

  /** Ends a session for good; its id is refused from now on. */
  async end(session: Session): Promise<void> {
    this.#ended.set(digest(session.id), secondsNow() + maxAgeSeconds);
    if (this.#ended.size > maxEnded) {
      const oldest = this.#ended.keys().next().value;
      if (oldest !== undefined) this.#ended.delete(oldest);
    }
    await this.#drop(session);
  }

  /** Tells every session that the list of tools changed. */
  toolsChanged(): void {
    for (const session of this.#sessions.values()) {
      session.server.sendToolListChanged().catch((error: unknown) => {
        this.#deps.log.debug({ err: String(error) }, "a session could not be told of changed tools");
      });
    }
  }

  /** Closes the streams that wait for notifications; calls go on. */
  endStreams(): void {
    for (const session of this.#sessions.values()) session.transport.closeStandaloneSSEStream();
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    await Promise.all([...this.#sessions.values()].map((session) => this.#drop(session)));
  }

  async #add(id: string, principal: string): Promise<Session> {
    const server = this.#deps.build();
    const transport = new WebStandardStreamableHTTPServerTransport({ sessionIdGenerator: () => id });
    await server.connect(transport);
    const lastUsed = this.#deps.clock.now();
    const session: Session = { id, principal, transport, server, busy: 0, single: new Set(), lastUsed };
    this.#sessions.set(id, session);
    return session;
  }

  /** Brings a fresh server to the state that `initialize` and `initialized` leave behind. */
  async #adopt(id: string, revision: string, principal: Principal, authInfo: AuthInfo): Promise<Lookup> {
    if (!this.#makeRoom()) return { kind: "full" };
    const session = await this.#add(id, principal.name);
    const initialize = {
      jsonrpc: "2.0",
      id: "onex-adopt",
      method: "initialize",
      params: { protocolVersion: revision, capabilities: {}, clientInfo: { name: "unknown", version: "0" } },
    };
    for (const parsedBody of [initialize, { jsonrpc: "2.0", method: "notifications/initialized" }]) {
      const request = new Request("http://localhost/", {
        method: "POST",
        headers: {
          "content-type": "application/json",
          accept: "application/json, text/event-stream",
          "mcp-session-id": id,
        },
      });
      const response = await session.transport.handleRequest(request, { parsedBody, authInfo });
      await response.text();
    }
    this.#deps.log.debug({ principal: principal.name, revision }, "took over a session");
    return { kind: "found", session };
  }

  async #drop(session: Session): Promise<void> {
    this.#sessions.delete(session.id);
    await session.server.close();
  }

  /** (4) */
  #makeRoom(): boolean {
    if (this.#sessions.size < this.#deps.max) return true;
    let longestIdle: Session | undefined;
    for (const session of this.#sessions.values()) {
      if (session.busy > 0) continue;
      if (longestIdle === undefined || session.lastUsed < longestIdle.lastUsed) longestIdle = session;
    }
    if (longestIdle === undefined) return false;
    void this.#drop(longestIdle);
    return true;
  }

  /** (3) */
  #sweep(): void {
    const oldest = this.#deps.clock.now() - this.#deps.ttlSeconds * 1000;
    for (const session of this.#sessions.values()) {
      if (session.busy === 0 && session.lastUsed <= oldest) void this.end(session);
    }
    const now = secondsNow();
    for (const [id, until] of this.#ended) {
      if (until > now) break;
      this.#ended.delete(id);
    }
  }
}

const secondsNow = (): number => Math.floor(Date.now() / 1000);
const digest = (id: string): string => createHash("sha256").update(id).digest("base64url");
