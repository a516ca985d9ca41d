/**
 * The yardstick of the discovery benchmark: the least that can notice a change. One blocking query of `node:http` on
 * Consul's list of services, one kafkajs consumer; no checks, no validation, no tools. It tells its parent process of every
 * change over IPC, where the runtime tells an MCP client over HTTP.
 */
import { once } from "node:events";
import { Agent, get, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import { Kafka, logLevel } from "kafkajs";

export interface Watch {
  readonly consul: { readonly host: string; readonly port: number };
  readonly kafkaServers: string;
  readonly topic: string;
  /** Messages on the topic already. */
  readonly history: number;
}

/** What it says: first that it knows the present state, then every change. */
export type Word = { readonly ready: number } | { readonly changed: "consul" | "kafka" };

const tell = (word: Word): void => void process.send?.(word);

async function watchConsul({ host, port }: Watch["consul"], onFirst: () => void): Promise<never> {
  const agent = new Agent({ keepAlive: true });
  for (let index = "0"; ;) {
    const asked = get({ host, port, agent, path: `/v1/catalog/services?index=${index}&wait=300s` });
    const [answer] = (await once(asked, "response")) as [IncomingMessage];
    const tags = JSON.parse(await text(answer)) as Record<string, string[]>;
    const names = new Set(Object.keys(tags).filter((name) => tags[name]?.includes("mcp-enabled")));
    const isChanged = names.size !== services.size || [...names].some((name) => !services.has(name));
    services = names;
    if (index === "0") onFirst();
    else if (isChanged) tell({ changed: "consul" });
    index = String(answer.headers["x-consul-index"]);
  }
}

async function watchKafka({ kafkaServers, topic, history }: Watch, onFirst: () => void): Promise<void> {
  const consumer = new Kafka({ brokers: [kafkaServers], logLevel: logLevel.NOTHING }).consumer({
    groupId: `watcher-${process.pid}`,
    maxWaitTimeInMs: 250,
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  let seen = 0;
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      for (const { key, value } of batch.messages) {
        const event = JSON.parse(String(value)) as { readonly event_type: string };
        if (event.event_type === "deregistered") registered.delete(String(key));
        else registered.set(String(key), event);
        seen += 1;
        if (seen === history) onFirst();
        else if (seen > history) tell({ changed: "kafka" });
      }
    },
  });
}

let services: ReadonlySet<string> = new Set<string>();
const registered = new Map<string, unknown>();

process.once("message", (watch: Watch) => {
  const both = [
    new Promise<void>((resolve) => void watchConsul(watch.consul, resolve)),
    new Promise<void>((resolve) => void watchKafka(watch, resolve)),
  ];
  void Promise.all(both).then(() => tell({ ready: new Set([...services, ...registered.keys()]).size }));
});
