/**
 * Proof that the server which answers on a port is the one that was just started, and not a stranger who holds it.
 *
 * The prober sends a fresh nonce in `x-onex-readiness`; our server answers with the HMAC of that nonce under a secret
 * that both sides hold in memory. The secret never travels, and an echo of the request proves nothing.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { request } from "node:http";
import { abortReason, deadline, sleep } from "../core/abort.ts";
import { InfraTimeoutError, messageOf } from "../core/errors.ts";
import { httpUrl, reachableHost } from "./address.ts";

export const readinessHeader = "x-onex-readiness";

/** The answer to a prober's nonce; undefined for a value that no prober of ours sends. */
export function readinessProof(token: string, nonce: string): string | undefined {
  if (!/^[0-9a-f]{32}$/.test(nonce)) return undefined;
  return createHmac("sha256", token).update(`onex-readiness:${nonce}`).digest("hex");
}

export interface ReadinessOptions {
  /** The path of the route that answers the proof. Default `/health`. */
  readonly path?: string;
  /** The secret of the server that was started. */
  readonly token: string;
  readonly timeoutMs: number;
  /** Default 50. */
  readonly intervalMs?: number;
}

/**
 * Resolves once the server bound to `host` and `port` has answered through the real socket and proved itself.
 *
 * @throws InfraTimeoutError when the time is over, with what was last seen; the signal's reason when it aborts
 */
export async function waitUntilReady(
  server: { readonly host: string; readonly port: number },
  options: ReadinessOptions,
  signal?: AbortSignal,
): Promise<void> {
  const host = reachableHost(server.host);
  const path = options.path ?? "/health";
  const seconds = options.timeoutMs / 1000;
  using limit = deadline(seconds, "readiness", signal);
  const over = (): boolean => limit.signal.aborted;
  let last = "no answer came";
  while (!over()) {
    const outcome = await probe({ host, port: server.port, path, token: options.token }, limit.signal);
    if (outcome === "ready") return;
    // What the limit itself interrupted says less than what was seen before it.
    if (!over()) last = outcome;
    await sleep(options.intervalMs ?? 50, limit.signal).catch(() => undefined);
  }
  if (signal?.aborted === true) throw abortReason(signal);
  const target = `${httpUrl(host, server.port)}${path}`;
  throw new InfraTimeoutError(`${target} did not prove ready within ${options.timeoutMs} ms: ${last}`, {
    facts: { transport: "http", operation: "readiness", target, timeout_seconds: seconds },
  });
}

interface Probe {
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly token: string;
}

/** One attempt on a connection of its own: `ready`, or what was seen instead. Never rejects. */
function probe({ host, port, path, token }: Probe, signal: AbortSignal): Promise<string> {
  const nonce = randomBytes(16).toString("hex");
  const expected = readinessProof(token, nonce) ?? "";
  return new Promise((resolve) => {
    const probing = request(
      { host, port, path, agent: false, signal, headers: { [readinessHeader]: nonce } },
      (response) => {
        response.resume();
        const status = response.statusCode ?? 0;
        const proof = response.headers[readinessHeader];
        if (typeof proof !== "string" || !equal(proof, expected)) {
          resolve(`another server answers there (status ${status}, no valid proof)`);
          // A stranger's body may never end.
          probing.destroy();
        } else resolve(status === 200 ? "ready" : `it answers with status ${status}`);
      },
    );
    probing.once("error", (error) => resolve(messageOf(error)));
    probing.end();
  });
}

function equal(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
