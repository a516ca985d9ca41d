/** A runtime that keeps itself registered, and what Consul and Kafka then know of it. What is made here ends with the test. */
import { ConfigResourceTypes, Kafka, logLevel } from "kafkajs";
import { randomUUID } from "node:crypto";
import { expect, onTestFinished } from "vitest";
import { contractTools } from "../../src/discovery/register-contracts.ts";
import { Registration, type RegistrationOptions } from "../../src/discovery/register.ts";
import { type Folder, tempFolder } from "../contract/folder.ts";
import { nodeContract } from "../contract/nodes.ts";
import { kafkaServers } from "../services/index.ts";
import { collectingLog, type LogLine } from "../support/log.ts";
import { type Address, optionsOf } from "./consul-agent.ts";

export interface Registering {
  readonly registration: Registration;
  readonly lines: readonly LogLine[];
  /** The runtime's own service. */
  readonly id: string;
  /** Says that the contracts have changed. */
  readonly change: () => Promise<void>;
  /** Whether it is well. */
  ready: boolean;
}

/** A runtime of this name with the contracts of a folder; started. */
export async function registering(
  consul: Address,
  folder: Folder,
  changes: Partial<RegistrationOptions["register"]> = {},
  more: Partial<RegistrationOptions> = {},
): Promise<Registering> {
  const { log, lines } = collectingLog();
  const files = { directory: folder.path, env: {}, exposeNodeTypes: [] };
  let tools = await contractTools(files, { maxTools: 100_000 });
  let changed = (): void => undefined;
  const state = { ready: true };
  const registration = new Registration({
    consul: optionsOf(consul),
    register: {
      name: `runtime-${randomUUID().slice(0, 8)}`,
      check: "http",
      ttlSeconds: 15,
      intervalSeconds: 1,
      deregisterAfterSeconds: 3600,
      ...changes,
    },
    bound: { host: "127.0.0.1", port: 1, path: "/mcp" },
    contracts: files,
    tools: () => tools,
    onChange: (listener) => {
      changed = listener;
      return () => {
        changed = () => undefined;
      };
    },
    isReady: () => state.ready,
    log,
    ...more,
  });
  onTestFinished(() => registration.close());
  registration.start();
  return {
    registration,
    lines,
    id: registration.status().serviceId,
    change: async () => {
      tools = await contractTools(files, { maxTools: 100_000 });
      changed();
    },
    get ready() {
      return state.ready;
    },
    set ready(value) {
      state.ready = value;
    },
  };
}

/** A folder with contracts of services at these addresses, by name of tool. */
export async function serviceContracts(services: Readonly<Record<string, string>>): Promise<Folder> {
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  for (const [name, endpoint] of Object.entries(services))
    await folder.write(...serviceContract(name, endpoint));
  return folder;
}

/** Path and text. */
export const serviceContract = (name: string, endpoint: string, more: object = {}): [string, string] => [
  `${name}/contract.yaml`,
  nodeContract({ name, node_version: "1.0.0", mcp: { execution: { kind: "onex", endpoint }, ...more } }),
];

export interface AgentService {
  readonly ID: string;
  readonly Service: string;
  readonly Address: string;
  readonly Port: number;
  readonly Tags: readonly string[];
  readonly Meta: Readonly<Record<string, string>>;
}

export interface AgentCheck {
  readonly CheckID: string;
  readonly Status: string;
  readonly Type: string;
  readonly Interval: string;
  readonly Output: string;
}

/** Consul's own API, read. */
export class Agent {
  readonly #base: string;

  constructor({ host, port }: Address) {
    this.#base = `http://${host}:${port}/v1`;
  }

  async #get(path: string): Promise<unknown> {
    const answer = await fetch(this.#base + path);
    return answer.status === 404 ? undefined : answer.json();
  }

  async service(id: string): Promise<AgentService | undefined> {
    return (await this.#get(`/agent/service/${id}`)) as AgentService | undefined;
  }

  /** Which of these services are there. */
  async present(...ids: string[]): Promise<string[]> {
    const all = (await this.#get("/agent/services")) as Record<string, AgentService>;
    return ids.filter((id) => id in all);
  }

  async check(id: string): Promise<AgentCheck | undefined> {
    const all = (await this.#get("/agent/checks")) as Record<string, AgentCheck>;
    return all[`service:${id}`];
  }

  /** The text under a key. */
  async key(key: string): Promise<string | undefined> {
    const answer = await fetch(`${this.#base}/kv/${key}?raw`);
    const text = await answer.text();
    return answer.status === 404 ? undefined : text;
  }

  /** Waits until exactly these of the services are there. */
  async until(all: readonly string[], expected: readonly string[]): Promise<void> {
    await expect.poll(() => this.present(...all), { timeout: 20_000, interval: 20 }).toEqual(expected);
  }
}

export interface TopicEvent {
  readonly key: string | null;
  readonly event: Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, string>>;
}

/** What is published to a topic from its beginning, as it comes. */
export async function eventsOf(topic: string): Promise<readonly TopicEvent[]> {
  const kafka = new Kafka({ brokers: kafkaServers().split(","), logLevel: logLevel.NOTHING });
  const consumer = kafka.consumer({ groupId: `test-${randomUUID()}` });
  onTestFinished(() => consumer.disconnect());
  const events: TopicEvent[] = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message: { key, value, headers = {} } }) => {
      const texts = Object.entries(headers).map(([name, text]) => [name, String(text)] as const);
      events.push({
        key: key?.toString() ?? null,
        event: JSON.parse(value?.toString() ?? "null") as Record<string, unknown>,
        headers: Object.fromEntries(texts),
      });
    },
  });
  return events;
}

export async function topicConfig(topic: string, name: string): Promise<string | undefined> {
  const kafka = new Kafka({ brokers: kafkaServers().split(","), logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  try {
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: [name] }],
    });
    return resources[0]?.configEntries[0]?.configValue;
  } finally {
    await admin.disconnect();
  }
}
