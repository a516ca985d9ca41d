/**
 * What the Kafka bus is made of, resolved and checked, and its form for the client library. Pure but for reading
 * certificates. Does not own: the configuration file's keys (`config/schema.ts`).
 */
import { readFile } from "node:fs/promises";
import type { ConnectionOptions } from "node:tls";
import type { KafkaConfig, SASLOptions } from "kafkajs";
import { ProtocolConfigurationError, messageOf } from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";

export type SaslMechanism = "plain" | "scram-sha-256" | "scram-sha-512";

export interface KafkaTls {
  /** Each is PEM text or the path of a PEM file. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** Default true. */
  readonly rejectUnauthorized?: boolean;
}

export interface KafkaSasl {
  readonly mechanism: SaslMechanism;
  readonly username: string;
  readonly password: string;
}

export interface KafkaBusOptions {
  /** `host:port` each. */
  readonly bootstrapServers: readonly string[];
  /** First part of the dead-letter topics' names. Default local. */
  readonly environment?: string;
  /** Sender of dead letters, and the client id that brokers log. Default onex-runtime. */
  readonly source?: string;
  /** Whether messages that could not be handled go to a dead-letter topic, besides the log. Default true. */
  readonly deadLetter?: boolean;
  /** Replicas that must have a message before it counts as published. Default all. */
  readonly acks?: "all" | 1 | 0;
  /** Attempts after the first. Default 3. */
  readonly publishRetries?: number;
  /** Seconds before the first retry; doubled for each further one. Default 1. */
  readonly retryBackoffBaseSeconds?: number;
  /** Failed attempts in a row that open the breaker. Default 5. */
  readonly circuitBreakerThreshold?: number;
  /** Seconds until an open breaker lets one attempt through. Default 30. */
  readonly circuitBreakerResetSeconds?: number;
  /** Partitions of topics that the bus creates. Default: the broker's own. */
  readonly partitions?: number;
  /** Messages one subscription works on at once. Default 32. */
  readonly concurrency?: number;
  readonly ssl?: boolean | KafkaTls;
  readonly sasl?: KafkaSasl;
  readonly log?: Logger;
}

type Defaulted = Exclude<keyof KafkaBusOptions, "ssl" | "sasl" | "partitions">;
export type ResolvedKafkaOptions = Readonly<Required<Pick<KafkaBusOptions, Defaulted>>> &
  Pick<KafkaBusOptions, "ssl" | "sasl" | "partitions">;

const mechanisms: readonly string[] = ["plain", "scram-sha-256", "scram-sha-512"];

/** @throws ProtocolConfigurationError naming the option, with its value where that is no secret */
export function resolveKafkaOptions(options: KafkaBusOptions): ResolvedKafkaOptions {
  const resolved: ResolvedKafkaOptions = {
    environment: "local",
    source: "onex-runtime",
    deadLetter: true,
    acks: "all",
    publishRetries: 3,
    retryBackoffBaseSeconds: 1,
    circuitBreakerThreshold: 5,
    circuitBreakerResetSeconds: 30,
    concurrency: 32,
    log: silentLogger,
    ...options,
  };
  const { bootstrapServers, sasl, acks } = resolved;
  if (bootstrapServers.length === 0) throw invalid("bootstrapServers must name at least one host:port");
  for (const server of bootstrapServers) {
    // The library splits at the first colon, so that an IPv6 address would be cut.
    if (!isServer(server)) {
      throw invalid(
        `bootstrapServers: expected host:port (a name or an IPv4 address), got ${JSON.stringify(server)}`,
      );
    }
  }
  if (!["all", 1, 0].includes(acks)) throw invalid(`acks must be all, 1 or 0, got ${acks}`);
  wholeNumber("publishRetries", resolved.publishRetries, 0);
  wholeNumber("concurrency", resolved.concurrency, 1);
  if (resolved.partitions !== undefined) wholeNumber("partitions", resolved.partitions, 1);
  if (!(resolved.retryBackoffBaseSeconds >= 0))
    throw invalid(`retryBackoffBaseSeconds must be at least 0, got ${resolved.retryBackoffBaseSeconds}`);
  if (sasl !== undefined) {
    if (!mechanisms.includes(sasl.mechanism))
      throw invalid(
        `sasl.mechanism must be one of ${mechanisms.join(", ")}, got ${JSON.stringify(sasl.mechanism)}`,
      );
    if (sasl.username === "" || sasl.password === "")
      throw invalid("sasl needs a username and a password, neither empty");
  }
  return Object.freeze(resolved);
}

/** True for `host:port` with a name or an IPv4 address. */
export function isServer(server: string): boolean {
  const match = /^[A-Za-z0-9._-]+:(\d{1,5})$/.exec(server);
  const port = Number(match?.[1] ?? 0);
  return port >= 1 && port <= 65_535;
}

/** What the library connects with. @throws ProtocolConfigurationError where a certificate's file cannot be read */
export async function securityOf({
  ssl,
  sasl,
}: Pick<ResolvedKafkaOptions, "ssl" | "sasl">): Promise<Pick<KafkaConfig, "ssl" | "sasl">> {
  return {
    ...(ssl !== undefined && { ssl: typeof ssl === "boolean" ? ssl : await tlsOf(ssl) }),
    ...(sasl !== undefined && { sasl: { ...sasl } as SASLOptions }),
  };
}

async function tlsOf({ ca, cert, key, rejectUnauthorized }: KafkaTls): Promise<ConnectionOptions> {
  return {
    ...(ca !== undefined && { ca: await pem("ca", ca) }),
    ...(cert !== undefined && { cert: await pem("cert", cert) }),
    ...(key !== undefined && { key: await pem("key", key) }),
    rejectUnauthorized: rejectUnauthorized ?? true,
  };
}

async function pem(name: string, value: string): Promise<string> {
  if (value.includes("-----BEGIN")) return value;
  try {
    return await readFile(value, "utf8");
  } catch (thrown) {
    throw invalid(`ssl.${name}: the file cannot be read: ${messageOf(thrown)}`);
  }
}

function wholeNumber(name: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw invalid(`${name} must be a whole number of at least ${least}, got ${value}`);
}

const invalid = (problem: string): ProtocolConfigurationError =>
  new ProtocolConfigurationError(`Kafka event bus: ${problem}`);
