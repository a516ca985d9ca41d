/**
 * Sessions of the older revisions (2025-03-26 .. 2025-11-25; `initialize` answers 2024-11-05 too). Owns: their table, age and limit.
 *
 * 1. A session belongs to the principal that opened it; for anybody else it does not exist.
 * 2. An id signed with our secret that is not in the table is taken over, unless it was ended here or is too old.
 * 3. A session without an open stream is ended after `ttlSeconds` without a request.
 * 4. At the limit the session idle for longest gives way; it can be taken over again. Where every one is in use a
 *    new one is refused. One that is about to be taken over counts.
 * 5. A session is in the table only when it can serve, and is handed out held: nothing ends it before its use.
 */
import { SUPPORTED_PROTOCOL_VERSIONS, type AuthInfo, type Server } from "@modelcontextprotocol/server";
import { createHash, randomUUID } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { Principal } from "../tools/call.ts";
import { Session } from "./session.ts";
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

/** Revisions that `initialize` negotiates, newest first. */
export const legacyRevisions: readonly string[] = SUPPORTED_PROTOCOL_VERSIONS;
const latestLegacy = legacyRevisions[0] ?? "2025-11-25";

/** Above this age, in seconds, an id is not taken over: by then it may be forgotten that it was ended. */
const maxAgeSeconds = 24 * 3600;
/** Ended ids remembered; the oldest are forgotten first. */
const maxEnded = 100_000;
const sweepMs = 1000;

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
  readonly #adopting = new Map<string, Promise<void>>();
  readonly #sweeper: NodeJS.Timeout;
  #isClosed = false;

  constructor(deps: SessionDeps) {
    this.#deps = deps;
    this.#ids = new SessionIds(deps.secret);
    this.#sweeper = setInterval(() => this.#sweep(), sweepMs);
    this.#sweeper.unref();
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** A new session, held, for an `initialize` that asks for `revision`; undefined at the limit. (4) (5) */
  async open(revision: unknown, principal: Principal): Promise<Session | undefined> {
    if (!this.#makeRoom()) return undefined;
    const id = this.#ids.create({
      issuedAt: secondsNow(),
      revision: typeof revision === "string" && legacyRevisions.includes(revision) ? revision : latestLegacy,
      principal: principal.name,
      replica: this.#replica,
    });
    const session = this.#make(id, principal);
    session.hold();
    // At once, so that it counts. Nobody else knows its id yet.
    this.#sessions.set(id, session);
    await session.connect();
    return session;
  }

  /** The session of a request's id where it is in the table, not held: for a request that is answered at once or held there. (1) */
  present(id: string, principal: Principal): Session | undefined {
    const session = this.#sessions.get(id);
    return session?.principal === principal.name ? session : undefined;
  }

  /** The session of a request's id, held. (1) (2) (5) */
  async acquire(id: string, principal: Principal, authInfo: AuthInfo): Promise<Lookup> {
    if (!this.#knows(id, principal)) return { kind: "unknown" };
    if (!this.#sessions.has(id)) {
      let adoption = this.#adopting.get(id);
      if (adoption === undefined) {
        if (!this.#makeRoom()) return { kind: "full" };
        adoption = this.#adopt(id, principal, authInfo).finally(() => this.#adopting.delete(id));
        this.#adopting.set(id, adoption);
      }
      await adoption;
    }
    const session = this.#sessions.get(id);
    // Ended, or given up for another, while it was taken over.
    if (session === undefined) return { kind: this.#knows(id, principal) ? "full" : "unknown" };
    session.hold();
    return { kind: "found", session };
  }

  /**
   * Ends a session for good, here or not: its id is refused from now on.
   *
   * @returns false where there is no such session
   */
  async end(id: string, principal: Principal): Promise<boolean> {
    if (!this.#knows(id, principal)) return false;
    this.#remember(id);
    await this.#drop(id);
    return true;
  }

  /** Tells every session that the list of tools changed. */
  toolsChanged(): void {
    for (const session of this.#sessions.values()) {
      session.toolsChanged().catch(this.#logged("a session could not be told of changed tools"));
    }
  }

  /** Closes the streams that wait for notifications; calls go on. */
  endStreams(): void {
    for (const session of this.#sessions.values()) session.endStream();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#sweeper);
    await Promise.all([...this.#sessions.keys()].map((id) => this.#drop(id)));
  }

  /** Whether this principal may use the id, here or by taking it over. */
  #knows(id: string, principal: Principal): boolean {
    const session = this.#sessions.get(id);
    if (session !== undefined) return session.principal === principal.name;
    const claims = this.#ids.read(id);
    if (claims?.principal !== principal.name || this.#ended.has(digest(id))) return false;
    return secondsNow() - claims.issuedAt <= maxAgeSeconds;
  }

  #make(id: string, principal: Principal): Session {
    return new Session(id, principal.name, this.#deps.build(), this.#deps.clock);
  }

  /** Brings a fresh server to the state that `initialize` and `initialized` leave behind, then into the table. (5) */
  async #adopt(id: string, principal: Principal, authInfo: AuthInfo): Promise<void> {
    const revision = this.#ids.read(id)?.revision ?? latestLegacy;
    const session = this.#make(id, principal);
    await session.connect();
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
      session.hold();
      const response = await session.fetch(request, { parsedBody, authInfo });
      await response.text();
    }
    if (this.#isClosed || !this.#knows(id, principal)) {
      await session.close();
      return;
    }
    this.#sessions.set(id, session);
    this.#deps.log.debug({ principal: principal.name, revision }, "took over a session");
  }

  #remember(id: string): void {
    this.#ended.set(digest(id), secondsNow() + maxAgeSeconds);
    if (this.#ended.size <= maxEnded) return;
    const oldest = this.#ended.keys().next().value;
    if (oldest !== undefined) this.#ended.delete(oldest);
  }

  async #drop(id: string): Promise<void> {
    const session = this.#sessions.get(id);
    this.#sessions.delete(id);
    await session?.close();
  }

  /** (4) */
  #makeRoom(): boolean {
    if (this.#isClosed) return false;
    if (this.#sessions.size + this.#adopting.size < this.#deps.max) return true;
    let longestIdle: string | undefined;
    let since = Infinity;
    for (const { id, idleSince } of this.#sessions.values()) {
      if (idleSince === undefined || idleSince >= since) continue;
      longestIdle = id;
      since = idleSince;
    }
    if (longestIdle === undefined) return false;
    this.#drop(longestIdle).catch(this.#logged("a session could not be closed"));
    return true;
  }

  /** (3) */
  #sweep(): void {
    const oldest = this.#deps.clock.now() - this.#deps.ttlSeconds * 1000;
    for (const { id, idleSince } of this.#sessions.values()) {
      if (idleSince === undefined || idleSince > oldest) continue;
      this.#remember(id);
      this.#drop(id).catch(this.#logged("a session could not be closed"));
    }
    const now = secondsNow();
    for (const [id, until] of this.#ended) {
      if (until > now) break;
      this.#ended.delete(id);
    }
  }

  #logged(message: string): (error: unknown) => void {
    return (error) => this.#deps.log.debug({ err: messageOf(error) }, message);
  }
}

const secondsNow = (): number => Math.floor(Date.now() / 1000);
const digest = (id: string): string => createHash("sha256").update(id).digest("base64url");
