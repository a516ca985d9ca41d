/**
 * The whole system for a test: node services, runtimes as processes of their own, and MCP clients that hold an open
 * subscription. Consul and Kafka are the caller's.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client as Client2, StreamableHTTPClientTransport as Http2 } from "@modelcontextprotocol/client";
import { Client as Client1 } from "@modelcontextprotocol/sdk/client/index.js";
import {
  StreamableHTTPClientTransport as Http1,
  type StreamableHTTPClientTransportOptions,
} from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { expect } from "vitest";
import { Operator, type Address } from "../discovery/consul-agent.ts";
import { startRuntime, type Runtime } from "../support/runtime.ts";

export { toolTags, type Address } from "../discovery/consul-agent.ts";

/** What a test waits for may take long on a busy machine. */
export const patient = { timeout: 15_000, interval: 20 };

/** Unique, and in no other test's way. */
export const unique = (name: string): string => `${name}_${randomUUID().slice(0, 8)}`;

/** A service that takes the runtime's envelope and answers who it is and what it got. */
export interface NodeService extends AsyncDisposable {
  readonly name: string;
  readonly port: number;
  readonly url: string;
  readonly calls: number;
}

export async function startNode(name: string): Promise<NodeService> {
  let calls = 0;
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      calls += 1;
      const { payload, metadata } = JSON.parse(Buffer.concat(chunks).toString()) as any;
      response.setHeader("content-type", "application/json");
      response.end(
        JSON.stringify({ node: name, tool: metadata.tool_name, path: request.url, arguments: payload }),
      );
    });
  });
  // Longer than any test: the runtime keeps its connections.
  server.keepAliveTimeout = 600_000;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    name,
    port,
    url: `http://127.0.0.1:${port}`,
    get calls() {
      return calls;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export interface PlaceOptions {
  readonly consul: Address;
  /** Absent: the bus is in memory, and no registration events are read. */
  readonly kafkaServers?: string;
  /** Keys of the runtime configuration, over those that stand here. */
  readonly runtime?: Readonly<Record<string, unknown>>;
  /** Keys of the mcp handler's section. */
  readonly mcp?: Readonly<Record<string, unknown>>;
}

/** A folder with a configuration, from which runtimes are started. */
export interface Place extends AsyncDisposable {
  readonly folder: string;
  /** Another name makes another replica. */
  start(name?: string): Promise<Runtime>;
}

/** Ends the runtimes that were started from it, and removes the folder. */
export async function makePlace({
  consul,
  kafkaServers,
  runtime = {},
  mcp = {},
}: PlaceOptions): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), "onex-risk-"));
  const configuration = {
    name: "${ONEX_NAME:-onex-runtime}",
    event_bus:
      kafkaServers === undefined
        ? { type: "inmemory" }
        : { type: "kafka", bootstrap_servers: kafkaServers, environment: unique("risk") },
    health: { host: "127.0.0.1", port: 0 },
    logging: { level: "info", format: "json" },
    ...runtime,
    handlers: {
      mcp: {
        consul_host: consul.host,
        consul_port: consul.port,
        kafka_enabled: kafkaServers !== undefined,
        dev_mode: false,
        port: 0,
        max_tools: 1000,
        contracts_dir: "${ONEX_CONTRACTS_DIR}",
        ...mcp,
      },
    },
  };
  await mkdir(join(folder, "runtime"));
  // JSON is YAML.
  await writeFile(join(folder, "runtime/runtime_config.yaml"), JSON.stringify(configuration));
  const runtimes: Runtime[] = [];
  return {
    folder,
    start: async (name = "onex-runtime") => {
      // What a developer has set for the tests' services is not this runtime's.
      const env = { ONEX_CONTRACTS_DIR: folder, ONEX_NAME: name, KAFKA_BOOTSTRAP_SERVERS: "" };
      const started = await startRuntime({ env });
      runtimes.push(started);
      return started;
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(runtimes.map((each) => each.stop()));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export interface ShownTool {
  readonly name: string;
  readonly title?: string | undefined;
  readonly description?: string | undefined;
  readonly inputSchema: unknown;
}

/** An MCP client nobody here wrote, with its subscription to the list of tools. */
export interface Subscriber {
  readonly kind: string;
  /** Notifications of a changed list so far. */
  readonly changes: number;
  list(): Promise<readonly ShownTool[]>;
  call(name: string, args?: Record<string, unknown>): Promise<any>;
  close(): Promise<void>;
}

const info = { name: "risk", version: "1.0.0" };

/** The official SDK, 1.x: a session with a stream of its own. */
export async function legacySubscriber(
  url: URL,
  options?: StreamableHTTPClientTransportOptions,
): Promise<Subscriber> {
  const client = new Client1(info);
  let changes = 0;
  client.setNotificationHandler(ToolListChangedNotificationSchema, () => void (changes += 1));
  await client.connect(new Http1(url, options));
  return {
    kind: "SDK 1.x",
    get changes() {
      return changes;
    },
    list: async () => {
      const tools: ShownTool[] = [];
      for (let cursor: string | undefined; ; ) {
        const page = await client.listTools(cursor === undefined ? {} : { cursor });
        tools.push(...page.tools);
        cursor = page.nextCursor;
        if (cursor === undefined) return tools;
      }
    },
    call: (name, args = {}) => client.callTool({ name, arguments: args }),
    close: () => client.close(),
  };
}

/** The official SDK, 2.x, of the newest revision: no session, a subscription by `subscriptions/listen`. */
export async function modernSubscriber(url: URL): Promise<Subscriber> {
  const client = new Client2(info, { versionNegotiation: { mode: { pin: "2026-07-28" } } });
  let changes = 0;
  client.setNotificationHandler("notifications/tools/list_changed", () => void (changes += 1));
  await client.connect(new Http2(url));
  await client.listen({ toolsListChanged: true });
  return {
    kind: "SDK 2.x",
    get changes() {
      return changes;
    },
    list: async () => {
      const tools: ShownTool[] = [];
      for (let cursor: string | undefined; ; ) {
        const params = cursor === undefined ? {} : { cursor };
        const page = await client.request({ method: "tools/list", params });
        tools.push(...page.tools);
        cursor = page.nextCursor;
        if (cursor === undefined) return tools;
      }
    },
    call: (name, args = {}) => client.callTool({ name, arguments: args }),
    close: () => client.close(),
  };
}

/** Both clients at one runtime, and what they see of it. */
export class Audience implements AsyncDisposable {
  readonly subscribers: readonly Subscriber[];
  readonly #operator: Operator;

  private constructor(subscribers: readonly Subscriber[], operator: Operator) {
    this.subscribers = subscribers;
    this.#operator = operator;
  }

  /** Resolves once every subscriber has been told of a change. @param consul where changes can be made */
  static async at(url: URL, consul: Address): Promise<Audience> {
    const subscribers = [await legacySubscriber(url), await modernSubscriber(url)];
    const audience = new Audience(subscribers, new Operator(consul));
    // A session's stream opens some time after its client has connected.
    await expect
      .poll(async () => {
        await audience.#mark();
        return subscribers.every(({ changes }) => changes > 0);
      }, patient)
      .toBe(true);
    await audience.changesDuring(() => undefined);
    return audience;
  }

  /** The tool as every subscriber sees it: undefined where none does, an error where they differ. */
  async tool(name: string): Promise<ShownTool | undefined> {
    const seen = await Promise.all(
      this.subscribers.map(async (each) => (await each.list()).find((tool) => tool.name === name)),
    );
    const [first] = seen;
    for (const other of seen) if (other?.name !== first?.name) throw new Error(`not everybody sees ${name}`);
    return first;
  }

  async names(): Promise<readonly string[]> {
    const [first] = this.subscribers;
    return (await first!.list()).map(({ name }) => name);
  }

  /** What every subscriber is answered, which is the same. */
  async call(name: string, args: Record<string, unknown> = {}): Promise<any> {
    const [first, ...others] = await Promise.all(this.subscribers.map((each) => each.call(name, args)));
    for (const other of others) expect(other.isError ?? false).toBe(first.isError ?? false);
    return first;
  }

  async until(isSo: () => unknown): Promise<void> {
    await expect.poll(async () => await isSo(), patient).toBe(true);
  }

  async untilServed(name: string): Promise<void> {
    await this.until(async () => (await this.tool(name)) !== undefined);
  }

  async untilGone(name: string): Promise<void> {
    await this.until(async () => (await this.tool(name)) === undefined);
  }

  /** How often each subscriber was told while `act` ran, what came late included. */
  async changesDuring(act: () => unknown): Promise<readonly number[]> {
    const before = this.subscribers.map(({ changes }) => changes);
    await act();
    // A tool that comes and goes is two further changes: what belongs to `act` has come when these have.
    await this.#mark();
    const told = (): readonly number[] => this.subscribers.map(({ changes }, at) => changes - before[at]! - 2);
    let stable = told();
    await expect
      .poll(() => {
        const last = stable;
        stable = told();
        return stable.every((count, at) => count >= 0 && count === last[at]);
      }, { ...patient, interval: 100 })
      .toBe(true);
    return stable;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.subscribers) await each.close();
  }

  async #mark(): Promise<void> {
    const marker = unique("marker");
    await this.#operator.register(marker);
    await this.untilServed(marker);
    await this.#operator.deregister(marker);
    await this.untilGone(marker);
  }
}
