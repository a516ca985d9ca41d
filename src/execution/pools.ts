/**
 * Connections to services, one pool per origin. Owns the pools and their limits. Does not own: what is sent and what an
 * answer means.
 *
 * 1. A pool is made on first use and closed once no tool points at its origin; calls under way on it end normally.
 * 2. At most `maxOutstanding` calls are under way or waiting per origin: a slow service holds nothing of the others.
 */
import { isIP } from "node:net";
import { Pool } from "undici";
import { InfraUnavailableError, RuntimeHostError } from "../core/errors.ts";
import type { Networks } from "./networks.ts";

/** Sockets per origin. */
const maxConnections = 64;
/** Calls per origin, sent and waiting for a socket. */
const maxOutstanding = 1024;
/** For a connection to be there, name lookup and TLS included. */
export const connectTimeoutSeconds = 5;
/** The call's deadline (at most 300 s) is the limit that counts; this only ends what it could not. */
const backstopMs = 310_000;

export interface OriginPool {
  readonly origin: string;
  readonly pool: Pool;
  /** Sent or waiting. */
  outstanding: number;
}

export class Pools {
  readonly #networks: Networks;
  readonly #byOrigin = new Map<string, OriginPool>();
  #closed = false;

  constructor(networks: Networks) {
    this.#networks = networks;
  }

  get origins(): readonly string[] {
    return [...this.#byOrigin.keys()];
  }

  /**
   * @param label the tool's name, for the error
   * @throws InfraUnavailableError where too many calls wait for this origin, or all is closed
   * @throws RuntimeHostError where its address may not be called
   */
  get(origin: string, label: string): OriginPool {
    let pool = this.#byOrigin.get(origin);
    if (pool === undefined) {
      if (this.#closed) throw new InfraUnavailableError("The runtime is stopping.");
      pool = this.#open(origin, label);
      this.#byOrigin.set(origin, pool);
    }
    if (pool.outstanding >= maxOutstanding)
      throw new InfraUnavailableError(`Too many calls wait for the service behind "${label}".`, {
        facts: { transport: "http", target: origin, retry_after_seconds: 1 },
      });
    return pool;
  }

  /** Calls sent to the origin or waiting for it. */
  outstanding(origin: string): number {
    return this.#byOrigin.get(origin)?.outstanding ?? 0;
  }

  /** Closes every pool whose origin is not wanted and gives these origins. (1) */
  retain(wanted: ReadonlySet<string>): readonly string[] {
    const gone = this.origins.filter((origin) => !wanted.has(origin));
    for (const origin of gone) {
      // Never awaited: it lasts as long as the slowest call under way.
      this.#byOrigin
        .get(origin)
        ?.pool.close()
        .catch(() => undefined);
      this.#byOrigin.delete(origin);
    }
    return gone;
  }

  async destroy(reason: Error): Promise<void> {
    this.#closed = true;
    const pools = [...this.#byOrigin.values()].map(({ pool }) => pool);
    this.#byOrigin.clear();
    await Promise.allSettled(pools.map((pool) => pool.destroy(reason)));
  }

  #open(origin: string, label: string): OriginPool {
    const host = new URL(origin).hostname.replace(/^\[|\]$/g, "");
    // A literal address is connected to without a lookup.
    if (isIP(host) !== 0 && !this.#networks.allows(host)) throw addressRefused(origin, label);
    const pool = new Pool(origin, {
      connections: maxConnections,
      headersTimeout: backstopMs,
      bodyTimeout: backstopMs,
      connect: { lookup: this.#networks.lookup, timeout: connectTimeoutSeconds * 1000 },
      // With HTTP/2 one connection would carry every call and the limit above would mean nothing.
      allowH2: false,
    });
    return { origin, pool, outstanding: 0 };
  }
}

/** @param label the tool's name */
export const addressRefused = (origin: string, label: string, cause?: unknown): RuntimeHostError =>
  new RuntimeHostError(`The service behind "${label}" has an address that may not be called.`, {
    cause,
    facts: { transport: "http", target: origin },
  });
