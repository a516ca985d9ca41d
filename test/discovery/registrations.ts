/** Registration events as they come from a topic. */
import { randomUUID } from "node:crypto";
import type { FollowedMessage } from "../../src/bus/bus.ts";

const encoder = new TextEncoder();

/** A self-sufficient event of the service instance `<tool>-1`. */
export const registration = (
  tool: string,
  fields: Record<string, unknown> = {},
): Record<string, unknown> => ({
  event_id: randomUUID(),
  event_type: "registered",
  emitted_at: "2026-01-31T12:00:00.000Z",
  node_id: "node-1",
  service_id: `${tool}-1`,
  service_name: tool,
  node_type: "ORCHESTRATOR_GENERIC",
  node_version: "1.2.0",
  tags: ["mcp-enabled", "node-type:orchestrator", `mcp-tool:${tool}`],
  endpoint: `http://127.0.0.1:9/${tool}`,
  description: `Does ${tool}`,
  timeout_seconds: 20,
  ...fields,
});

/** The bytes of a value: text as it is, all else as JSON. */
export const bytesOf = (value: unknown): Uint8Array =>
  encoder.encode(typeof value === "string" ? value : JSON.stringify(value));

export function messageOf(value: unknown, place: Partial<FollowedMessage> = {}): FollowedMessage {
  return {
    key: "key-1",
    value: value === null ? null : value instanceof Uint8Array ? value : bytesOf(value),
    headers: {},
    topic: "node.registration.v1",
    partition: 0,
    offset: "7",
    timestamp: 1_700_000_000_000,
    isHistory: false,
    ...place,
  };
}
