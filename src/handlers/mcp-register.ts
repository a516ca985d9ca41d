/** The `register` block of the mcp handler's section: its schema, and its form once resolved. Pure. Does not own: registering. */
import { z } from "zod";
import type { ConfigIssue } from "../core/config-issues.ts";
import { isObject } from "../core/json.ts";
import { isWildcard } from "../http/address.ts";

const text = (description: string): z.ZodString => z.string().min(1).meta({ description });

/** Consul looks for services to remove about twice a minute. */
const leastDeregisterSeconds = 60;

export const registerSchema = z.strictObject({
  enabled: z.boolean().default(false).meta({
    description:
      "Register this runtime in Consul when its server is ready, and take it out when it stops. Not with dev_mode or skip_server. The other keys also hold for `onex register`.",
  }),
  name: text("Name of the runtime's service.").max(128).default("onex-runtime"),
  id: text("Id of the runtime's service. Default: name, address and port, joined by `-`.")
    .max(256)
    .optional(),
  address: text("Where others reach this runtime. Default: host, unless that is every interface.").optional(),
  port: z
    .int()
    .min(1)
    .max(65_535)
    .optional()
    .meta({ description: "The port that others call. Default: the one that is bound." }),
  check: z.enum(["http", "ttl"]).default("http").meta({
    description: "How Consul learns that the runtime is well: it asks GET /ready, or the runtime says so.",
  }),
  ttl_seconds: z.int().min(3).max(3600).default(15).meta({
    description: "With check ttl: seconds without a word after which the runtime counts as failing.",
  }),
  interval_seconds: z
    .int()
    .min(1)
    .max(3600)
    .default(10)
    .meta({ description: "Seconds between checks that Consul makes." }),
  deregister_after_seconds: z
    .int()
    .min(0)
    .max(2_592_000)
    .refine((value) => value === 0 || value >= leastDeregisterSeconds, {
      error: `0, or ${leastDeregisterSeconds} and more`,
    })
    .default(3600)
    .meta({
      description:
        "Seconds after which Consul removes a service whose check fails all the time, 60 and more; 0: never.",
    }),
  tools: z.boolean().default(true).meta({
    description: "Also register the services that contract files name by address, one for each address.",
  }),
  events: z.boolean().default(true).meta({
    description: "Say so on the first of registration_topics as well, where the host's bus is Kafka.",
  }),
});

export interface RegisterConfig {
  readonly enabled: boolean;
  readonly name: string;
  readonly id?: string;
  readonly address?: string;
  readonly port?: number;
  readonly check: "http" | "ttl";
  readonly ttlSeconds: number;
  readonly intervalSeconds: number;
  readonly deregisterAfterSeconds: number;
  readonly tools: boolean;
  /** Absent: no events are sent. */
  readonly events?: {
    readonly topic: string;
    /** Of the topic, if it is made. */
    readonly partitions: number;
  };
}

/** The block without keys that a variable without a value, as in `${ADDRESS:-}`, leaves unset. */
export function withoutEmptyKeys(block: unknown): unknown {
  if (!isObject(block)) return block;
  const mayBeEmpty = ["id", "address", "port"];
  return Object.fromEntries(
    Object.entries(block).filter(([key, value]) => value !== "" || !mayBeEmpty.includes(key)),
  );
}

/** What the schema of one key cannot say. */
export function registerIssues(section: Readonly<Record<string, unknown>>): ConfigIssue[] {
  const { register, host, skip_server: skipServer, dev_mode: devMode } = section;
  if (skipServer === true || devMode !== false || !isObject(register) || register.enabled !== true) return [];
  if (register.address !== undefined || typeof host !== "string" || !isWildcard(host)) return [];
  return [
    {
      path: ["register", "address"],
      message: `Config key 'register.address' is missing: the server is bound to ${JSON.stringify(host)}, which is no address that others can call. Say where they reach this runtime.`,
    },
  ];
}

/** @param events where events go, if they are wanted */
export function resolveRegister(
  block: z.output<typeof registerSchema>,
  events: RegisterConfig["events"],
): RegisterConfig {
  const { enabled, name, id, address, port, check, tools } = block;
  return Object.freeze({
    enabled,
    name,
    ...(id !== undefined && { id }),
    ...(address !== undefined && { address }),
    ...(port !== undefined && { port }),
    check,
    ttlSeconds: block.ttl_seconds,
    intervalSeconds: block.interval_seconds,
    deregisterAfterSeconds: block.deregister_after_seconds,
    tools,
    ...(block.events && events !== undefined && { events: Object.freeze(events) }),
  });
}
