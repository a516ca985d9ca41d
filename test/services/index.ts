/**
 * Real Kafka and real Consul for a test file. A suite that needs one is written with `describeWith...`: the service
 * starts on the first demand of a run and is shared, so names of topics and services are unique per test. Where it
 * cannot be had the suite is skipped with the reason in its title; with ONEX_REQUIRE_SERVICES=1 it fails.
 *
 * Tests that kill or configure a service start one of their own: `startConsul`, `startKafka`, in a suite written with
 * `describeWithOwn...`.
 */
import { describe, inject } from "vitest";
import { describeWith } from "../support/required.ts";
import { ask } from "./broker.ts";
import type { PartName } from "./shared.ts";

export { startConsul, type Consul, type ConsulOptions } from "./consul.ts";
export { startKafka, type Kafka, type KafkaOptions } from "./kafka.ts";

const addresses = new Map<PartName, string>();

/** A suite that uses the shared Kafka: `kafkaServers()`. */
export const describeWithKafka = (title: string, suite: () => void): void =>
  describeWithParts(title, ["kafka"], suite);

/** A suite that uses the shared Consul: `consulAddress()`. */
export const describeWithConsul = (title: string, suite: () => void): void =>
  describeWithParts(title, ["consul"], suite);

/** A suite that uses both. */
export const describeWithServices = (title: string, suite: () => void): void =>
  describeWithParts(title, ["consul", "kafka"], suite);

/** A suite that starts brokers of its own: `startKafka()`. */
export const describeWithOwnKafka = (title: string, suite: () => void): void =>
  describeWithParts(title, ["kafka-program"], suite);

/** A suite that starts Consul servers of its own: `startConsul()`. */
export const describeWithOwnConsul = (title: string, suite: () => void): void =>
  describeWithParts(title, ["consul-program"], suite);

/** A suite that starts both for itself. */
export const describeWithOwnServices = (title: string, suite: () => void): void =>
  describeWithParts(title, ["consul-program", "kafka-program"], suite);

/** Kafka's bootstrap servers, `host:port` joined by commas. Within a suite that needs Kafka. */
export const kafkaServers = (): string => addressOf("kafka");

/** Consul's HTTP address. Within a suite that needs Consul. */
export function consulAddress(): { readonly host: string; readonly port: number } {
  const [host, port] = addressOf("consul").split(":") as [string, string];
  return { host, port: Number(port) };
}

function addressOf(part: PartName): string {
  const address = addresses.get(part);
  if (address === undefined) throw new Error(`${part} is only there in a suite that says it needs it`);
  return address;
}

/** The services are asked for while tests are collected: a run without such a file starts none. */
function describeWithParts(title: string, parts: readonly PartName[], suite: () => void): void {
  describe(title, async () => {
    const answers = await Promise.all(parts.map((part) => ask(inject("testServices"), part)));
    const missing = answers.flatMap((answer, at) =>
      "missing" in answer ? [`no ${parts[at]}: ${answer.missing}`] : [],
    );
    answers.forEach((answer, at) => "address" in answer && addresses.set(parts[at]!, answer.address));
    if (missing.length === 0) suite();
    else describeWith(title, undefined, missing.join("; "), suite);
  });
}
