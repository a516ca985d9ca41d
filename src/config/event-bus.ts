/**
 * The configuration's `event_bus` and `consul`: their keys, the checks between them, and their form once resolved.
 * Pure. Does not own: the other keys (`schema.ts`).
 */
import { z } from "zod";
import { isServer, type KafkaSasl, type KafkaTls } from "../bus/kafka-options.ts";
import { valueAt, type ConfigIssue } from "../core/config-issues.ts";
import { hostNameForm, isHostName } from "../http/address.ts";

const kafkaOnly = (description: string): string => `Kafka: ${description}`;
const text = (description: string): z.ZodString => z.string().min(1).meta({ description });

const serverList = z
  .union([z.string(), z.array(z.string())], {
    error: "a list of host:port, or a text with commas between them",
  })
  .refine((value) => {
    const servers = serversOf(value);
    return servers.length > 0 && servers.every(isServer);
  }, "one or more host:port (a name or an IPv4 address), such as broker-1:9092,broker-2:9092");

const pem = (what: string): z.ZodString => text(kafkaOnly(`${what}, as PEM text or the path of a file.`));

export const eventBusSchema = z.strictObject({
  type: z
    .enum(["inmemory", "kafka"])
    .default("inmemory")
    .meta({ description: "Kind of the event bus. KAFKA_BOOTSTRAP_SERVERS makes it kafka." }),
  environment: z
    .string()
    .regex(/^[a-zA-Z0-9_-]{1,64}$/, { error: "1 to 64 of a-z, A-Z, 0-9, '_' and '-'" })
    .default("local")
    .meta({ description: "First part of the dead-letter topics' names: `<environment>.dlq.commands.v1`." }),
  dead_letter: z.boolean().default(true).meta({
    description: "Whether messages that could not be handled go to a dead-letter topic, besides the log.",
  }),
  max_history: z
    .int()
    .min(0)
    .max(1_000_000)
    .default(1000)
    .meta({ description: "Messages of a topic that the in-memory bus keeps." }),
  bootstrap_servers: serverList.optional().meta({
    description: kafkaOnly("brokers to begin with, `host:port` with commas between them, or a list."),
    environment: "KAFKA_BOOTSTRAP_SERVERS",
  }),
  acks: z
    .union([z.literal("all"), z.literal(1), z.literal(0)], { error: "all, 1 or 0" })
    .default("all")
    .meta({ description: kafkaOnly("replicas that must have a message before it counts as published.") }),
  publish_retries: z
    .int()
    .min(0)
    .max(100)
    .default(3)
    .meta({ description: kafkaOnly("attempts to publish a message after the first one.") }),
  retry_backoff_base_seconds: z
    .number()
    .min(0)
    .max(60)
    .default(1)
    .meta({ description: kafkaOnly("wait before the first of them; it doubles each time, up to 30 s.") }),
  circuit_breaker_threshold: z
    .int()
    .min(1)
    .max(10_000)
    .default(5)
    .meta({ description: kafkaOnly("failed attempts in a row after which publishing fails at once.") }),
  circuit_breaker_reset_seconds: z
    .number()
    .min(0.001)
    .max(86_400)
    .default(30)
    .meta({ description: kafkaOnly("until then; after it one attempt is let through.") }),
  partitions: z
    .int()
    .min(1)
    .max(10_000)
    .optional()
    .meta({ description: kafkaOnly("partitions of topics that are made; absent: the broker's own number.") }),
  ssl: z
    .union(
      [
        z.boolean(),
        z.strictObject({
          ca: pem("certificate authorities to trust").optional(),
          cert: pem("certificate of this client").optional(),
          key: pem("its key").optional(),
          reject_unauthorized: z
            .boolean()
            .default(true)
            .meta({ description: kafkaOnly("false takes any certificate: for tests only.") }),
        }),
      ],
      { error: "true, false, or ca, cert, key and reject_unauthorized" },
    )
    .optional()
    .meta({ description: kafkaOnly("TLS: true, or {ca, cert, key, reject_unauthorized}.") }),
  sasl: z
    .strictObject({
      mechanism: z
        .enum(["plain", "scram-sha-256", "scram-sha-512"])
        .meta({ description: kafkaOnly("how the client logs in.") }),
      username: text(kafkaOnly("its name.")),
      password: text(kafkaOnly("its password.")),
    })
    .optional(),
});

export const consulSchema = z.strictObject({
  host: z
    .string()
    .refine(isHostName, { error: hostNameForm })
    .meta({ description: "Host of the Consul agent that handler contracts are read from." }),
  port: z.int().min(1).max(65_535).default(8500).meta({ description: "Its port." }),
  scheme: z.enum(["http", "https"]).default("http").meta({ description: "How it is spoken to." }),
  token: text("ACL token.").optional(),
  datacenter: text("Datacenter; absent: the agent's own.").optional(),
  ca: text("File of the certificate authority that its certificate is checked against.").optional(),
});

/** Checks between keys of a document whose null values are gone. */
export function eventBusIssues(document: unknown): ConfigIssue[] {
  const servers = valueAt(document, ["event_bus", "bootstrap_servers"]);
  const type = valueAt(document, ["event_bus", "type"]) ?? "inmemory";
  if (type === "kafka" && servers === undefined) {
    return [
      {
        path: ["event_bus", "type"],
        message:
          "Config key 'event_bus.type' is kafka, but no brokers are named: set event_bus.bootstrap_servers or the variable KAFKA_BOOTSTRAP_SERVERS.",
      },
    ];
  }
  if (type === "inmemory" && servers !== undefined) {
    return [
      {
        path: ["event_bus", "bootstrap_servers"],
        message:
          "Config key 'event_bus.bootstrap_servers' has no effect while event_bus.type is inmemory: set type: kafka, or remove the key.",
      },
    ];
  }
  return [];
}

export type EventBusConfig =
  | {
      readonly type: "inmemory";
      readonly environment: string;
      readonly deadLetter: boolean;
      readonly maxHistory: number;
    }
  | {
      readonly type: "kafka";
      readonly environment: string;
      readonly deadLetter: boolean;
      readonly bootstrapServers: readonly string[];
      readonly acks: "all" | 1 | 0;
      readonly publishRetries: number;
      readonly retryBackoffBaseSeconds: number;
      readonly circuitBreakerThreshold: number;
      readonly circuitBreakerResetSeconds: number;
      readonly partitions?: number;
      readonly ssl?: boolean | KafkaTls;
      readonly sasl?: KafkaSasl;
    };

export interface ConsulConfig {
  readonly host: string;
  readonly port: number;
  readonly scheme: "http" | "https";
  readonly token?: string;
  readonly datacenter?: string;
  /** Path of a PEM file. */
  readonly ca?: string;
}

export function resolveEventBus(parsed: z.output<typeof eventBusSchema>): EventBusConfig {
  const common = { environment: parsed.environment, deadLetter: parsed.dead_letter };
  if (parsed.type === "inmemory")
    return Object.freeze({ type: "inmemory", ...common, maxHistory: parsed.max_history });
  return Object.freeze({
    type: "kafka",
    ...common,
    bootstrapServers: Object.freeze(serversOf(parsed.bootstrap_servers ?? [])),
    acks: parsed.acks,
    publishRetries: parsed.publish_retries,
    retryBackoffBaseSeconds: parsed.retry_backoff_base_seconds,
    circuitBreakerThreshold: parsed.circuit_breaker_threshold,
    circuitBreakerResetSeconds: parsed.circuit_breaker_reset_seconds,
    ...(parsed.partitions !== undefined && { partitions: parsed.partitions }),
    ...(parsed.ssl !== undefined && { ssl: resolveTls(parsed.ssl) }),
    ...(parsed.sasl !== undefined && { sasl: Object.freeze(parsed.sasl) }),
  });
}

export function resolveConsul(parsed: z.output<typeof consulSchema>): ConsulConfig {
  const { token, datacenter, ca, ...rest } = parsed;
  return Object.freeze({
    ...rest,
    ...(token !== undefined && { token }),
    ...(datacenter !== undefined && { datacenter }),
    ...(ca !== undefined && { ca }),
  });
}

function resolveTls(
  ssl: Exclude<z.output<typeof eventBusSchema>["ssl"], undefined>,
): boolean | Readonly<KafkaTls> {
  if (typeof ssl === "boolean") return ssl;
  const { ca, cert, key, reject_unauthorized: rejectUnauthorized } = ssl;
  return Object.freeze({
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
    rejectUnauthorized,
  });
}

function serversOf(value: string | readonly string[]): string[] {
  const servers = typeof value === "string" ? value.split(",") : value;
  return servers.map((server) => server.trim()).filter((server) => server !== "");
}
