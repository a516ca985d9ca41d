/** Event sources on a real Kafka, with all that they apply. */
import { randomUUID } from "node:crypto";
import { Kafka as Client, logLevel } from "kafkajs";
import { expect, onTestFinished } from "vitest";
import type { FollowedMessage } from "../../src/bus/bus.ts";
import { deadLetterTopic } from "../../src/bus/dead-letter.ts";
import { KafkaBus } from "../../src/bus/kafka.ts";
import { isObject } from "../../src/core/json.ts";
import { EventSource, type EventSourceOptions } from "../../src/discovery/events.ts";
import type { Instance } from "../../src/tools/instance.ts";
import type { SourceChange } from "../../src/tools/source.ts";
import { collectingLog, type LogLine } from "../support/log.ts";
import { bytesOf } from "./registrations.ts";

export interface OpenSource {
  readonly source: EventSource;
  readonly bus: KafkaBus;
  readonly changes: readonly SourceChange[];
  /** What is applied now. */
  readonly instances: ReadonlyMap<string, Instance>;
  readonly lines: readonly LogLine[];
  /** Of the dead letters. */
  readonly environment: string;
}

export const uniqueTopic = (): string => `node.registration.${randomUUID()}`;

/** A bus for the duration of the test. */
export async function openBus(servers: string, environment = "local"): Promise<KafkaBus> {
  const bus = new KafkaBus({
    bootstrapServers: servers.split(","),
    environment,
    publishRetries: 20,
    retryBackoffBaseSeconds: 0.1,
    circuitBreakerThreshold: 100,
  });
  onTestFinished(async () => await bus.close());
  await bus.start();
  return bus;
}

/** A source that is not started; it ends with the test. */
export async function makeSource(
  servers: string,
  topics: readonly string[],
  options: Partial<EventSourceOptions> = {},
): Promise<OpenSource & { readonly start: () => Promise<void> }> {
  const environment = `test-${randomUUID()}`;
  const bus = await openBus(servers, environment);
  const { log: logger, lines } = collectingLog();
  const source = new EventSource({
    log: bus,
    topics,
    replay: true,
    partitions: 4,
    deadLetter: (message, reason) => bus.deadLetter(message, reason, "events"),
    logger,
    ...options,
  });
  onTestFinished(async () => await source.close());
  const changes: SourceChange[] = [];
  const instances = new Map<string, Instance>();
  const apply = (change: SourceChange): void => {
    changes.push(change);
    for (const key of change.remove) instances.delete(key);
    for (const record of change.put) if ("instance" in record) instances.set(record.key, record.instance);
  };
  return {
    source,
    bus,
    changes,
    instances,
    lines,
    environment,
    start: async () => await source.start(apply),
  };
}

/** A source that has started. */
export async function openSource(...given: Parameters<typeof makeSource>): Promise<OpenSource> {
  const open = await makeSource(...given);
  await open.start();
  return open;
}

/** Publishes an event under its service id; `null` is a null value. */
export async function publish(
  bus: KafkaBus,
  topic: string,
  value: unknown,
  key: string | null = isObject(value) && typeof value.service_id === "string" ? value.service_id : null,
): Promise<void> {
  await bus.publish(topic, { key, value: value === null ? null : bytesOf(value), headers: {} });
}

/** What is on the dead-letter topic of the source's environment; more may be on their way. */
export async function deadLetters({
  bus,
  environment,
}: OpenSource): Promise<() => Record<string, unknown>[]> {
  const messages: FollowedMessage[] = [];
  const following = await bus.follow(deadLetterTopic(environment, "events"), {
    replay: true,
    create: { partitions: 1, compacted: false },
    onMessages: (more) => void messages.push(...more),
  });
  onTestFinished(async () => await following.close());
  await following.caughtUp;
  return () =>
    messages.map(({ value }) => JSON.parse(Buffer.from(value ?? []).toString()) as Record<string, unknown>);
}

/** Asks the brokers something. */
export async function withAdmin<T>(
  servers: string,
  ask: (admin: ReturnType<Client["admin"]>) => Promise<T>,
): Promise<T> {
  const admin = new Client({ brokers: servers.split(","), logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  try {
    return await ask(admin);
  } finally {
    await admin.disconnect();
  }
}

export async function createTopic(servers: string, topic: string, partitions = 4): Promise<void> {
  const configEntries = [{ name: "cleanup.policy", value: "compact" }];
  await withAdmin(servers, async (admin) => {
    await admin.createTopics({
      topics: [{ topic, numPartitions: partitions, configEntries }],
      waitForLeaders: true,
    });
  });
}

/** Resolves when the source has taken in so many messages, whatever became of them. */
export const untilRead = async ({ source }: OpenSource, messages: number): Promise<void> =>
  await expect
    .poll(() => {
      const { accepted, dropped, rejected } = source.counters();
      return accepted + dropped.older + dropped.duplicate + rejected;
    })
    .toBe(messages);
