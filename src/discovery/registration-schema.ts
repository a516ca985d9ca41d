/**
 * The registration event as it is written: its keys and their ranges. Does not own: what a message around it adds, or what
 * an event means (`registration-event.ts`).
 */
import { z } from "zod";

const text = z.string().min(1);
/** It stands in lines of logs and reports. */
const name = text.regex(/^\P{Cc}*$/u, { error: "text without control characters" });
const versionPart = z.int().min(0);
const scalar = z.union([z.string(), z.number(), z.boolean()], {
  error: "expected a string, a number or a boolean",
});

const eventTypes = ["registered", "updated", "deregistered", "expired"] as const;
export type EventType = (typeof eventTypes)[number];

const onexExecution = z
  .looseObject({
    kind: z.literal("onex"),
    path: z.string().optional().describe('Path below the endpoint. Default "/".'),
  })
  .describe("POST of the runtime's envelope to the endpoint.");

const restExecution = z
  .looseObject({
    kind: z.literal("rest"),
    method: z
      .enum(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])
      .optional()
      .describe('HTTP method. Default "GET".'),
    url: z
      .string()
      .regex(/^(\/.*)?$/s, {
        error: 'expected what follows the endpoint: nothing, or a path such as "/orders/{id}"',
      })
      .optional()
      .describe(
        "What follows the endpoint; {name} in path or query is replaced by that argument. Default: nothing.",
      ),
    query: z.record(z.string(), z.json()).optional().describe("Query parameters."),
    headers: z.record(z.string(), scalar).optional().describe("Request headers."),
    body: z.json().optional().describe("Template of the JSON body."),
    result: z
      .string()
      .regex(/^(\/.*)?$/s, { error: 'expected a JSON pointer such as "/data/0"' })
      .optional()
      .describe("JSON pointer to the part of the answer that is the result."),
  })
  .describe("Any HTTP API below the endpoint.");

const execution = z.discriminatedUnion("kind", [onexExecution, restExecution], {
  error: "expected a kind of onex or rest: an event cannot name any other",
});

const schema = z.union([z.record(z.string(), z.unknown()), z.boolean()], {
  error: "expected a JSON Schema: an object",
});

const annotations = z.looseObject({
  read_only: z.boolean().optional().describe("Changes nothing. Default false."),
  destructive: z.boolean().optional().describe("May destroy something. Default true."),
  idempotent: z.boolean().optional().describe("Twice is the same as once. Default false."),
  open_world: z.boolean().optional().describe("Reaches outside its own system. Default true."),
});

/** What is read of every event, also of one that only says that a service is gone. */
export const eventHeadSchema = z.looseObject({
  event_id: text
    .max(256)
    .optional()
    .describe("Unique; an id that was seen before is dropped. Default: topic, partition and offset."),
  event_type: z.enum(eventTypes).describe("deregistered and expired take the instance out."),
  emitted_at: z.iso
    .datetime({
      offset: true,
      local: true,
      error: 'expected an ISO 8601 date and time such as "2026-01-31T12:00:00Z"',
    })
    .optional()
    .describe(
      "ISO 8601; without a zone it is UTC. Decides between events of one service on different partitions. Default: the record's timestamp.",
    ),
  service_id: name.max(512).optional().describe("One instance of a service. Default: the record's key."),
});

/** The whole event. */
export const registrationEventSchema = eventHeadSchema
  .extend({
    node_id: text.optional().describe("The node that runs the instance. Kept for people."),
    service_name: name.optional().describe("The service: its instances stand in for one another."),
    node_type: text
      .optional()
      .describe("Kind of the node; ORCHESTRATOR stands for the tag node-type:orchestrator."),
    node_version: z
      .union([text, z.looseObject({ major: versionPart, minor: versionPart, patch: versionPart })], {
        error: 'expected a version such as "1.0.0", or {major, minor, patch}',
      })
      .optional()
      .describe("Of the instances of one service the highest version says what the tool is."),
    tags: z
      .array(z.string())
      .optional()
      .describe(
        "mcp-enabled, node-type:orchestrator and mcp-tool:<name> make it a tool; without the key Consul is asked.",
      ),
    endpoint: z
      .string()
      .optional()
      .describe(
        "Absolute http(s) base URL, without credentials, query and fragment. Without it Consul is asked.",
      ),
    title: text.optional().describe("Name for people."),
    description: z.string().optional().describe("What the tool does, for the model."),
    timeout_seconds: z.number().min(1).max(300).optional().describe("Seconds a call may take, 1..300."),
    input_schema: schema.optional().describe("JSON Schema of the arguments. Default: any object."),
    output_schema: schema.optional().describe("JSON Schema of the result."),
    annotations: annotations
      .optional()
      .describe("Hints to clients. read_only and idempotent also permit retries."),
    execution: execution.optional().describe("How a call is carried out. Default: kind onex."),
  })
  .describe("A registration event: an instance of a service that serves a tool came, changed or went.");

export type RegistrationDocument = z.infer<typeof registrationEventSchema>;

/** All others are accepted and have no effect. */
export const knownEventKeys: ReadonlySet<string> = new Set(Object.keys(registrationEventSchema.shape));
