/**
 * The handler contract (`handler_contract.yaml`). Owns: which of its two forms a file has, and the one shape that the
 * runtime works with. Does not own: keys and ranges (`handler-schema.ts`), which of them do something
 * (`handler-effects.ts`), reading files (`load.ts`), finding the class (`runtime/loader.ts`).
 *
 * 1. Keys that have no effect here never make a contract invalid: they are listed as `informational`.
 * 2. A value that demands what the runtime cannot give (an isolation policy) makes it invalid.
 * 3. A file with keys of both forms is refused, never guessed at.
 */
import type { z } from "zod";
import { isObject } from "../core/json.ts";
import { keysWithoutEffect, richEffects, shortEffects } from "./handler-effects.ts";
import {
  protocolTypeSchema,
  richHandlerContractSchema,
  shortHandlerContractSchema,
  type RichForm,
  type ShortForm,
  type tagsSchema,
  type versionSchema,
} from "./handler-schema.ts";
import { readHandlerTools, withoutNullKeys, type HandlerTool, type ReadTools } from "./handler-tools.ts";

export { handlerContractSchema } from "./handler-schema.ts";

export interface RetryPolicy {
  readonly maxRetries: number;
  readonly backoff: "fixed" | "exponential" | "linear";
  readonly baseDelayMs: number;
  readonly maxDelayMs: number;
  /** Share of the delay that is random, either way: 0.1 is +-10 %. */
  readonly jitterFactor: number;
}

export interface BreakerPolicy {
  readonly failureThreshold: number;
  readonly successThreshold: number;
  readonly resetSeconds: number;
  readonly halfOpenRequests: number;
}

/** What both forms come to. */
export interface HandlerContract {
  readonly form: "short" | "rich";
  /** `handler_id`, or `proto.<type>` where the contract has none. */
  readonly id: string;
  readonly name: string;
  /** Routing key. The identity by which a contract replaces a bootstrap handler is `proto.<protocolType>`. */
  readonly protocolType: string;
  readonly handlerClass: string;
  readonly version: string;
  readonly tags: readonly string[];
  /** Only then are calls tried again. */
  readonly idempotent: boolean;
  /** Deadline of one call, its retries included. Default 30,000. */
  readonly timeoutMs: number;
  /** Undefined: never tried again. */
  readonly retry?: RetryPolicy;
  /** Undefined: no breaker. */
  readonly breaker?: BreakerPolicy;
  readonly concurrency: "parallel_ok" | "serialized" | "singleflight";
  readonly requiredEnv: readonly string[];
  /** What of the contract becomes handler configuration; the lowest layer of it. */
  readonly configDefaults: Readonly<Record<string, unknown>>;
  /** Operations that are served as tools; none unless `mcp.expose`. */
  readonly tools: readonly HandlerTool[];
  /** Paths of keys that are accepted and have no effect, and what was mended. (1) */
  readonly informational: readonly string[];
}

export type HandlerContractResult =
  | { readonly ok: true; readonly contract: HandlerContract }
  | {
      readonly ok: false;
      /** HANDLER_LOADER_003 schema, _004 missing fields, _040 ambiguous. */
      readonly code: string;
      /** Each names the path, what was expected and the value that is there. */
      readonly problems: readonly string[];
    };

const defaultTimeoutMs = 30_000;

/** Keys that only one of the forms has. */
const shortKeys = [
  "handler_name",
  "handler_type",
  "handler_version",
  "capability_tags",
  "security",
  "schema_version",
];
const richKeys = [
  "handler_id",
  "contract_version",
  "descriptor",
  "capability_inputs",
  "capability_outputs",
  "input_model",
  "output_model",
  "execution_constraints",
  "supports_lifecycle",
  "supports_health_check",
  "supports_provisioning",
  "activation",
  "metadata",
];

/** A parsed YAML document as a handler contract. Never throws. */
export function parseHandlerContract(data: unknown): HandlerContractResult {
  if (!isObject(data)) {
    return invalid("003", [`a handler contract must be a mapping, got ${shown(data)}`]);
  }
  const short = shortKeys.filter((key) => key in data);
  const rich = richKeys.filter((key) => key in data);
  if (short.length > 0 && rich.length > 0) {
    return invalid("040", [
      `keys of the short form (${short.join(", ")}) and of the rich form (${rich.join(", ")}) in one contract: keep those of one form`,
    ]);
  }
  const document = withoutNullKeys(data);
  return rich.length > 0 ? parseRich(document) : parseShort(document);
}

function parseShort(data: Record<string, unknown>): HandlerContractResult {
  const contradictions = [
    ["name", "handler_name"],
    ["tags", "capability_tags"],
  ].filter(([key = "", alias = ""]) => {
    return key in data && alias in data && JSON.stringify(data[key]) !== JSON.stringify(data[alias]);
  });
  if (contradictions.length > 0) {
    return invalid(
      "040",
      contradictions.map(([key = "", alias = ""]) => {
        return `${key} is ${shown(data[key])} and its alias ${alias} is ${shown(data[alias])}: keep one`;
      }),
    );
  }
  const parsed = shortHandlerContractSchema.safeParse(data);
  const nameless = data.name === undefined && data.handler_name === undefined;
  if (!parsed.success || nameless) {
    return refused(data, parsed.error?.issues ?? [], nameless ? ["name"] : []);
  }
  const form: ShortForm = parsed.data;
  const name = form.name ?? form.handler_name ?? "";
  const type = protocolTypeSchema.safeParse(form.protocol_type ?? name.replace(/^handler-/, ""));
  if (!type.success) {
    return invalid("003", [
      `no protocol_type can be made of the name ${shown(name)}: add protocol_type, 1 to 64 letters, digits, _ or -`,
    ]);
  }
  const mcp = readHandlerTools(form.mcp, { protocolType: type.data });
  if (mcp.problems.length > 0) return unservable(mcp.problems);
  return {
    ok: true,
    contract: {
      form: "short",
      id: `proto.${type.data}`,
      name,
      protocolType: type.data,
      handlerClass: form.handler_class,
      version: versionText(form.handler_version),
      tags: tagList(form.tags ?? form.capability_tags),
      idempotent: false,
      timeoutMs: defaultTimeoutMs,
      concurrency: "parallel_ok",
      requiredEnv: [],
      configDefaults: {},
      tools: mcp.tools,
      informational: [...keysWithoutEffect(data, shortEffects), ...mcp.notes],
    },
  };
}

function parseRich(data: Record<string, unknown>): HandlerContractResult {
  const parsed = richHandlerContractSchema.safeParse(data);
  if (!parsed.success) return refused(data, parsed.error.issues, []);
  const form: RichForm = parsed.data;
  const { descriptor } = form;
  const segments = form.handler_id.split(".");
  const type = form.protocol_type ?? segments.at(segments.length > 2 ? -2 : -1) ?? form.handler_id;
  const retry = descriptor.retry_policy;
  const breaker = descriptor.circuit_breaker;
  const mcp = readHandlerTools(form.mcp, {
    protocolType: type,
    ...(typeof form.description === "string" && { description: form.description }),
    ...(typeof descriptor.timeout_ms === "number" && { timeoutMs: descriptor.timeout_ms }),
  });
  if (mcp.problems.length > 0) return unservable(mcp.problems);
  return {
    ok: true,
    contract: {
      form: "rich",
      id: form.handler_id,
      name: form.name,
      protocolType: type,
      handlerClass: form.handler_class,
      version: versionText(form.contract_version),
      tags: tagList(form.tags),
      idempotent: descriptor.idempotent,
      timeoutMs: descriptor.timeout_ms ?? defaultTimeoutMs,
      ...(retry?.enabled === true && {
        retry: {
          maxRetries: retry.max_retries,
          backoff: retry.backoff_strategy,
          baseDelayMs: retry.base_delay_ms,
          maxDelayMs: retry.max_delay_ms,
          jitterFactor: retry.jitter_factor,
        },
      }),
      ...(breaker?.enabled === true && {
        breaker: {
          failureThreshold: breaker.failure_threshold,
          successThreshold: breaker.success_threshold,
          resetSeconds: breaker.timeout_ms / 1000,
          halfOpenRequests: breaker.half_open_requests,
        },
      }),
      concurrency: descriptor.concurrency_policy,
      requiredEnv: form.activation?.required_env ?? [],
      configDefaults: configDefaults(form),
      tools: mcp.tools,
      informational: [...keysWithoutEffect(data, richEffects), ...mcp.notes],
    },
  };
}

function configDefaults(form: RichForm): Record<string, unknown> {
  const transport = form.metadata?.transport;
  const access = form.metadata?.security?.tool_access;
  const timeout = form.descriptor.timeout_ms;
  const all: Record<string, unknown> = {
    host: transport?.default_host,
    port: transport?.default_port,
    path: transport?.default_path,
    stateless: transport?.stateless,
    json_response: transport?.json_response,
    timeout_seconds: typeof timeout === "number" ? timeout / 1000 : undefined,
    max_tools: access?.max_tools,
    required_tags: access?.required_tags,
    excluded_tags: access?.excluded_tags,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined && value !== null));
}

function versionText(value: z.output<typeof versionSchema>): string {
  return typeof value === "string" ? value : `${value.major}.${value.minor}.${value.patch}`;
}

function tagList(value: z.output<typeof tagsSchema> | undefined): string[] {
  if (value === null || value === undefined) return [];
  return typeof value === "string" ? [value] : value;
}

function refused(
  data: Record<string, unknown>,
  issues: readonly z.core.$ZodIssue[],
  missingKeys: readonly string[],
): HandlerContractResult {
  const missing = [...missingKeys];
  const wrong: string[] = [];
  for (const issue of issues) {
    const path = issue.path.join(".");
    const value = issue.path.reduce<unknown>(
      (at, key) =>
        typeof at === "object" && at !== null ? (at as Record<PropertyKey, unknown>)[key] : undefined,
      data,
    );
    if (value === undefined) missing.push(path);
    else wrong.push(`${path}: ${issue.message}, got ${shown(value)}`);
  }
  const lacking = missing.map((path) => `${path} is missing`);
  return invalid(wrong.length > 0 ? "003" : "004", [...wrong, ...lacking]);
}

const unservable = (problems: ReadTools["problems"]): HandlerContractResult =>
  invalid(
    problems.some(({ ambiguous }) => ambiguous) ? "040" : "003",
    problems.map(({ message }) => message),
  );

const invalid = (number: string, problems: readonly string[]): HandlerContractResult => ({
  ok: false,
  code: `HANDLER_LOADER_${number}`,
  problems,
});

/** A value as it may stand in a message: JSON, cut short. */
function shown(value: unknown): string {
  const json = value === undefined ? "nothing" : JSON.stringify(value);
  return json.length > 80 ? `${json.slice(0, 77)}...` : json;
}
