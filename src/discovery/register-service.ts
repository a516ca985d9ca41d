/**
 * What this runtime is registered as: its own service, and one for each address of a tool that is a service over HTTP,
 * with the contract in Consul's key-value store and the registration event. Pure. Does not own: which tools are services
 * (`register-tool.ts`), or telling Consul and Kafka (`register-publish.ts`).
 *
 * 1. Ids depend on names and addresses alone: who registers the same again registers nothing new.
 */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { BusMessage } from "../bus/bus.ts";
import { ProtocolConfigurationError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { urlHost } from "../core/url-host.ts";
import { version } from "../core/version.ts";
import type { Tool } from "../tools/tool.ts";
import type { ConsulRegistration } from "./consul-client.ts";
import { nodeContractPrefix } from "./consul-instance.ts";
import type { ServiceAddress, ToolService, ToolServiceReading } from "./register-tool.ts";
import { toolTags } from "./tags.ts";

export type CheckKind = "http" | "tcp" | "ttl" | "none";

export interface RegisterOptions {
  /** Of the runtime's service, 1..128 characters. */
  readonly name: string;
  /** Default: name, address and port, joined by `-`. */
  readonly id?: string;
  /** Where others reach this runtime. Default: the address that is bound, if others can reach that. */
  readonly address?: string;
  /** Default: the port that is bound. */
  readonly port?: number;
  /** Of the runtime's service. The services of tools are checked by connecting to them, unless it is none. */
  readonly check: CheckKind;
  readonly ttlSeconds: number;
  readonly intervalSeconds: number;
  /** Seconds after which Consul removes a service whose check fails all the time, 60 or more; 0: never. */
  readonly deregisterAfterSeconds: number;
}

/** Where the MCP server listens. */
export interface Bound {
  readonly host: string;
  readonly port: number;
  /** Path of the MCP endpoint. */
  readonly path: string;
}

/** The service of one tool at one address. */
export interface RegisteredTool {
  readonly toolName: string;
  readonly registration: ConsulRegistration;
  /** Where the contract is kept, and its text. */
  readonly contract: { readonly key: string; readonly text: string };
  readonly service: ToolService;
  readonly address: ServiceAddress;
}

export interface RegistrationPlan {
  /** Undefined: the runtime itself is not registered. */
  readonly self?: ConsulRegistration;
  readonly tools: readonly RegisteredTool[];
  /** Tools that are not registered as services. */
  readonly left: readonly { readonly tool: string; readonly reason: string }[];
}

/** Tag of an MCP server. */
const serverTag = "mcp-server";
/** A runtime names the services of tools that it keeps registered: the last one to stop takes them out. */
const keepsTag = "mcp-registers:";
/** In the meta of services and in contracts that a runtime wrote, and may therefore replace. */
const writtenBy = "onex-runtime";
const writtenByKey = "mcp-registered-by";
const checkTimeout = "2s";

/**
 * @param bound absent: the runtime itself is not registered
 * @throws ProtocolConfigurationError where nothing says at which address others reach this runtime
 */
export function planRegistration(
  options: RegisterOptions,
  bound: Bound | undefined,
  readings: readonly ToolServiceReading[],
): RegistrationPlan {
  const tools = readings.flatMap((reading) =>
    reading.ok ? toolRegistrations(reading.service, options) : [],
  );
  const left = readings.flatMap((reading) =>
    reading.ok ? [] : [{ tool: reading.tool, reason: reading.reason }],
  );
  if (bound === undefined) return { tools, left };
  return { self: selfRegistration(options, bound, tools), tools, left };
}

/**
 * Id and address of the runtime's own service.
 *
 * @throws ProtocolConfigurationError where nothing says at which address others reach this runtime
 */
export function selfAddress(
  options: Pick<RegisterOptions, "name" | "id" | "address" | "port">,
  bound: Pick<Bound, "host" | "port">,
): { readonly id: string; readonly address: string; readonly port: number } {
  const address = bare(options.address ?? bound.host);
  const port = options.port ?? bound.port;
  if (["0.0.0.0", "::"].includes(address)) {
    throw new ProtocolConfigurationError(
      `The runtime is bound to ${address}, which is no address that others can call: say with register.address (or --address) where they reach it.`,
    );
  }
  if (port === 0) {
    throw new ProtocolConfigurationError(
      "The runtime takes any free port, so that its port is known only while it runs: say with register.port (or --port) which one others call.",
    );
  }
  return { id: options.id ?? `${options.name}-${address}-${port}`, address, port };
}

function selfRegistration(
  options: RegisterOptions,
  bound: Bound,
  tools: readonly RegisteredTool[],
): ConsulRegistration {
  const { id, address, port } = selfAddress(options, bound);
  const check = checkOf(options, id, address, port);
  return {
    id,
    name: options.name,
    address,
    port,
    tags: [serverTag, ...tools.map(({ registration }) => `${keepsTag}${registration.id}`)],
    meta: { "mcp-path": bound.path, "mcp-scheme": "http", [writtenByKey]: writtenBy, version },
    ...(check !== undefined && { check }),
  };
}

/** The ids of the tools' services that this service of a runtime keeps registered. */
export const keptBy = (tags: readonly string[]): readonly string[] =>
  tags.includes(serverTag)
    ? tags.filter((tag) => tag.startsWith(keepsTag)).map((tag) => tag.slice(keepsTag.length))
    : [];

/** The id of the check by which a runtime says that it is well. */
export const ttlCheckId = (serviceId: string): string => `service:${serviceId}`;

function checkOf(
  { check, ttlSeconds, intervalSeconds, deregisterAfterSeconds }: RegisterOptions,
  id: string,
  address: string,
  port: number,
): ConsulRegistration["check"] {
  const common = {
    id: ttlCheckId(id),
    ...(deregisterAfterSeconds > 0 && { deregisterAfter: `${deregisterAfterSeconds}s` }),
  };
  const interval = `${intervalSeconds}s`;
  switch (check) {
    case "none":
      return undefined;
    case "ttl":
      return { ...common, ttl: `${ttlSeconds}s` };
    case "tcp":
      return { ...common, tcp: hostPort(address, port), interval, timeout: checkTimeout };
    case "http": {
      const http = `http://${hostPort(address, port)}/ready`;
      return { ...common, http, interval, timeout: checkTimeout };
    }
  }
}

/** One for each address; of several on one host and port all but the first have their path in the id. (1) */
function toolRegistrations(service: ToolService, options: RegisterOptions): RegisteredTool[] {
  const { tool, serviceName, addresses } = service;
  const key = nodeContractPrefix + tool.name;
  const contract = { key, text: contractText(service) };
  const name = serviceName === tool.name ? serviceName : `${serviceName}-${tool.name}`;
  const ids = new Set<string>();
  return addresses.map((address): RegisteredTool => {
    const { host, port, path, scheme } = address;
    const place = `${name}-${host}-${port}`;
    const id = ids.has(place) ? place + path.replaceAll("/", "-") : place;
    ids.add(id);
    const check =
      options.check === "none" ? undefined : checkOf({ ...options, check: "tcp" }, id, host, port);
    const registration = {
      id,
      name: serviceName,
      address: host,
      port,
      tags: toolTags(tool.name, tool.tags),
      meta: {
        "mcp-path": path,
        "mcp-scheme": scheme,
        "mcp-execution": service.execution.kind,
        "mcp-contract": key,
        [writtenByKey]: writtenBy,
      },
      ...(check !== undefined && { check }),
    };
    return { toolName: tool.name, registration, contract, service, address };
  });
}

/** The contract without addresses, its schemas in it. JSON is YAML. */
function contractText({ tool, serviceName, execution }: ToolService): string {
  const { icons, tags } = tool;
  const contract = {
    name: serviceName,
    node_type: "ORCHESTRATOR",
    node_version: tool.version,
    registered_by: writtenBy,
    mcp: {
      expose: true,
      tool_name: tool.name,
      ...describedFields(tool),
      tags,
      ...(icons !== undefined && {
        icons: icons.map(({ src, mimeType, sizes }) => ({
          src,
          ...(mimeType !== undefined && { mime_type: mimeType }),
          ...(sizes !== undefined && { sizes }),
        })),
      }),
      execution,
    },
  };
  return `${JSON.stringify(contract, null, 2)}\n`;
}

/** Whether a runtime registered the service with this meta. */
export const isOurService = (meta: Readonly<Record<string, string>>): boolean =>
  meta[writtenByKey] === writtenBy;

/** Whether a runtime wrote this contract, so that it may be replaced and removed. */
export function isOurContract(text: string): boolean {
  try {
    const contract: unknown = JSON.parse(text);
    return (contract as { registered_by?: unknown } | null)?.registered_by === writtenBy;
  } catch {
    return false;
  }
}

/** What contracts and events write alike. */
function describedFields(tool: Tool): JsonObject {
  const { title, description, timeoutSeconds, inputSchema, outputSchema, annotations } = tool;
  const { readOnly, destructive, idempotent, openWorld } = annotations;
  return {
    ...(title !== undefined && { title }),
    description,
    ...(timeoutSeconds !== undefined && { timeout_seconds: timeoutSeconds }),
    annotations: {
      ...(readOnly !== undefined && { read_only: readOnly }),
      ...(destructive !== undefined && { destructive }),
      ...(idempotent !== undefined && { idempotent }),
      ...(openWorld !== undefined && { open_world: openWorld }),
    },
    input_schema: inputSchema,
    ...(outputSchema !== undefined && { output_schema: outputSchema }),
  };
}

/** The event that an instance is registered, with all that a consumer needs to call it. */
export function registeredEvent(entry: RegisteredTool, source: string): BusMessage {
  const { registration, service, address } = entry;
  const { tool, serviceName, execution } = service;
  return eventMessage(registration.id, "registered", source, {
    service_name: serviceName,
    node_type: "ORCHESTRATOR",
    node_version: tool.version,
    tags: [...(registration.tags ?? [])],
    endpoint: address.url,
    ...describedFields(tool),
    // Without a path it is what consumers take anyway.
    ...(execution.path !== "/" && { execution }),
  });
}

/** The event that an instance is gone. No null value comes after it: that would hide from late readers what it was. */
export const deregisteredEvent = (serviceId: string, source: string): BusMessage =>
  eventMessage(serviceId, "deregistered", source, {});

function eventMessage(
  serviceId: string,
  type: "registered" | "deregistered",
  source: string,
  fields: JsonObject,
): BusMessage {
  const eventId = randomUUID();
  const timestamp = new Date().toISOString();
  const event = {
    event_id: eventId,
    event_type: type,
    emitted_at: timestamp,
    node_id: hostname(),
    service_id: serviceId,
    ...fields,
  };
  return {
    key: serviceId,
    value: Buffer.from(JSON.stringify(event)),
    headers: {
      content_type: "application/json",
      correlation_id: eventId,
      message_id: eventId,
      timestamp,
      source,
      event_type: `node.${type}`,
      schema_version: "1.0.0",
    },
  };
}

const hostPort = (host: string, port: number): string => `${urlHost(host)}:${port}`;
const bare = (host: string): string => host.replace(/^\[(.*)\]$/, "$1");
