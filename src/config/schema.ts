/**
 * The runtime configuration: its keys as they are written in YAML, its form once resolved, and the checks between
 * keys. Pure. Does not own: finding and reading the file (`load.ts`), nor the keys of a handler's own section: they
 * are the handler's; the keys of the bus and of Consul (`event-bus.ts`).
 */
import { z } from "zod";
import { schemaIssues, valueAt, withoutNulls, wrongValue, type ConfigIssue } from "../core/config-issues.ts";
import { isObject } from "../core/json.ts";
import { topicNamePattern } from "../core/topic-name.ts";
import { isLoopback } from "../http/address.ts";
import { httpConfigIssues, httpSectionSchema } from "../handlers/http-config.ts";
import {
  consulSchema,
  eventBusIssues,
  eventBusSchema,
  resolveConsul,
  resolveEventBus,
  type ConsulConfig,
  type EventBusConfig,
} from "./event-bus.ts";
import {
  apiKeyIssues,
  apiKeysSchema,
  mcpConfigIssues,
  mcpSectionSchema,
  toApiKeys,
  type ApiKey,
} from "../handlers/mcp-config.ts";

const text = (description: string): z.ZodString => z.string().min(1).meta({ description });
const seconds = (minimum: number, maximum: number): z.ZodNumber => z.number().min(minimum).max(maximum);
const topic = z.string().regex(topicNamePattern, {
  error: "1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', other than '.' and '..'",
});

const defaultInput = "requests";
const defaultOutput = "responses";

const handlerSource = z.strictObject({
  mode: z.enum(["bootstrap", "contract", "hybrid"]).default("hybrid").meta({
    description:
      "Handlers shipped in the package, those with a contract in contracts_dir, or both: then the contract wins.",
  }),
  allow_bootstrap_override: z
    .boolean()
    .default(false)
    .meta({ description: "In hybrid mode the shipped handler wins over a contract of the same type." }),
  bootstrap_expires_at: z.iso
    .datetime({ offset: true, error: "a time with zone such as 2027-01-31T12:00:00Z" })
    .optional()
    .meta({ description: "From this time on shipped handlers are not loaded." }),
});

const logging = z.strictObject({
  level: z
    .enum(["debug", "info", "warn", "error", "silent"])
    .default("info")
    .meta({ description: "Least severe lines that are written, to stderr." }),
  format: z
    .enum(["auto", "pretty", "json"])
    .default("auto")
    .meta({ description: "auto: pretty on a terminal, else JSON lines." }),
});

const shutdown = z
  .strictObject({
    drain_timeout_seconds: seconds(1, 300)
      .default(30)
      .meta({ description: "Wait for pending envelopes before handlers are shut down." }),
    handler_timeout_seconds: seconds(1, 300)
      .default(10)
      .meta({ description: "Limit of each handler's shutdown; handlers of one priority run together." }),
    grace_period_seconds: seconds(0, 3600).default(60).meta({
      description:
        "Limit of the whole stop; must exceed the two limits above together. When it is over everything is destroyed and the exit code is 1.",
    }),
  })
  .superRefine((value, context) => {
    const least = value.drain_timeout_seconds + value.handler_timeout_seconds;
    if (value.grace_period_seconds > least) return;
    context.addIssue({
      code: "custom",
      path: ["grace_period_seconds"],
      message: `more than ${least} (drain_timeout_seconds + handler_timeout_seconds)`,
    });
  });

const healthPort = z.union([z.int().min(0).max(65_535), z.literal(false)], {
  error: "an integer from 0 to 65535, or false",
});

const health = z.strictObject({
  host: text(
    "Address of the operator endpoints: /health, /ready, POST /envelopes. Other than loopback needs api_keys.",
  ).default("127.0.0.1"),
  port: healthPort.default(8085).meta({
    description: "Their port; 0 picks a free one, false opens none.",
    environment: "ONEX_HTTP_PORT",
  }),
  api_keys: apiKeysSchema.meta({
    description:
      "Keys of callers; POST /envelopes needs the role admin. Empty: no authentication, on loopback only.",
  }),
});

const handlerType = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/, {
  error: "a handler type: 1 to 64 of a-z, A-Z, 0-9, '_' and '-'",
});

const required = z
  .boolean()
  .default(true)
  .meta({ description: "Whether the start fails when this handler cannot be initialized." });

/** Another handler's section: its own keys are its own business. */
const anySection = z.looseObject({ required });

/** The whole file; sections of handlers are judged only for `required`. */
const runtimeSchema = z.strictObject({
  name: text("Name of the runtime, in logs and answers.").default("onex-runtime"),
  description: text("What this runtime is for.").optional(),
  contracts_dir: text("Folder scanned for handler contracts, relative to the working directory.")
    .optional()
    .meta({ environment: "ONEX_CONTRACTS_DIR" }),
  input_topic: topic.default(defaultInput).meta({ description: "Topic of the envelopes taken in." }),
  output_topic: topic
    .default(defaultOutput)
    .meta({ description: "Topic of answers to envelopes without reply_to." }),
  consumer_group: topic.default("onex-runtime").meta({ description: "Group that takes the envelopes in." }),
  event_bus: eventBusSchema.prefault({}),
  consul: consulSchema.optional(),
  handlers: z.record(handlerType, anySection).default({}),
  handler_source: handlerSource.prefault({}),
  allowed_namespaces: z.array(z.string().min(1)).default([]).meta({
    description: "Package specifiers that handler classes may be imported from, and what lies below them.",
  }),
  logging: logging.prefault({}),
  shutdown: shutdown.prefault({}),
  health: health.prefault({}),
  health_check_timeout_seconds: seconds(1, 60)
    .default(5)
    .meta({ description: "Limit of one handler's health check." }),
  max_concurrency: z.int().min(1).max(10_000).default(32).meta({ description: "Envelopes handled at once." }),
});

/** The same with the sections of the known handlers in full: the source of the JSON Schema and the reference table. */
export const publishedSchema = runtimeSchema
  .extend({
    handlers: z
      .object({
        mcp: mcpSectionSchema.extend({ required }).optional(),
        http: httpSectionSchema.extend({ required }).optional(),
      })
      .catchall(anySection)
      .default({}),
  })
  .meta({ title: "onex-runtime configuration", description: "contracts/runtime/runtime_config.yaml" });

type RuntimeDocument = z.output<typeof runtimeSchema>;

/** Checks of the sections whose handler is known; any other handler checks its own when it is initialized. */
const sectionChecks: Readonly<Record<string, (section: unknown) => ConfigIssue[]>> = {
  mcp: mcpConfigIssues,
  http: httpConfigIssues,
};

/** Every problem of the file's content. Keys without a value count as absent. */
export function runtimeConfigIssues(document: unknown): ConfigIssue[] {
  const present = withoutNulls(document);
  return [
    ...schemaIssues(runtimeSchema, present),
    ...apiKeyIssues(valueAt(present, ["health", "api_keys"]), ["health", "api_keys"]),
    ...topicIssues(present),
    ...healthIssues(present),
    ...eventBusIssues(present),
    ...sectionIssues(valueAt(document, ["handlers"])),
    ...kafkaEnabledIssues(present),
  ];
}

/** One handler's part of the configuration. */
export interface HandlerSection {
  readonly required: boolean;
  /** The section without `required`, keys as they are written. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** A section as the handler sees it; a section without a value is one without keys. */
export function handlerSection(section: unknown): HandlerSection {
  const { required: isRequired, ...config } = isObject(section) ? section : {};
  return { required: isRequired !== false, config };
}

function sectionIssues(handlers: unknown): ConfigIssue[] {
  if (!isObject(handlers)) return [];
  return Object.entries(handlers).flatMap(([type, section]) => {
    const issuesOf = sectionChecks[type];
    if (issuesOf === undefined || (section !== null && !isObject(section))) return [];
    return issuesOf(handlerSection(section).config).map((issue) => ({
      ...issue,
      path: ["handlers", type, ...issue.path],
    }));
  });
}

/** Answers on the input topic would come back as envelopes. */
function topicIssues(document: unknown): ConfigIssue[] {
  const path = ["output_topic"];
  const output = valueAt(document, path) ?? defaultOutput;
  const input = valueAt(document, ["input_topic"]) ?? defaultInput;
  if (output !== input) return [];
  return [wrongValue(path, "another topic than input_topic", output)];
}

/** Who reaches the operator endpoints can send envelopes to every handler. */
function healthIssues(document: unknown): ConfigIssue[] {
  const path = ["health", "host"];
  const host = valueAt(document, path);
  const keys = valueAt(document, ["health", "api_keys"]);
  const isClosed = valueAt(document, ["health", "port"]) === false;
  if (typeof host !== "string" || host === "" || isLoopback(host) || isClosed) return [];
  if (Array.isArray(keys) && keys.length > 0) return [];
  return [
    {
      path,
      message: `Config key 'health.host' is ${JSON.stringify(host)}, which other machines can reach, and there is no authentication: set health.api_keys or a loopback host.`,
    },
  ];
}

/** The host has a Kafka bus to lend only where its own is one. */
function kafkaEnabledIssues(document: unknown): ConfigIssue[] {
  const path = ["handlers", "mcp", "kafka_enabled"];
  if (valueAt(document, path) !== true || valueAt(document, ["event_bus", "type"]) === "kafka") return [];
  return [
    {
      path,
      message:
        "Config key 'kafka_enabled' is true, but the event bus is inmemory: set kafka_enabled: false, or set event_bus.type: kafka or the variable KAFKA_BOOTSTRAP_SERVERS.",
    },
  ];
}

/** The configuration as the program uses it: resolved, frozen, units in the names. Handlers' sections are apart. */
export interface RuntimeConfig {
  readonly name: string;
  readonly description?: string;
  readonly inputTopic: string;
  readonly outputTopic: string;
  readonly consumerGroup: string;
  readonly eventBus: EventBusConfig;
  /** For contracts of handlers. */
  readonly consul?: ConsulConfig;
  readonly handlerSource: {
    readonly mode: "bootstrap" | "contract" | "hybrid";
    readonly allowBootstrapOverride: boolean;
    /** ISO 8601 with zone. */
    readonly bootstrapExpiresAt?: string;
  };
  readonly allowedNamespaces: readonly string[];
  readonly logging: RuntimeDocument["logging"];
  readonly shutdown: {
    readonly drainTimeoutSeconds: number;
    readonly handlerTimeoutSeconds: number;
    readonly gracePeriodSeconds: number;
  };
  readonly health: {
    readonly host: string;
    readonly port: number | false;
    readonly apiKeys: readonly ApiKey[];
  };
  readonly healthCheckTimeoutSeconds: number;
  readonly maxConcurrency: number;
}

/** A document without issues, resolved. */
export function resolveRuntimeConfig(document: unknown): RuntimeConfig {
  const parsed = runtimeSchema.parse(withoutNulls(document));
  const expiry = parsed.handler_source.bootstrap_expires_at;
  return Object.freeze({
    name: parsed.name,
    ...(parsed.description === undefined ? {} : { description: parsed.description }),
    inputTopic: parsed.input_topic,
    outputTopic: parsed.output_topic,
    consumerGroup: parsed.consumer_group,
    eventBus: resolveEventBus(parsed.event_bus),
    ...(parsed.consul === undefined ? {} : { consul: resolveConsul(parsed.consul) }),
    handlerSource: Object.freeze({
      mode: parsed.handler_source.mode,
      allowBootstrapOverride: parsed.handler_source.allow_bootstrap_override,
      ...(expiry === undefined ? {} : { bootstrapExpiresAt: expiry }),
    }),
    allowedNamespaces: Object.freeze(parsed.allowed_namespaces),
    logging: Object.freeze(parsed.logging),
    shutdown: Object.freeze({
      drainTimeoutSeconds: parsed.shutdown.drain_timeout_seconds,
      handlerTimeoutSeconds: parsed.shutdown.handler_timeout_seconds,
      gracePeriodSeconds: parsed.shutdown.grace_period_seconds,
    }),
    health: Object.freeze({
      host: parsed.health.host,
      port: parsed.health.port,
      apiKeys: toApiKeys(parsed.health.api_keys),
    }),
    healthCheckTimeoutSeconds: parsed.health_check_timeout_seconds,
    maxConcurrency: parsed.max_concurrency,
  });
}
