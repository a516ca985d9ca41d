/**
 * Which keys of a handler contract do something here. Owns: telling them from the informational ones. Does not own:
 * what they do (`handler.ts`). A key that comes to have an effect is added here with it.
 */
import { isObject } from "../core/json.ts";

/** Keys that do something: `true`, or the keys below that do, of each item in a list. All others are informational. */
interface Effects {
  readonly [key: string]: true | Effects;
}

const toolEffects: Effects = {
  operation: true,
  tool_name: true,
  title: true,
  description: true,
  input_schema: true,
  output_schema: true,
  annotations: { read_only: true, destructive: true, idempotent: true, open_world: true },
  tags: true,
  timeout_seconds: true,
};

const mcpEffects: Effects = { expose: true, ...toolEffects, tools: toolEffects };

export const shortEffects: Effects = {
  name: true,
  handler_name: true,
  handler_class: true,
  handler_type: true,
  protocol_type: true,
  tags: true,
  capability_tags: true,
  handler_version: true,
  mcp: mcpEffects,
};

export const richEffects: Effects = {
  handler_id: true,
  name: true,
  contract_version: true,
  description: true,
  protocol_type: true,
  descriptor: {
    node_archetype: true,
    idempotent: true,
    timeout_ms: true,
    retry_policy: {
      enabled: true,
      max_retries: true,
      backoff_strategy: true,
      base_delay_ms: true,
      max_delay_ms: true,
      jitter_factor: true,
    },
    circuit_breaker: {
      enabled: true,
      failure_threshold: true,
      success_threshold: true,
      timeout_ms: true,
      half_open_requests: true,
    },
    concurrency_policy: true,
    isolation_policy: true,
  },
  handler_class: true,
  activation: { required_env: true },
  tags: true,
  mcp: mcpEffects,
  metadata: {
    transport: {
      default_host: true,
      default_port: true,
      default_path: true,
      stateless: true,
      json_response: true,
    },
    security: { tool_access: { max_tools: true, required_tags: true, excluded_tags: true } },
  },
};

/** Paths of the keys of a contract, as written, that do nothing. */
export function keysWithoutEffect(data: Record<string, unknown>, effects: Effects, path = ""): string[] {
  return Object.entries(data).flatMap(([key, value]) => {
    const effect = Object.hasOwn(effects, key) ? effects[key] : undefined;
    if (effect === undefined) return [path + key];
    if (effect === true) return [];
    if (isObject(value)) return keysWithoutEffect(value, effect, `${path}${key}.`);
    const items: readonly unknown[] = Array.isArray(value) ? value : [];
    return items.flatMap((item, index) =>
      isObject(item) ? keysWithoutEffect(item, effect, `${path}${key}[${index}].`) : [],
    );
  });
}
