/**
 * The configuration of HandlerMCP: its schema, its defaults, and the checks between keys. Pure. Does not own: where
 * the values come from (`config/load.ts` and the host), nor whether the host's bus is Kafka (the handler asks it).
 *
 * 1. consul_host, consul_port, kafka_enabled and dev_mode have no default: unless skip_server, each must be given.
 * 2. A key that has no effect in this release is refused, never ignored.
 * 3. API keys leave here as SHA-256 only.
 */
import { hash } from "node:crypto";
import { isIP, isIPv6 } from "node:net";
import { z } from "zod";
import {
  missingKey,
  pathText,
  schemaIssues,
  withoutNulls,
  wrongType,
  wrongValue,
  type ConfigIssue,
  type ConfigPath,
} from "../core/config-issues.ts";
import { ProtocolConfigurationError } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { isTopicName } from "../core/topic-name.ts";
import { defaultCallLimits, limitsProblem } from "../execution/call-limits.ts";
import type { GatewayOptions } from "../gateway.ts";
import { hostNameForm, isHostName, isLoopback } from "../http/address.ts";
import { defaultExcludedTags, defaultMaxTools } from "../tools/catalog.ts";
import {
  registerIssues,
  registerSchema,
  resolveRegister,
  withoutEmptyKeys,
  type RegisterConfig,
} from "./mcp-register.ts";

const text = (description: string): z.ZodString => z.string().min(1).meta({ description });
const port = (minimum: number): z.ZodInt => z.int().min(minimum).max(65_535);
const texts = z.array(z.string().min(1));

/** Shorter secrets can be guessed from one signed session id or by trying. */
const minSecretLength = 16;
const minApiKeyLength = 8;

const apiKeySchema = z.strictObject({
  name: text("Who holds the key; shown in logs and audit events."),
  role: z.enum(["user", "admin"]).default("user").meta({ description: "What the holder may do." }),
  key: z
    .string()
    .min(minApiKeyLength)
    .optional()
    .meta({ description: "The key itself, best as `${env:NAME}` or `${file:PATH}`. Give this or sha256." }),
  sha256: z
    .string()
    .regex(/^[0-9a-fA-F]{64}$/, { error: "64 hexadecimal digits" })
    .optional()
    .meta({ description: "SHA-256 of the key in hexadecimal. Give this or key." }),
});

/** Keys of callers, as they are written in YAML. */
export const apiKeysSchema = z
  .array(apiKeySchema)
  .default([])
  .meta({ description: "Keys of callers. Empty: no authentication, on loopback only." });

/** The mcp handler's section as it is written in YAML. */
export const mcpSectionSchema = z.strictObject({
  consul_host: z
    .string()
    .min(1)
    .refine(isHostName, { error: hostNameForm })
    .optional()
    .meta({ description: "Host of the Consul agent. Not contacted with dev_mode." }),
  consul_port: port(1)
    .optional()
    .meta({ description: "Port of the Consul agent. Not contacted with dev_mode." }),
  consul_scheme: z.enum(["http", "https"]).default("http").meta({ description: "How Consul is spoken to." }),
  consul_token: z
    .string()
    .min(1)
    .refine((token) => /^[\x21-\x7e]*$/.test(token), { error: "a token without line breaks and spaces" })
    .optional()
    .meta({ description: "ACL token for Consul: service:read, node:read, and key:read on the contracts." }),
  consul_datacenter: z
    .string()
    .regex(/^[A-Za-z0-9_-]+$/, { error: "letters, digits, '-' and '_'" })
    .optional()
    .meta({ description: "Consul's datacenter; absent: the agent's own." }),
  consul_ca: text(
    "File of the certificate authority that Consul's certificate is checked against.",
  ).optional(),
  kafka_enabled: z.boolean().optional().meta({
    description: "Take tool registrations from the host's bus; an error where that bus is not Kafka.",
  }),
  registration_topics: z
    .array(z.string().refine(isTopicName, { error: "a topic: 1 to 249 of a-z A-Z 0-9 . _ -" }))
    .min(1)
    .default(["node.registration.v1"])
    .meta({ description: "Topics of registration events. Made if absent, where that is allowed." }),
  registration_replay: z.boolean().default(true).meta({
    description:
      "Read these topics from their beginning at start; false: only what is registered from then on.",
  }),
  registration_partitions: z
    .int()
    .min(1)
    .max(1000)
    .default(3)
    .meta({ description: "Partitions of a registration topic that is made; it is compacted." }),
  dev_mode: z.boolean().optional().meta({
    description: "Tools from contracts and code only: neither Consul nor Kafka is contacted.",
  }),
  skip_server: z.boolean().default(false).meta({
    description: "Open no port and no source that needs a socket; the four keys above become optional.",
  }),
  host: text("Address to bind. Other than loopback needs api_keys or allow_unauthenticated.").default(
    "127.0.0.1",
  ),
  port: port(0).default(8090).meta({ description: "Port to bind; 0 picks a free one and reports it." }),
  path: z
    .string()
    .regex(
      /^\/(?!(health|ready|mcp\/tools|mcp\/circuit-breakers|metrics|openapi\.json)(\/|$))[A-Za-z0-9/_.~-]*[A-Za-z0-9_~-]$/,
      {
        error: "a path such as /mcp that is none of the server's own routes",
      },
    )
    .default("/mcp")
    .meta({ description: "Path of the MCP endpoint." }),
  stateless: z
    .boolean()
    .default(false)
    .meta({ description: "No session ids for older clients: every POST stands alone, no GET stream." }),
  json_response: z
    .boolean()
    .default(true)
    .meta({ description: "A plain answer is JSON; one preceded by notifications is always a stream." }),
  session_ttl_seconds: z
    .number()
    .min(1)
    .max(604_800)
    .default(3600)
    .meta({ description: "Life of an MCP session without traffic." }),
  max_sessions: z
    .int()
    .min(1)
    .max(1_000_000)
    .default(1000)
    .meta({ description: "MCP sessions held at once." }),
  session_secret: z.string().min(minSecretLength).optional().meta({
    description:
      "Signs session ids; replicas that share it can adopt each other's sessions. Unset: random per process.",
  }),
  page_size: z.int().min(1).max(1000).default(100).meta({ description: "Tools on one page of tools/list." }),
  timeout_seconds: z
    .number()
    .min(1)
    .max(300)
    .default(30)
    .meta({ description: "Deadline of a call whose tool names none." }),
  tool_concurrency: z.int().min(1).max(10_000).default(defaultCallLimits.toolConcurrency).meta({
    description: "Calls of one tool under way at a time. Below instance_concurrency.",
  }),
  tool_queue: z
    .int()
    .min(0)
    .max(100_000)
    .default(defaultCallLimits.toolQueue)
    .meta({ description: "Calls of one tool that wait for that; one more is refused as overloaded." }),
  instance_concurrency: z.int().min(2).max(10_000).default(defaultCallLimits.instanceConcurrency).meta({
    description: "Calls under way at one instance of a service at a time, of all tools: its connections.",
  }),
  instance_queue: z.int().min(0).max(100_000).default(defaultCallLimits.instanceQueue).meta({
    description: "Calls that wait for that; with more the instance is passed over as overloaded.",
  }),
  max_tools: z
    .int()
    .min(1)
    .max(100_000)
    .default(defaultMaxTools)
    .meta({ description: "Tools served at most; the rest is withheld and reported." }),
  required_tags: texts.default([]).meta({ description: "A tool needs all of these tags." }),
  excluded_tags: texts
    .default([...defaultExcludedTags])
    .meta({ description: "A tool with any of these tags is kept out." }),
  contracts_dir: text("Folder of the tools' contracts; none: only tools registered in code.").optional(),
  state_dir: text(
    "Folder for the last good state of Consul and Kafka: it is served after a restart until they are reached. Made if absent.",
  ).optional(),
  expose_node_types: texts.default([]).meta({
    description: "Node types served besides ORCHESTRATOR; a part of the type suffices, in any case.",
  }),
  allowed_networks: z
    .array(z.string().refine(isNetwork, { error: "a network such as 10.0.0.0/8 or fd00::/8" }))
    .default([])
    .meta({
      description:
        "Networks that tool endpoints may lie in; empty: any but link-local and metadata addresses.",
    }),
  service_ca: text(
    "PEM file of certificate authorities that https services are checked against, beside the public ones.",
  ).optional(),
  service_cert: text(
    "PEM file of the certificate that https services are shown where they ask for one. Needs service_key.",
  ).optional(),
  service_key: text("PEM file of its private key, without a passphrase.").optional(),
  allowed_hosts: texts
    .default([])
    .meta({ description: "Values of the Host header accepted besides the address that is bound." }),
  allowed_origins: z
    .array(z.string().refine(isOrigin, { error: "an origin such as https://example.com" }))
    .default([])
    .meta({ description: "Origins of web pages that may call, besides the server's own." }),
  api_keys: apiKeysSchema,
  allow_unauthenticated: z
    .boolean()
    .default(false)
    .meta({ description: "Serve other addresses than loopback without authentication." }),
  register: registerSchema.prefault({}),
});

type McpSection = z.output<typeof mcpSectionSchema>;

export interface ApiKey {
  readonly name: string;
  readonly role: "user" | "admin";
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

/** HandlerMCP's options, resolved and frozen. Units are in the names; ranges are those of the schema. */
export interface McpConfig extends GatewayOptions {
  readonly skipServer: boolean;
  readonly port: number;
  readonly apiKeys: readonly ApiKey[];
  readonly allowUnauthenticated: boolean;
  /** True is an error where the host's bus is not Kafka. False when the key is absent. */
  readonly kafkaEnabled: boolean;
  readonly devMode?: boolean;
  /** Where `enabled`: registers while there is a server, unless `consul` is absent. */
  readonly register: RegisterConfig;
}

/** Keys of later releases. A value for one is refused: it would have no effect. (2) */
const laterKeys: Readonly<Record<string, string>> = {
  upstreams: "Serving the tools of other MCP servers",
};

/**
 * Every problem of the section, in the order of its keys; empty: `parseMcpConfig` accepts it. Paths are relative to it.
 */
export function mcpConfigIssues(raw: unknown): ConfigIssue[] {
  const { section, later } = prepare(raw);
  if (!isObject(section)) return [wrongType([], "object", section)];
  return [
    ...requiredKeyIssues(section),
    ...schemaIssues(mcpSectionSchema, section),
    ...later,
    ...crossIssues(section),
  ];
}

/**
 * The section as options.
 *
 * @throws ProtocolConfigurationError with one line for each problem
 */
export function parseMcpConfig(raw: unknown): McpConfig {
  const issues = mcpConfigIssues(raw);
  if (issues.length > 0) {
    throw new ProtocolConfigurationError(issues.map((issue) => issue.message).join("\n"), {
      facts: { transport: "mcp", operation: "initialize" },
    });
  }
  return resolve(mcpSectionSchema.parse(prepare(raw).section));
}

/** Keys that a variable without a value, as in `${CONSUL_TOKEN:-}`, leaves unset. */
const mayBeEmpty = [
  "consul_token",
  "consul_datacenter",
  "consul_ca",
  "state_dir",
  "service_ca",
  "service_cert",
  "service_key",
];

/** Takes out keys without a value, and keys of later releases with their issues. */
function prepare(raw: unknown): { section: unknown; later: ConfigIssue[] } {
  const later: ConfigIssue[] = [];
  if (!isObject(raw)) return { section: raw ?? {}, later };
  const section = withoutNulls(raw) as Record<string, unknown>;
  // A switch that is written but has no value may have been meant either way.
  if (raw.skip_server === null) section.skip_server = null;
  for (const key of mayBeEmpty) if (section[key] === "") Reflect.deleteProperty(section, key);
  if (section.register !== undefined) section.register = withoutEmptyKeys(section.register);
  for (const [key, feature] of Object.entries(laterKeys)) {
    if (!(key in section)) continue;
    if (!isEmpty(section[key])) {
      later.push({
        path: [key],
        message: `Config key '${key}' has no effect: ${feature} is not part of this release. Remove the key.`,
      });
    }
    Reflect.deleteProperty(section, key);
  }
  return { section, later };
}

const isEmpty = (value: unknown): boolean =>
  value === "" || (typeof value === "object" && value !== null && Object.keys(value).length === 0);

function requiredKeyIssues(section: Record<string, unknown>): ConfigIssue[] {
  if (section.skip_server === true) return [];
  return ["consul_host", "consul_port", "kafka_enabled", "dev_mode"]
    .filter((key) => section[key] === undefined)
    .map((key) => missingKey([key]));
}

function crossIssues(section: Record<string, unknown>): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  const authenticated = Array.isArray(section.api_keys) && section.api_keys.length > 0;
  const { host } = section;
  if (
    section.skip_server !== true &&
    typeof host === "string" &&
    host !== "" &&
    !isLoopback(host) &&
    !authenticated &&
    section.allow_unauthenticated !== true
  ) {
    issues.push({
      path: ["host"],
      message: `Config key 'host' is ${JSON.stringify(host)}, which other machines can reach, and there is no authentication: set api_keys, or allow_unauthenticated: true, or a loopback host.`,
    });
  }
  return [
    ...issues,
    ...pairIssues(section),
    ...limitIssues(section),
    ...apiKeyIssues(section.api_keys, ["api_keys"]),
    ...registerIssues(section),
  ];
}

function limitIssues(section: Record<string, unknown>): ConfigIssue[] {
  const tool = section.tool_concurrency ?? defaultCallLimits.toolConcurrency;
  const instance = section.instance_concurrency ?? defaultCallLimits.instanceConcurrency;
  // What is of another type or out of its range the schema has said.
  if (typeof tool !== "number" || typeof instance !== "number" || tool > 10_000 || instance < 2) return [];
  const problem = limitsProblem(tool, instance);
  if (problem === undefined) return [];
  const path = ["tool_concurrency"];
  return [{ path, message: `Config key 'tool_concurrency' is ${tool}, and ${problem}.` }];
}

/** A certificate without its key proves nothing, and a key alone is not shown to anybody. */
function pairIssues({ service_cert: cert, service_key: key }: Record<string, unknown>): ConfigIssue[] {
  if ((cert === undefined) === (key === undefined)) return [];
  const [given, missing] =
    cert === undefined ? ["service_key", "service_cert"] : ["service_cert", "service_key"];
  return [
    {
      path: [given],
      message: `Config key '${given}' needs '${missing}' as well: a client certificate is a pair. Set both, or neither.`,
    },
  ];
}

/** What the schema of one key cannot say: exactly one of key and sha256, no name twice. */
export function apiKeyIssues(apiKeys: unknown, path: ConfigPath): ConfigIssue[] {
  if (!Array.isArray(apiKeys)) return [];
  const issues: ConfigIssue[] = [];
  const names = new Set<unknown>();
  apiKeys.forEach((entry: unknown, index) => {
    if (!isObject(entry)) return;
    if ((entry.key === undefined) === (entry.sha256 === undefined)) {
      const at = [...path, index];
      issues.push({
        path: at,
        message: `Config key '${pathText(at)}' needs exactly one of 'key' and 'sha256'.`,
      });
    }
    if (entry.name !== undefined && names.has(entry.name))
      issues.push(wrongValue([...path, index, "name"], "a name used once", entry.name));
    names.add(entry.name);
  });
  return issues;
}

function resolve(section: McpSection): McpConfig {
  return Object.freeze({
    skipServer: section.skip_server,
    host: section.host,
    port: section.port,
    path: section.path,
    stateless: section.stateless,
    jsonResponse: section.json_response,
    sessionTtlSeconds: section.session_ttl_seconds,
    maxSessions: section.max_sessions,
    ...(section.session_secret === undefined ? {} : { sessionSecret: section.session_secret }),
    pageSize: section.page_size,
    timeoutSeconds: section.timeout_seconds,
    limits: Object.freeze({
      toolConcurrency: section.tool_concurrency,
      toolQueue: section.tool_queue,
      instanceConcurrency: section.instance_concurrency,
      instanceQueue: section.instance_queue,
    }),
    maxTools: section.max_tools,
    requiredTags: Object.freeze(section.required_tags),
    excludedTags: Object.freeze(section.excluded_tags),
    ...(section.contracts_dir === undefined ? {} : { contractsDir: section.contracts_dir }),
    exposeNodeTypes: Object.freeze(section.expose_node_types),
    allowedNetworks: Object.freeze(section.allowed_networks),
    allowedHosts: Object.freeze(section.allowed_hosts),
    allowedOrigins: Object.freeze(section.allowed_origins),
    apiKeys: toApiKeys(section.api_keys),
    allowUnauthenticated: section.allow_unauthenticated,
    ...serviceTls(section),
    ...discovery(section),
    kafkaEnabled: section.kafka_enabled ?? false,
    ...(section.dev_mode === undefined ? {} : { devMode: section.dev_mode }),
    ...(section.state_dir === undefined ? {} : { stateDir: section.state_dir }),
    register: resolveRegister(section.register, eventTopic(section)),
  });
}

/** Where registration events of our own go. */
function eventTopic(section: McpSection): RegisterConfig["events"] {
  const [topic] = section.registration_topics;
  return topic === undefined ? undefined : { topic, partitions: section.registration_partitions };
}

function serviceTls(section: McpSection): Pick<McpConfig, "serviceTls"> {
  const { service_ca: ca, service_cert: cert, service_key: key } = section;
  if (ca === undefined && cert === undefined) return {};
  return {
    serviceTls: Object.freeze({
      ...(ca !== undefined && { ca }),
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
    }),
  };
}

/** Which sources outside the process are followed: none with dev_mode or without a server. */
function discovery(section: McpSection): Pick<McpConfig, "consul" | "registrations"> {
  const { consul_host: host, consul_port: port } = section;
  if (section.skip_server || section.dev_mode !== false || host === undefined || port === undefined)
    return {};
  const { consul_token: token, consul_datacenter: datacenter, consul_ca: ca } = section;
  return {
    consul: Object.freeze({
      host,
      port,
      scheme: section.consul_scheme,
      ...(token !== undefined && { token }),
      ...(datacenter !== undefined && { datacenter }),
      ...(ca !== undefined && { ca }),
    }),
    ...(section.kafka_enabled === true && {
      registrations: Object.freeze({
        topics: Object.freeze(section.registration_topics),
        replay: section.registration_replay,
        partitions: section.registration_partitions,
      }),
    }),
  };
}

/** Hashed: the keys themselves are not kept. (3) */
export function toApiKeys(entries: z.output<typeof apiKeysSchema>): readonly ApiKey[] {
  return Object.freeze(
    entries.map(({ name, role, key, sha256 }) =>
      Object.freeze({ name, role, sha256: sha256?.toLowerCase() ?? hash("sha256", key ?? "") }),
    ),
  );
}

/** True for CIDR networks and single addresses. */
export function isNetwork(value: string): boolean {
  const [address = "", bits, ...rest] = value.split("/");
  if (isIP(address) === 0 || rest.length > 0) return false;
  if (bits === undefined) return true;
  return /^\d{1,3}$/.test(bits) && Number(bits) <= (isIPv6(address) ? 128 : 32);
}

function isOrigin(value: string): boolean {
  return URL.canParse(value) && new URL(value).origin === value;
}
