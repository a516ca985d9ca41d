/**
 * Connections to services, one pool per origin. Owns the pools and their limits. Does not own: what is sent and what an
 * answer means.
 *
 * 1. A pool is made on first use and closed once no tool points at its origin; calls under way on it end normally.
 * 2. So many calls are under way per origin, and so many wait, and no more: a slow service holds nothing of the others.
 */
import { isIP } from "node:net";
import type { SecureContext } from "node:tls";
import { Pool } from "undici";
import { InfraUnavailableError, RuntimeHostError } from "../core/errors.ts";
import { Bulkhead } from "../resilience/bulkhead.ts";
import { overloaded, type InstanceLimits } from "./call-limits.ts";
import type { Networks } from "./networks.ts";
import { connector } from "./tls.ts";

/** For a connection to be there, name lookup and TLS included. */
export const connectTimeoutSeconds = 5;
/** The call's deadline (at most 300 s) is the limit that counts; this only ends what it could not. */
const backstopMs = 310_000;

/** The connections to one origin, and what every call of it passes. (2) */
export class OriginPool {
  readonly origin: string;
  readonly pool: Pool;
  readonly bulkhead: Bulkhead;
  #isGoing = false;

  constructor(origin: string, pool: Pool, { concurrency, queue }: InstanceLimits) {
    this.origin = origin;
    this.pool = pool;
    this.bulkhead = new Bulkhead(concurrency, queue);
  }

  /** A call that was let in is over. */
  leave(): void {
    this.bulkhead.leave();
    if (this.#isGoing) this.close();
  }

  /** Closes the connections after the last call, those that wait included: undici takes none once it is told to close. */
  close(): void {
    this.#isGoing = true;
    if (this.bulkhead.waiting > 0) return;
    // Never awaited: it lasts as long as the slowest call under way. It rejects where it is closed already.
    this.pool.close().catch(() => undefined);
  }
}

export class Pools {
  readonly #networks: Networks;
  readonly #limits: InstanceLimits;
  readonly #tls: SecureContext | undefined;
  readonly #byOrigin = new Map<string, OriginPool>();
  #closed = false;

  /** @param tls of connections to `https:` origins. Default: Node's own */
  constructor(networks: Networks, limits: InstanceLimits, tls?: SecureContext) {
    this.#networks = networks;
    this.#limits = limits;
    this.#tls = tls;
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
    if (pool.bulkhead.full)
      throw overloaded(`Too many calls wait for the service behind "${label}": it is`, {
        transport: "http",
        target: origin,
      });
    return pool;
  }

  /** Calls sent to the origin or waiting for it. */
  load(origin: string): number {
    return this.#byOrigin.get(origin)?.bulkhead.load ?? 0;
  }

  /** True where a call would be turned away at once. */
  isFull(origin: string): boolean {
    return this.#byOrigin.get(origin)?.bulkhead.full ?? false;
  }

  /** Closes every pool whose origin is not wanted and gives these origins. (1) */
  retain(wanted: ReadonlySet<string>): readonly string[] {
    const gone = this.origins.filter((origin) => !wanted.has(origin));
    for (const origin of gone) {
      this.#byOrigin.get(origin)?.close();
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
      connections: this.#limits.concurrency,
      headersTimeout: backstopMs,
      bodyTimeout: backstopMs,
      connect: connector({
        lookup: this.#networks.lookup,
        timeout: connectTimeoutSeconds * 1000,
        allowH2: false,
        ...(this.#tls !== undefined && { secureContext: this.#tls }),
      }),
      // With HTTP/2 one connection would carry every call and the limit above would mean nothing.
      allowH2: false,
    });
    return new OriginPool(origin, pool, this.#limits);
  }
}

/** @param label the tool's name */
export const addressRefused = (origin: string, label: string, cause?: unknown): RuntimeHostError =>
  new RuntimeHostError(`The service behind "${label}" has an address that may not be called.`, {
    cause,
    facts: { transport: "http", target: origin },
  });
