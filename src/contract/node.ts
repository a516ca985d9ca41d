/**
 * The node contract (`contract.yaml`): its schema as the author writes it, and its form after it was checked. Owns the
 * keys and their ranges. Does not own: reading it (`node-read.ts`), or JSON Schemas inside it (`input-schema.ts`).
 */
import { z } from "zod";
import type { JsonObject, JsonValue } from "../core/json.ts";
import type { Annotations, Icon } from "./hints.ts";

const text = z.string().min(1);
const versionPart = z.int().min(0);
const version = z
  .union([text, z.looseObject({ major: versionPart, minor: versionPart, patch: versionPart })], {
    error: 'expected a version in quotes such as "1.0.0", or {major, minor, patch}',
  })
  .describe('A version in quotes such as "1.0.0", or {major, minor, patch}.');

const scalar = z.union([z.string(), z.number(), z.boolean()], {
  error: "expected a string, a number or a boolean",
});

const localExecution = z
  .looseObject({
    kind: z.literal("local"),
    module: text.describe("Path of the module, relative to this file: .ts, .mts, .js or .mjs."),
    export: text.optional().describe('Name of the exported function. Default "default".'),
  })
  .describe("A function in the runtime's process.");

const onexExecution = z
  .looseObject({
    kind: z.literal("onex"),
    endpoint: text.optional().describe("Absolute http(s) URL of the service."),
    endpoints: z.array(text).optional().describe("Absolute http(s) URLs of the service's instances."),
    service: text
      .optional()
      .describe(
        "Without an endpoint: name of the service whose live instances are called, as Consul and registration events have it. Default: the service that claims the tool's name.",
      ),
    path: z.string().optional().describe('Path below the endpoint. Default "/".'),
  })
  .describe("POST of the runtime's envelope to a service.");

const methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"] as const;
const restExecution = z
  .looseObject({
    kind: z.literal("rest"),
    method: z.enum(methods).optional().describe('HTTP method. Default "GET".'),
    url: text.describe("Absolute http(s) URL; {name} in path or query is replaced by that argument."),
    query: z.record(z.string(), z.json()).optional().describe("Query parameters."),
    headers: z.record(z.string(), scalar).optional().describe("Request headers."),
    body: z.json().optional().describe("Template of the JSON body."),
    result: z
      .string()
      .regex(/^(\/.*)?$/s, { error: 'expected a JSON pointer such as "/data/0"' })
      .optional()
      .describe("JSON pointer to the part of the answer that is the result."),
  })
  .describe("Any HTTP API.");

const busExecution = z
  .looseObject({
    kind: z.literal("bus"),
    topic: text.describe("Topic that the envelope is sent to: 1 to 249 of a-z A-Z 0-9 . _ -"),
    reply_topic: text
      .optional()
      .describe('Topic that is read for the answer. Default: topic and ".replies".'),
    key: text
      .optional()
      .describe(
        "Key of the message; {name} is replaced by that argument. Default: another one for each call.",
      ),
    operation: text
      .optional()
      .describe("The envelope's operation, <type>.<verb>, where a runtime host answers."),
  })
  .describe("The runtime's envelope over the event bus.");

const executionKinds = ["local", "onex", "rest", "bus"] as const;
const unavailableKinds = ["upstream"];

const execution = z.discriminatedUnion("kind", [localExecution, onexExecution, restExecution, busExecution], {
  error: (issue) => {
    const { input } = issue;
    const kind = typeof input === "object" && input !== null && "kind" in input ? input.kind : undefined;
    const known = `expected one of ${executionKinds.join(", ")}`;
    if (typeof kind === "string" && unavailableKinds.includes(kind))
      return `the kind ${kind} is not available in this release, ${known}`;
    return known;
  },
});

const icon = z.looseObject({
  src: text.describe("https: or data: URL."),
  mime_type: text.optional(),
  sizes: z.array(text).optional(),
});

/** Hints to clients, as every contract writes them. */
export const annotations = z
  .looseObject({
    read_only: z.boolean().optional().describe("Changes nothing. Default false."),
    destructive: z.boolean().optional().describe("May destroy something. Default true."),
    idempotent: z.boolean().optional().describe("Twice is the same as once. Default false."),
    open_world: z.boolean().optional().describe("Reaches outside its own system. Default true."),
  })
  .describe("Hints to clients. read_only and idempotent also permit retries.");

/** A tool's schema, as every contract writes it. */
export const inputSchema = z.union([z.record(z.string(), z.unknown()), z.boolean()], {
  error: "expected a JSON Schema: an object",
});

const mcp = z.looseObject({
  expose: z.boolean().optional().describe("Whether the node is served as a tool. Default false."),
  tool_name: text.optional().describe("Name of the tool. Default: the node's name."),
  title: text.optional().describe("Name for people."),
  description: z
    .string()
    .optional()
    .describe("What it does, for the model. Default: the node's description."),
  timeout_seconds: z.number().min(1).max(300).optional().describe("Seconds a call may take, 1..300."),
  annotations: annotations.optional(),
  icons: z.array(icon).optional(),
  tags: z.union([z.array(text), text], { error: "expected a list of tags" }).optional(),
  input_schema: inputSchema.optional().describe("JSON Schema of the arguments, or {$ref: ./file.json}."),
  output_schema: inputSchema.optional().describe("JSON Schema of the result, or {$ref: ./file.json}."),
  execution: execution.describe("How a call is carried out."),
});

/** A node contract as it is written. Keys that are not listed belong to the node and are not judged. */
export const nodeContractSchema = z
  .looseObject({
    name: text.describe("Name of the node."),
    node_type: text.describe("Kind of the node; a tool's contains ORCHESTRATOR."),
    node_version: version.optional(),
    contract_version: version.optional(),
    description: z.string().optional(),
    mcp: mcp.describe("How the node is served as a tool."),
  })
  .describe("A node contract: contract.yaml.");

export type NodeContractDocument = z.infer<typeof nodeContractSchema>;
export type ExecutionDocument = z.infer<typeof execution>;

/** Where a known set of keys applies, for the report of unknown ones. */
export const knownKeys = {
  mcp: Object.keys(mcp.shape),
  annotations: Object.keys(annotations.shape),
  icon: Object.keys(icon.shape),
  execution: {
    local: Object.keys(localExecution.shape),
    onex: Object.keys(onexExecution.shape),
    rest: Object.keys(restExecution.shape),
    bus: Object.keys(busExecution.shape),
  },
} as const;

/** Checked: module and URLs are absolute, variables expanded. */
export type NodeExecution =
  | { readonly kind: "local"; readonly module: string; readonly export: string }
  | {
      readonly kind: "onex";
      /** None: the live instances of a service. */
      readonly endpoints: readonly string[];
      readonly path: string;
      readonly service?: string;
    }
  | {
      readonly kind: "rest";
      readonly method: string;
      readonly url: string;
      readonly query?: Readonly<Record<string, JsonValue>>;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: JsonValue;
      readonly result?: string;
    }
  | {
      readonly kind: "bus";
      readonly topic: string;
      readonly replyTopic: string;
      readonly key?: string;
      readonly operation?: string;
    };

/** A node contract that is exposed as a tool, checked and complete. */
export interface NodeContract {
  /** Of the file, relative to the contracts directory. */
  readonly path: string;
  /** 1..64 of `[A-Za-z0-9_.-]`. */
  readonly toolName: string;
  readonly title?: string;
  readonly description: string;
  readonly version: string;
  readonly timeoutSeconds?: number;
  readonly annotations: Annotations;
  readonly icons: readonly Icon[];
  readonly tags: readonly string[];
  readonly inputSchema: JsonObject;
  readonly outputSchema?: JsonObject;
  readonly execution: NodeExecution;
}
