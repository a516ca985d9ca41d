/** Buses on a real Kafka for tests, closed after the test that made them. */
import { randomUUID } from "node:crypto";
import { createServer, type AddressInfo } from "node:net";
import type { Admin } from "kafkajs";
import { onTestFinished } from "vitest";
import type { BusMessage, DeliveredMessage } from "../../src/bus/bus.ts";
import { KafkaBus, type KafkaBusOptions } from "../../src/bus/kafka.ts";
import { kafkaServers } from "../services/index.ts";

export const text = (key: string | null, value: string): BusMessage => ({
  key,
  value: new TextEncoder().encode(value),
  headers: {},
});

export const read = (message: Pick<DeliveredMessage, "value">): string =>
  new TextDecoder().decode(message.value ?? new Uint8Array());

export const uniqueTopic = (): string => `test.${randomUUID()}`;

/** On the shared Kafka unless the options name another one. */
export function makeBus(options: Partial<KafkaBusOptions> = {}): KafkaBus {
  const bus = new KafkaBus({
    ...options,
    bootstrapServers: options.bootstrapServers ?? kafkaServers().split(","),
  });
  onTestFinished(() => bus.destroy(new Error("the test is over")));
  return bus;
}

export async function startedBus(options: Partial<KafkaBusOptions> = {}): Promise<KafkaBus> {
  const bus = makeBus(options);
  await bus.start();
  return bus;
}

/** `127.0.0.1:port` that nothing listens on. */
export async function deadServer(): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}

/** The shared Kafka as its operator sees it. */
export async function withAdmin<T>(ask: (admin: Admin) => Promise<T>): Promise<T> {
  const { Kafka, logLevel } = await import("kafkajs");
  const admin = new Kafka({ brokers: kafkaServers().split(","), logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  try {
    return await ask(admin);
  } finally {
    await admin.disconnect();
  }
}
