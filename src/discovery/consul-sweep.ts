/**
 * Finding what has changed where the waking answers do not show it: another instance under the same tags, a new
 * address, other meta or weights. Owns when it is looked for. Does not own: reading the services that differ.
 *
 * 1. A wake during a look leads to one more look, and a look that has begun is finished: none is starved.
 * 2. Between two looks there is a pause as long as a look takes, so that a storm of changes costs half the time at most.
 */
import { sleep } from "../core/abort.ts";
import type { Clock } from "../core/clock.ts";
import { InfraAuthenticationError } from "../core/errors.ts";
import type { ConsulNode, ConsulNodeService } from "./consul-answers.ts";
import type { ConsulClient, ConsulRead } from "./consul-client.ts";
import type { ConsulState } from "./consul-state.ts";
import { retryMs } from "./consul-wait.ts";
import { enabledTag } from "./tags.ts";

export interface SweepOptions {
  readonly client: ConsulClient;
  readonly state: ConsulState;
  /** Names of all services that are tagged or known. */
  readonly names: () => readonly string[];
  /** Reads these services; resolves when that is done. */
  readonly read: (names: Iterable<string>) => Promise<void>;
  /** Looks a contract up by its key. */
  readonly readContract: (key: string) => Promise<void>;
  readonly onFailure: (error: unknown) => void;
  readonly onSuccess: () => void;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Milliseconds that a look may wait where it is hardly needed: with changes all the time it costs more than they do. */
const soonMs = 2000;
/** Reads under way at once: few, since what has changed waits behind every answer that is already there. */
const concurrency = 4;
/**
 * Measured with 5,000 services at one node: reading the node 50 ms, reading the services one by one 450 ms. Reading all
 * nodes pays while they are fewer than this share of the services.
 */
const nodesPerService = 0.5;

export class ConsulSweep {
  readonly #options: SweepOptions;
  #wakes = 0;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;

  constructor(options: SweepOptions) {
    this.#options = options;
  }

  /**
   * Has everything looked over once more. (1)
   *
   * @param order "soon": the wake has shown what changed, and hardly anything else has
   */
  wake(order: "now" | "soon"): void {
    if (this.#options.signal.aborted) return;
    if (order === "soon") {
      this.#timer ??= setTimeout(() => this.wake("now"), soonMs);
      return;
    }
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#wakes += 1;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Resolves when nothing is under way any more; the signal must have aborted. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, signal, onFailure, onSuccess } = this.#options;
    let failures = 0;
    for (let seen = 0; seen !== this.#wakes;) {
      const wakes = this.#wakes;
      const startedAt = clock.now();
      try {
        await this.#look();
        onSuccess();
        failures = 0;
        seen = wakes;
      } catch (error) {
        if (signal.aborted) return;
        onFailure(error);
        failures += 1;
      }
      const pause = failures > 0 ? retryMs(failures) : clock.now() - startedAt; // (2)
      await sleep(pause, signal).catch(() => undefined);
      if (signal.aborted) return;
    }
  }

  async #look(): Promise<void> {
    const { client, state, signal, names: allNames, read, readContract } = this.#options;
    const names = allNames();
    if (names.length === 0) return;
    const nodes = await visibleNodes(client, { signal });
    // No waiting query shows these.
    await inParallel(state.singleKeys(), readContract);
    if (nodes.length > names.length * nodesPerService) {
      await read(names);
      return;
    }
    const found = new Map<
      string,
      { readonly index: number; readonly services: readonly ConsulNodeService[] }
    >();
    await inParallel(nodes, async ({ Node, ModifyIndex }) => {
      const { data } = await client.nodeServices(Node, { signal, filter: `"${enabledTag}" in Tags` });
      found.set(Node, { index: ModifyIndex, services: data });
    });
    await read(state.differences(found));
  }
}

/**
 * All nodes.
 *
 * @throws InfraAuthenticationError where there is none: then the token may read nothing
 */
export async function visibleNodes(client: ConsulClient, read: ConsulRead): Promise<readonly ConsulNode[]> {
  const { data } = await client.nodes(read);
  if (data.length > 0) return data;
  throw new InfraAuthenticationError(
    `Consul at ${client.address} shows no node: give consul_token a token with node:read, service:read and key:read`,
    { facts: { transport: "consul", operation: "catalog/nodes", target: client.address } },
  );
}

/** Rejects with the first failure. */
export async function inParallel<T>(items: Iterable<T>, run: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items].values();
  const worker = async (): Promise<void> => {
    for (const item of rest) await run(item);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
}
