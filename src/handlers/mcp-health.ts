/** What HandlerMCP says of itself: its health, with the reason where it is not well, and its description. Pure. */
import { messageOf } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { redact } from "../core/redact.ts";
import { version } from "../core/version.ts";
import type { HandlerDescription, HandlerHealth } from "../runtime/handler.ts";
import { supportedOperations } from "./mcp-operations.ts";
import type { McpConfig } from "./mcp-config.ts";
import { isInitialized, partsOf, type Parts, type State } from "./mcp-state.ts";

/** Why the handler is not healthy, as it is shown to operators. */
type Reason =
  | "not_initialized"
  /** The start has not yet proved that its server answers. */
  | "server_task_missing"
  /** The last stop was forced. */
  | "server_cancelled"
  /** The server's own error ended it. */
  | "server_crashed"
  /** Something else than `shutdown` closed the server. */
  | "server_exited"
  | "draining";

interface Trouble {
  readonly reason: Reason;
  readonly error?: string;
}

/** Characters of an error text that are shown. */
const maxErrorText = 200;
const transportType = "mcp";

/** @param now monotonic ms, of the clock that the state's times are from */
export function healthOf(state: State, now: number): HandlerHealth {
  const parts = partsOf(state);
  const trouble = troubleOf(state);
  const report = parts?.gateway.report();
  const registration = parts?.registration?.status();
  return {
    healthy: trouble === undefined,
    ...(trouble !== undefined && { reason: trouble.reason }),
    ...(trouble?.error !== undefined && { error: trouble.error.slice(0, maxErrorText) }),
    ...(parts?.config.skipServer === true && { skip_server: true }),
    transport_type: transportType,
    ...flags(state),
    tool_count: toolCount(parts),
    uptime_seconds: "since" in state ? (now - state.since) / 1000 : 0,
    sources: (parts?.gateway.sources() ?? []).map((source) => ({
      name: source.name,
      kind: source.kind,
      state: source.state,
      age_seconds: source.ageSeconds,
      ...(source.counters !== undefined && { counters: source.counters }),
      ...(source.restoredFrom !== undefined && { restored_from: source.restoredFrom }),
      last_error: source.lastError?.slice(0, maxErrorText) ?? null,
    })),
    ...(registration !== undefined && {
      registration: {
        state: registration.state,
        service_id: registration.serviceId,
        tools: registration.tools,
        last_error: registration.lastError?.slice(0, maxErrorText) ?? null,
      },
    }),
    ...(report !== undefined && { load_report: report }),
  };
}

/** Without secrets. */
export function descriptionOf(state: State, handlerType: string): HandlerDescription {
  const parts = partsOf(state);
  return {
    handler_type: handlerType,
    handler_category: "effect",
    transport_type: transportType,
    supported_operations: [...supportedOperations],
    tool_count: toolCount(parts),
    config: parts === undefined ? {} : shown(parts.config),
    // With port 0 this is where one learns the port.
    url: parts?.server?.url ?? null,
    ...flags(state),
    version,
  };
}

function flags(state: State): { initialized: boolean; server_running: boolean; lifecycle_running: boolean } {
  return {
    initialized: isInitialized(state),
    server_running: partsOf(state)?.server?.state.kind === "listening",
    // The sources go on where only the server has ended.
    lifecycle_running: state.kind === "running",
  };
}

const toolCount = (parts: Parts | undefined): number => parts?.gateway.catalog.snapshot().tools.length ?? 0;

/** How the keys of a group begin that lie flat in the configuration's section. */
const groups: Readonly<Record<string, string>> = { consul: "consul_", registrations: "registration_" };

/** The configuration under its own key names, secrets redacted. */
function shown(config: McpConfig): object {
  const flat = Object.entries(config).flatMap(([key, value]): [string, unknown][] => {
    const prefix = groups[key];
    if (prefix === undefined) return [[snakeCase(key), value]];
    return Object.entries(value as object).map(([name, item]) => [`${prefix}${snakeCase(name)}`, item]);
  });
  return Object.fromEntries(flat.map(([key, value]) => [key, redact(snakeKeys(value), [], [key])]));
}

function snakeKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(snakeKeys);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [snakeCase(key), snakeKeys(item)]));
}

const snakeCase = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function troubleOf(state: State): Trouble | undefined {
  switch (state.kind) {
    case "idle":
      return { reason: state.forced ? "server_cancelled" : "not_initialized" };
    case "starting":
      return { reason: "server_task_missing" };
    case "draining":
      return { reason: "draining" };
    case "running":
      return serverTrouble(state.parts);
  }
}

function serverTrouble({ config, server }: Parts): Trouble | undefined {
  if (config.skipServer) return undefined;
  if (server === undefined) return { reason: "server_task_missing" };
  if (server.state.kind === "listening") return undefined;
  const { reason, error } = server.state;
  return reason === "crashed"
    ? { reason: "server_crashed", error: messageOf(error) }
    : { reason: "server_exited" };
}
