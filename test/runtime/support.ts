/** Contracts directories with real handler modules, and hosts on them. */
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { stringify } from "yaml";
import type { Answer, Envelope } from "../../src/bus/envelope.ts";
import { MemoryBus } from "../../src/bus/memory.ts";
import { silentLogger } from "../../src/core/log.ts";
import type { Container, HandlerConfig, HandlerHealth } from "../../src/runtime/handler.ts";
import { RuntimeHost } from "../../src/runtime/host.ts";
import type { HostOptions } from "../../src/runtime/options.ts";

/** What a handler module of a test does; the module calls it. */
export interface Behaviour {
  construct?(container: Container | undefined): void;
  initialize?(config: HandlerConfig): Promise<void> | void;
  execute?(envelope: Envelope, options: { readonly signal: AbortSignal }): unknown;
  shutdown?(): Promise<void> | void;
  healthCheck?(): Promise<HandlerHealth> | HandlerHealth;
  shutdownPriority?(): number;
}

const behaviours = new Map<string, Behaviour>();
Object.assign(globalThis, { onexTestBehaviours: behaviours });

const moduleOf = (key: string): string => `
const behaviour = globalThis.onexTestBehaviours.get(${JSON.stringify(key)});
export class TestHandler {
  handlerType = "test";
  constructor(container) { behaviour.construct?.(container); }
  async initialize(config) { await behaviour.initialize?.(config); }
  async execute(envelope, options) { return await behaviour.execute?.(envelope, options); }
  async shutdown() { await behaviour.shutdown?.(); }
  async healthCheck() { return (await behaviour.healthCheck?.()) ?? { healthy: true }; }
  describe() { return { handler_type: "test" }; }
  shutdownPriority() { return behaviour.shutdownPriority?.() ?? 0; }
}
`;

export class Contracts implements AsyncDisposable {
  readonly dir: string;
  readonly #keys: string[] = [];

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async make(): Promise<Contracts> {
    return new Contracts(await realpath(await mkdtemp(join(tmpdir(), "onex-runtime-"))));
  }

  /** Writes a file below the directory; `data` that is not text becomes YAML. */
  async write(path: string, data: unknown): Promise<string> {
    const file = join(this.dir, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, typeof data === "string" ? data : stringify(data));
    return file;
  }

  /** A handler of this type with its contract, in a folder named like it. */
  async handler(
    type: string,
    behaviour: Behaviour = {},
    contract: Record<string, unknown> = {},
  ): Promise<string> {
    const key = randomUUID();
    this.#keys.push(key);
    behaviours.set(key, behaviour);
    await this.write(`${type}/${type}.mjs`, moduleOf(key));
    return await this.write(`${type}/handler_contract.yaml`, {
      handler_id: `effect.${type}.handler`,
      name: type,
      handler_class: `./${type}.mjs#TestHandler`,
      descriptor: { node_archetype: "effect" },
      ...contract,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const key of this.#keys) behaviours.delete(key);
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** A rich contract's descriptor. */
export const descriptor = (more: Record<string, unknown>) => ({
  descriptor: { node_archetype: "effect", ...more },
});

export interface TestHost extends AsyncDisposable {
  readonly host: RuntimeHost;
  readonly bus: MemoryBus;
  /** Publishes to the input topic; text and bytes as they are, anything else as JSON. */
  send(value: unknown, key?: string | null, headers?: Record<string, string>): Promise<void>;
  /** What was published to a topic so far. Default: the output topic. */
  answers(topic?: string): Answer[];
}

/** A host on these contracts, not started. Disposing stops it. */
export function makeHost(contracts: Contracts | undefined, more: Partial<HostOptions> = {}): TestHost {
  const bus =
    more.bus instanceof MemoryBus
      ? more.bus
      : new MemoryBus({ environment: "test", source: "test-host", ...(more.log && { log: more.log }) });
  const host = new RuntimeHost({
    name: "test-host",
    version: "1.2.3",
    inputTopic: "requests",
    outputTopic: "responses",
    consumerGroup: "test",
    bus,
    handlers: {},
    ...(contracts !== undefined && { contractsDir: contracts.dir }),
    handlerSource: { mode: "hybrid", allowBootstrapOverride: false },
    bootstrap: [],
    allowedNamespaces: [],
    shutdown: { drainTimeoutSeconds: 2, handlerTimeoutSeconds: 1, gracePeriodSeconds: 8 },
    maxConcurrency: 32,
    healthCheckTimeoutSeconds: 1,
    env: {},
    log: silentLogger,
    ...more,
  });
  return {
    host,
    bus,
    async send(value, key = null, headers = {}) {
      const bytes =
        value instanceof Uint8Array
          ? value
          : new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
      await bus.publish("requests", { key, value: bytes, headers });
    },
    answers: (topic = "responses") =>
      bus
        .history(topic)
        .map((message) => JSON.parse(new TextDecoder().decode(message.value ?? undefined)) as Answer),
    async [Symbol.asyncDispose]() {
      await host.stop();
      await bus.destroy(new Error("the test is over"));
    },
  };
}

export async function startedHost(
  contracts: Contracts | undefined,
  more: Partial<HostOptions> = {},
): Promise<TestHost> {
  const made = makeHost(contracts, more);
  await made.host.start();
  return made;
}
