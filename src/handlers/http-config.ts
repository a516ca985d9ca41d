/** The configuration of HandlerHttp: its keys, ranges and defaults. Pure. */
import { z } from "zod";
import { schemaIssues, withoutNulls, type ConfigIssue } from "../core/config-issues.ts";
import { ProtocolConfigurationError } from "../core/errors.ts";
import { isNetwork } from "./mcp-config.ts";

const bytes = (maximum: number): z.ZodInt => z.int().min(1).max(maximum);
const seconds = z.number().min(1).max(300);
const mebibyte = 1024 * 1024;

/** The http handler's section as it is written in YAML. */
export const httpSectionSchema = z.strictObject({
  max_request_bytes: bytes(100 * mebibyte)
    .default(mebibyte)
    .meta({ description: "Bytes of a request at most: URL, headers and body." }),
  max_response_bytes: bytes(100 * mebibyte)
    .default(10 * mebibyte)
    .meta({ description: "Bytes of an answer's body at most; a larger one is an error, never cut." }),
  timeout_seconds: seconds.default(300).meta({
    description: "Seconds a payload may ask for at most. Beyond the contract's timeout_ms it has no effect.",
  }),
  default_timeout_seconds: seconds.default(30).meta({
    description: "Seconds a request may take whose payload names none; never more than timeout_seconds.",
  }),
  allowed_networks: z
    .array(z.string().refine(isNetwork, { error: "a network such as 10.0.0.0/8 or fd00::/8" }))
    .default([])
    .meta({ description: "Networks that may be called; empty: any but link-local and metadata addresses." }),
  allowed_hosts: z
    .array(
      z.string().refine((host) => canonicalHost(host) !== undefined, {
        error: "a host such as api.example.com, with or without a port",
      }),
    )
    .default([])
    .meta({ description: "Hosts that may be called, on any port or on the given one only; empty: any." }),
});

/** HandlerHttp's options, resolved and frozen. */
export interface HttpConfig {
  readonly maxRequestBytes: number;
  readonly maxResponseBytes: number;
  readonly timeoutSeconds: number;
  readonly defaultTimeoutSeconds: number;
  readonly allowedNetworks: readonly string[];
  /** As a URL has them, some with a port; empty: any. */
  readonly allowedHosts: readonly string[];
}

/** Every problem of the section; empty: `parseHttpConfig` accepts it. Paths are relative to it. */
export const httpConfigIssues = (raw: unknown): ConfigIssue[] =>
  schemaIssues(httpSectionSchema, withoutNulls(raw ?? {}));

/**
 * The section as options.
 *
 * @throws ProtocolConfigurationError with one line for each problem
 */
export function parseHttpConfig(raw: unknown): HttpConfig {
  const issues = httpConfigIssues(raw);
  if (issues.length > 0) {
    throw new ProtocolConfigurationError(issues.map((issue) => issue.message).join("\n"), {
      facts: { transport: "http", operation: "initialize" },
    });
  }
  const section = httpSectionSchema.parse(withoutNulls(raw ?? {}));
  return Object.freeze({
    maxRequestBytes: section.max_request_bytes,
    maxResponseBytes: section.max_response_bytes,
    timeoutSeconds: section.timeout_seconds,
    defaultTimeoutSeconds: Math.min(section.default_timeout_seconds, section.timeout_seconds),
    allowedNetworks: Object.freeze(section.allowed_networks),
    allowedHosts: Object.freeze(section.allowed_hosts.map((host) => canonicalHost(host) ?? host)),
  });
}

/** The host as a URL would have it, with its port where one is given; undefined where it is none. */
function canonicalHost(host: string): string | undefined {
  const [, name = "", port = ""] = /^(\[[0-9A-Fa-f:.]+\]|[^\s:/@?#[\]\\]+)(:\d{1,5})?$/.exec(host) ?? [];
  const url = name === "" ? null : URL.parse(`http://${name}`);
  return url === null ? undefined : `${url.hostname}${port}`;
}
