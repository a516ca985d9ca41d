/**
 * The services around the runtime: a Consul and a Kafka of the benchmark's own. Owns what is registered with them, and
 * how one registration comes and goes. Does not own: when, or what it costs anybody.
 */
import { Kafka as KafkaClient, logLevel, type Producer } from "kafkajs";
import { Pool } from "undici";
import { startConsul, type Consul } from "../test/services/consul.ts";
import { startKafka, type Kafka } from "../test/services/kafka.ts";

/** What is registered. */
export interface Load {
  /** In Consul, each with one instance, one tool, and a check that passes. */
  readonly services: number;
  /** Service ids that events speak of; the first are those in Consul. */
  readonly ids: number;
  /** Registration events on the topic, shared evenly among the ids. */
  readonly events: number;
}

export const topic = "node.registration.v1";
export const partitions = 3;

const concurrency = 32;
const batch = 1000;
/** That the services are spread over. */
const nodes = 50;
const toolTags = (tool: string): string[] => ["mcp-enabled", "node-type:orchestrator", `mcp-tool:${tool}`];
const nameOf = (index: number): string => `service_${String(index).padStart(6, "0")}`;

export class Cluster implements AsyncDisposable {
  readonly consul: Consul;
  readonly kafka: Kafka;
  readonly #agent: Pool;
  readonly #client: KafkaClient;
  readonly #producer: Producer;
  /** Registered so far. */
  #services = 0;
  #events = 0;
  #changes = 0;

  private constructor(consul: Consul, kafka: Kafka) {
    this.consul = consul;
    this.kafka = kafka;
    this.#agent = new Pool(`http://${consul.host}:${consul.port}`, { connections: concurrency });
    this.#client = new KafkaClient({ brokers: [kafka.bootstrapServers], logLevel: logLevel.NOTHING });
    this.#producer = this.#client.producer();
  }

  /** @param tell of what takes long */
  static async start(tell: (line: string) => void): Promise<Cluster> {
    await using started = new AsyncDisposableStack();
    const consul = started.use(await startConsul({ progress: tell }));
    const kafka = started.use(await startKafka({ progress: tell }));
    const cluster = started.use(new Cluster(consul, kafka));
    const admin = cluster.#client.admin();
    await admin.connect();
    const configEntries = [{ name: "cleanup.policy", value: "compact" }];
    await admin.createTopics({ topics: [{ topic, numPartitions: partitions, configEntries }] });
    await admin.disconnect();
    await cluster.#producer.connect();
    started.move();
    return cluster;
  }

  /** Messages on the topic. */
  get history(): number {
    return this.#events + this.#changes;
  }

  /** Registers what is missing; resolves when Consul and Kafka have it all. */
  async fill({ services, ids, events }: Load): Promise<void> {
    const missing = Array.from(
      { length: services - this.#services },
      (_, at) => this.#services + at,
    ).values();
    const register = async (): Promise<void> => {
      for (const index of missing) await this.#enter(index);
    };
    await Promise.all(Array.from({ length: concurrency }, register));
    this.#services = services;
    while (this.#events < events) {
      const count = Math.min(batch, events - this.#events);
      const messages = Array.from({ length: count }, (_, at) => {
        const number = this.#events + at;
        return registration(nameOf(number % ids), "registered", Math.floor(number / ids));
      });
      await this.#producer.send({ topic, messages });
      this.#events += count;
    }
  }

  /** At the agent; resolves with its answer. */
  register(id: string): Promise<void> {
    return this.#put("/v1/agent/service/register", {
      ID: id,
      Name: id,
      Tags: toolTags(id),
      Address: "127.0.0.1",
      Port: 9000,
      Check: { TTL: "24h", Status: "passing" },
    });
  }

  deregister(id: string): Promise<void> {
    return this.#put(`/v1/agent/service/deregister/${id}`, {});
  }

  /** Resolves when Kafka has acknowledged it. */
  async publish(id: string, type: "registered" | "deregistered"): Promise<void> {
    this.#changes += 1;
    await this.#producer.send({ topic, messages: [registration(id, type, 0)] });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#producer.disconnect();
    await this.#agent.close();
    await this.kafka.stop();
    await this.consul.stop();
  }

  /** Into the catalog, as the agent of another node would: one agent with thousands of services takes minutes. */
  #enter(index: number): Promise<void> {
    const name = nameOf(index);
    const node = index % nodes;
    return this.#put("/v1/catalog/register", {
      Node: `node-${node}`,
      Address: `127.0.1.${node + 1}`,
      Service: { ID: name, Service: name, Tags: toolTags(name), Address: "127.0.0.1", Port: 9000 },
      Check: { CheckID: `service:${name}`, Name: "TTL", Status: "passing", ServiceID: name },
    });
  }

  async #put(path: string, content: object): Promise<void> {
    const { statusCode, body } = await this.#agent.request({
      method: "PUT",
      path,
      body: JSON.stringify(content),
    });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`Consul answered ${path} with ${statusCode} ${text}`);
  }
}

/** A registration event that is complete in itself. */
function registration(
  id: string,
  type: "registered" | "deregistered",
  version: number,
): { key: string; value: string } {
  const event = {
    event_type: type,
    emitted_at: new Date().toISOString(),
    node_id: `node-${id}`,
    service_id: id,
    service_name: id,
    node_type: "ORCHESTRATOR",
    node_version: `1.${version}.0`,
    tags: toolTags(id),
    endpoint: "http://127.0.0.1:9000",
    description: `What ${id} does.`,
    input_schema: {
      type: "object",
      properties: { order: { type: "string", maxLength: 100 }, quantity: { type: "integer", minimum: 1 } },
      required: ["order"],
      additionalProperties: false,
    },
  };
  return { key: id, value: JSON.stringify(event) };
}
