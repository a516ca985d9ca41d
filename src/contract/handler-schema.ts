/**
 * The zod schemas of the handler contract's two forms, as an author may write them. Owns: keys, types, ranges and
 * defaults. Does not own: which form a file has and what the two come to (`handler.ts`). The published JSON Schema is
 * made of these.
 */
import { z } from "zod";
import { handlerMcpSchema } from "./handler-tools.ts";

const text = z.string().trim().min(1);
export const tagsSchema = z.union([z.null(), z.string(), z.array(z.string())]);
export const versionSchema = z.union([
  z.string().regex(/^\d+\.\d+\.\d+$/, "expected three numbers, as in 1.0.0"),
  z.looseObject({ major: z.int().min(0), minor: z.int().min(0), patch: z.int().min(0) }),
]);
const milliseconds = z.int().min(0).max(86_400_000);
export const protocolTypeSchema = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/, "expected 1 to 64 letters, digits, _ or -")
  .describe("Routing key: the part of an operation before its first dot.");
const handlerClass = text.describe(
  "`module#Export`: a path relative to this file, or a package that allowed_namespaces covers.",
);

/** The short form: what a handler is and where its class lies. */
export const shortHandlerContractSchema = z
  .looseObject({
    name: text.optional(),
    handler_name: text.optional().describe("Alias of name."),
    handler_class: handlerClass,
    handler_type: z.enum(["compute", "effect", "nondeterministic_compute"]),
    protocol_type: protocolTypeSchema.optional().describe("Default: name without `handler-`."),
    tags: tagsSchema.optional(),
    capability_tags: tagsSchema.optional().describe("Alias of tags."),
    security: z
      .looseObject({
        trusted_namespace: z.string().nullish(),
        audit_logging: z.boolean().optional(),
        requires_authentication: z.boolean().optional(),
      })
      .nullish(),
    handler_version: versionSchema.default({ major: 1, minor: 0, patch: 0 }),
    schema_version: z.union([z.string(), z.number(), z.looseObject({})]).nullish(),
    mcp: handlerMcpSchema.optional(),
  })
  .describe("Handler contract, short form.");

const retryPolicySchema = z.looseObject({
  enabled: z.boolean().default(true),
  max_retries: z.int().min(0).max(10).default(3),
  backoff_strategy: z.enum(["fixed", "exponential", "linear"]).default("exponential"),
  base_delay_ms: milliseconds.default(1000),
  max_delay_ms: milliseconds.default(30_000),
  jitter_factor: z.number().min(0).max(1).default(0.1),
});

const circuitBreakerSchema = z.looseObject({
  enabled: z.boolean().default(false),
  failure_threshold: z.int().min(1).max(10_000).default(5),
  success_threshold: z.int().min(1).max(10_000).default(2),
  timeout_ms: z
    .int()
    .min(1)
    .max(86_400_000)
    .default(60_000)
    .describe("From opening to the first trial call."),
  half_open_requests: z.int().min(1).max(10_000).default(3),
});

const capabilities = z.union([z.array(z.unknown()), z.looseObject({})]).nullish();

const descriptorSchema = z.looseObject({
  node_archetype: z.enum(["compute", "effect", "reducer", "orchestrator"]),
  purity: z.string().nullish(),
  idempotent: z.boolean().default(false).describe("Only an idempotent handler's calls are tried again."),
  timeout_ms: z.int().min(1).max(86_400_000).nullish().describe("Deadline of one call. Default 30000."),
  retry_policy: retryPolicySchema.nullish(),
  circuit_breaker: circuitBreakerSchema.nullish(),
  concurrency_policy: z.enum(["parallel_ok", "serialized", "singleflight"]).default("parallel_ok"),
  isolation_policy: z
    .literal("none", {
      error: (issue) =>
        `${JSON.stringify(issue.input)} demands an isolation that this runtime cannot give: remove the key or set it to none`,
    })
    .nullish(),
  observability_level: z.string().nullish(),
  capability_inputs: capabilities,
  capability_outputs: capabilities,
});

const transportSchema = z.looseObject({
  type: z.string().nullish().describe("Of the handler's own transport; says nothing about routing."),
  default_host: text.nullish(),
  default_port: z.int().min(0).max(65_535).nullish(),
  default_path: text.nullish(),
  stateless: z.boolean().nullish(),
  json_response: z.boolean().nullish(),
});

const toolAccessSchema = z.looseObject({
  max_tools: z.int().min(1).max(100_000).nullish(),
  required_tags: z.array(z.string()).nullish(),
  excluded_tags: z.array(z.string()).nullish(),
});

/** The rich form: also how the host calls the handler. */
export const richHandlerContractSchema = z
  .looseObject({
    handler_id: z
      .string()
      .max(256)
      .regex(
        /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$/,
        "expected two or more segments joined by dots, as in effect.mcp.handler",
      ),
    name: text,
    contract_version: versionSchema.default({ major: 1, minor: 0, patch: 0 }),
    description: z.string().nullish(),
    protocol_type: protocolTypeSchema
      .optional()
      .describe("Default: the segment of handler_id before the last, or the last of two."),
    descriptor: descriptorSchema,
    capability_inputs: capabilities,
    capability_outputs: capabilities,
    input_model: z.unknown().optional(),
    output_model: z.unknown().optional(),
    execution_constraints: z.unknown().optional(),
    supports_lifecycle: z.boolean().nullish(),
    supports_health_check: z.boolean().nullish(),
    supports_provisioning: z.boolean().nullish(),
    handler_class: handlerClass,
    activation: z
      .looseObject({
        required_env: z
          .array(text)
          .nullish()
          .describe("Environment variables without which the handler is skipped."),
      })
      .nullish(),
    tags: tagsSchema.optional(),
    mcp: handlerMcpSchema.optional(),
    metadata: z
      .looseObject({
        transport: transportSchema.nullish(),
        security: z
          .looseObject({
            authentication: z.unknown().optional(),
            tool_access: toolAccessSchema.nullish(),
            rate_limiting: z.unknown().optional(),
            input_validation: z.unknown().optional(),
            audit_logging: z.unknown().optional(),
          })
          .nullish(),
      })
      .nullish(),
  })
  .describe("Handler contract, rich form.");

/** Either form; the source of the published JSON Schema. */
export const handlerContractSchema = z
  .union([shortHandlerContractSchema, richHandlerContractSchema])
  .describe("Handler contract.");

export type ShortForm = z.output<typeof shortHandlerContractSchema>;
export type RichForm = z.output<typeof richHandlerContractSchema>;
