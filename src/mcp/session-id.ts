/**
 * Session ids of the older revisions: self-describing and signed, so that any replica with the same secret can take
 * a session over. An id is `<payload>.<signature>`, both base64url: visible ASCII as the 2025-11-25 transport page asks.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { isObject } from "../core/json.ts";

export interface SessionClaims {
  /** Seconds since the epoch. */
  readonly issuedAt: number;
  /** Negotiated protocol revision. */
  readonly revision: string;
  /** Name of the principal the session belongs to. */
  readonly principal: string;
  /** The replica that made it. */
  readonly replica: string;
}

/** Signs and reads session ids with one secret. */
export class SessionIds {
  readonly #secret: Buffer;

  /** @param secret shared by replicas; a random one per process when absent */
  constructor(secret?: string) {
    this.#secret = secret === undefined ? randomBytes(32) : Buffer.from(secret);
  }

  create(claims: SessionClaims): string {
    const payload = Buffer.from(
      JSON.stringify([
        claims.issuedAt,
        claims.revision,
        claims.principal,
        claims.replica,
        randomBytes(16).toString("base64url"),
      ]),
    ).toString("base64url");
    return `${payload}.${this.#sign(payload)}`;
  }

  /** @returns undefined for an id that was not signed with this secret */
  read(id: string): SessionClaims | undefined {
    const [payload, signature, ...rest] = id.split(".");
    if (payload === undefined || signature === undefined || rest.length > 0) return undefined;
    // Compared as text: many texts decode to one signature, and an id that was ended must not come back as another.
    const given = Buffer.from(signature);
    const expected = Buffer.from(this.#sign(payload));
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined;
    return claimsOf(JSON.parse(Buffer.from(payload, "base64url").toString("utf8")));
  }

  #sign(payload: string): string {
    return createHmac("sha256", this.#secret).update(payload).digest("base64url");
  }
}

function claimsOf(value: unknown): SessionClaims | undefined {
  if (isObject(value) || !Array.isArray(value)) return undefined;
  const [issuedAt, revision, principal, replica] = value as unknown[];
  if (typeof issuedAt !== "number" || typeof revision !== "string") return undefined;
  if (typeof principal !== "string" || typeof replica !== "string") return undefined;
  return { issuedAt, revision, principal, replica };
}
