/** A Consul agent as its operator uses it, and a source that follows it. */
import { randomUUID } from "node:crypto";
import { vi } from "vitest";
import type { ConsulOptions } from "../../src/discovery/consul-client.ts";
import { ConsulSource } from "../../src/discovery/consul.ts";
import type { Instance } from "../../src/tools/instance.ts";
import type { InstanceRecord, SourceChange } from "../../src/tools/source.ts";
import { collectingLog, type LogLine } from "../support/log.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export const optionsOf = ({ host, port }: Address): ConsulOptions => ({ host, port, scheme: "http" });

export const uniqueName = (name: string): string => `${name}-${randomUUID().slice(0, 8)}`;

export const toolTags = (tool: string): string[] => [
  "mcp-enabled",
  "node-type:orchestrator",
  `mcp-tool:${tool}`,
];

/** Consul's HTTP API, for what a test does to it. */
export class Operator {
  readonly #base: string;
  readonly #token: string | undefined;

  constructor({ host, port }: Address, token?: string) {
    this.#base = `http://${host}:${port}/v1`;
    this.#token = token;
  }

  get #headers(): { readonly headers?: Record<string, string> } {
    return this.#token === undefined ? {} : { headers: { "x-consul-token": this.#token } };
  }

  async put(path: string, body: unknown = {}): Promise<unknown> {
    const answer = await fetch(`${this.#base}${path}`, {
      method: "PUT",
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...this.#headers,
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${text}`);
    return text.startsWith("{") ? JSON.parse(text) : text;
  }

  /** A service with one tool, at the agent; the tool's name is the service's. */
  async register(id: string, service: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const name = typeof service.Name === "string" ? service.Name : id;
    await this.put("/agent/service/register", {
      ID: id,
      Name: name,
      Tags: toolTags(name),
      Address: "127.0.0.1",
      Port: 9000,
      ...service,
    });
  }

  async deregister(id: string): Promise<void> {
    await this.put(`/agent/service/deregister/${id}`);
  }

  async deleteKey(key: string): Promise<void> {
    const answer = await fetch(`${this.#base}/kv/${key}`, { method: "DELETE", ...this.#headers });
    if (!answer.ok) throw new Error(`${key}: ${answer.status} ${await answer.text()}`);
    await answer.arrayBuffer();
  }
}

/** A source with what it has said so far. */
export class Followed implements AsyncDisposable {
  readonly source: ConsulSource;
  readonly records = new Map<string, InstanceRecord>();
  readonly changes: SourceChange[] = [];
  readonly log: readonly LogLine[];

  constructor(consul: ConsulOptions) {
    const { log, lines } = collectingLog();
    this.log = lines;
    this.source = new ConsulSource({ consul, log });
  }

  /** Starts the source; resolves as `start` does. */
  async start(): Promise<this> {
    await this.source.start((change) => {
      this.changes.push(change);
      for (const key of change.remove) this.records.delete(key);
      for (const record of change.put as readonly InstanceRecord[]) this.records.set(record.key, record);
    });
    return this;
  }

  /** The statements about one service id. */
  of(serviceId: string): Instance[] {
    return [...this.records.values()]
      .map(({ instance }) => instance)
      .filter((one) => one.serviceId === serviceId);
  }

  instance(serviceId: string): Instance | undefined {
    return this.of(serviceId)[0];
  }

  /** Waits until the records are so. */
  async until(isSo: (followed: this) => unknown): Promise<void> {
    await vi.waitFor(
      () => {
        if (isSo(this) !== true)
          throw new Error(`not yet: ${JSON.stringify([...this.records.values()]).slice(0, 2000)}`);
      },
      { timeout: 15_000, interval: 5 },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.source.close();
  }
}

export const follow = (consul: ConsulOptions): Promise<Followed> => new Followed(consul).start();
