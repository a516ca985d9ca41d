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
import { expect, onTestFinished, vi } from "vitest";
import { Operator, toolTags, type Address } from "../discovery/consul-agent.ts";
import { startRuntime, type Runtime } from "../support/runtime.ts";

/** What a test waits for may take long on a busy machine. */
export const patient = { timeout: 15_000, interval: 20 };

/** Waits until it is true. */
export const until = (isSo: () => unknown, limits = patient): Promise<void> =>
  vi.waitFor(async () => {
    const answer = await isSo();
    if (answer !== true) throw new Error(`not so within ${limits.timeout} ms: ${String(isSo)}`);
  }, limits);

/** Unique, and in no other test's way. */
export const unique = (name: string): string => `${name}_${randomUUID().slice(0, 8)}`;

/** A service that takes the runtime's envelope and answers who it is and what it got. */
export interface NodeService extends AsyncDisposable {
  readonly name: string;
  readonly port: number;
  readonly url: string;
  readonly calls: number;
}

/** @param pause what the answer to a call waits for */
export async function startNode(name: string, pause?: () => Promise<unknown>): Promise<NodeService> {
  let calls = 0;
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      calls += 1;
      const { payload, metadata } = JSON.parse(Buffer.concat(chunks).toString());
      response.setHeader("content-type", "application/json");
      const answer = { node: name, tool: metadata.tool_name, path: request.url, arguments: payload };
      if (pause === undefined) response.end(JSON.stringify(answer));
      else void pause().then(() => response.end(JSON.stringify(answer)));
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

/** The same, for the duration of the test. */
export async function testNode(name: string, pause?: () => Promise<unknown>): Promise<NodeService> {
  const node = await startNode(name, pause);
  onTestFinished(() => node[Symbol.asyncDispose]());
  return node;
}

/** What an instance is registered as; the rest as Consul's API names it. */
export interface Registration {
  readonly tool: string;
  readonly [key: string]: unknown;
}

/** Registers an instance with a check that says what it is told under the id `check:<id>`, and passes. */
export async function register(
  operator: Operator,
  id: string,
  { port }: NodeService,
  { tool, ...service }: Registration,
): Promise<void> {
  const check = `check:${id}`;
  const Check = { CheckID: check, TTL: "1h", Status: "passing" };
  await operator.register(id, { Tags: toolTags(tool), Port: port, Check, ...service });
  // What a check was told an agent still knows after a restart; a status that only the registration gave it does not.
  await operator.put(`/agent/check/pass/${check}`);
}

export interface SourceState {
  readonly name: string;
  readonly state: string;
  readonly restored_from?: string;
  readonly last_error?: string | null;
}

/** What /ready says of a source. */
export async function sourceOf(runtime: Pick<Runtime, "mcp">, name: string): Promise<SourceState> {
  const { sources } = (await (await fetch(new URL("/ready", runtime.mcp))).json()) as {
    readonly sources: readonly SourceState[];
  };
  return sources.find((source) => source.name === name)!;
}

/** What the runtime's own list says of a tool, its endpoints included. */
export async function shown(runtime: Runtime, name: string): Promise<any> {
  const { tools } = (await (await fetch(new URL("/mcp/tools", runtime.mcp))).json()) as any;
  return tools.find((tool: any) => tool.name === name);
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
      for (let cursor: string | undefined; ;) {
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
      for (let cursor: string | undefined; ;) {
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

/** A tool that comes and goes. */
const changesOfMarker = 2;

/** Clients with open subscriptions, and what they all see. */
export class Audience implements AsyncDisposable {
  readonly subscribers: readonly Subscriber[];
  readonly #operator: Operator;

  private constructor(subscribers: readonly Subscriber[], operator: Operator) {
    this.subscribers = subscribers;
    this.#operator = operator;
  }

  /**
   * Both clients at each of these runtimes. Resolves once every subscriber has been told of a change.
   *
   * @param consul where changes can be made
   */
  static async at(urls: readonly URL[], consul: Address): Promise<Audience> {
    const subscribers: Subscriber[] = [];
    for (const url of urls) subscribers.push(await legacySubscriber(url), await modernSubscriber(url));
    const audience = new Audience(subscribers, new Operator(consul));
    // A session's stream opens some time after its client has connected.
    await audience.until(async () => {
      await audience.#mark();
      return subscribers.every(({ changes }) => changes > 0);
    });
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
    await until(isSo);
  }

  async untilServed(name: string): Promise<void> {
    await this.until(async () => (await this.tool(name)) !== undefined);
  }

  async untilGone(name: string): Promise<void> {
    await this.until(async () => (await this.tool(name)) === undefined);
  }

  /** How often each subscriber was told while `act` ran, what came late included. */
  async changesDuring(act: () => unknown): Promise<readonly number[]> {
    // What an earlier step has left to be told.
    await this.#settle();
    const before = this.subscribers.map(({ changes }) => changes);
    await act();
    const after = await this.#settle();
    return after.map((count, at) => count - before[at]! - changesOfMarker);
  }

  /** A tool comes and goes: what was done before has been told when this has. */
  async #settle(): Promise<readonly number[]> {
    const before = this.subscribers.map(({ changes }) => changes);
    await this.#mark();
    let stable = before;
    await until(
      () => {
        const last = stable;
        stable = this.subscribers.map(({ changes }) => changes);
        return stable.every((count, at) => count === last[at] && count >= before[at]! + changesOfMarker);
      },
      { ...patient, interval: 50 },
    );
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
