/**
 * How the host is. Owns: asking every handler within a limit, and what the answers come to. Does not own: the routes
 * that show it (`admin/`).
 */
import type { BusHealth } from "../bus/bus.ts";
import type { LoadReport } from "../contract/load.ts";
import { within } from "../core/abort.ts";
import { messageOf } from "../core/errors.ts";
import { isObject, toJsonValue } from "../core/json.ts";
import type { HandlerHealth } from "./handler.ts";
import type { ActiveHandler } from "./start.ts";

export interface HostHealth {
  /** `degraded`: serving, but without a handler that ought to be there, or with an unhealthy one nobody requires. */
  readonly status: "healthy" | "degraded" | "unhealthy";
  readonly version: string;
  readonly details: {
    readonly state: string;
    /** Envelopes without an answer yet. */
    readonly pending: number;
    readonly bus: BusHealth;
    /** By type. */
    readonly handlers: Readonly<Record<string, HandlerHealth>>;
    /** Reasons, by type, or by path where the type is not known. */
    readonly failed_handlers: Readonly<Record<string, string>>;
    readonly skipped_handlers: Readonly<Record<string, string>>;
    /** Null before the contracts were read. */
    readonly load_report: LoadReport | null;
  };
}

export interface HostReadiness extends HostHealth {
  readonly ready: boolean;
  /** Why not; empty when ready. */
  readonly reasons: readonly string[];
}

export interface HealthFacts {
  readonly state: string;
  readonly version: string;
  readonly pending: number;
  readonly bus: BusHealth;
  readonly active: readonly ActiveHandler[];
  readonly failed: ReadonlyMap<string, string>;
  readonly skipped: ReadonlyMap<string, string>;
  readonly report: LoadReport | undefined;
  readonly checkTimeoutSeconds: number;
}

/** Asks the handlers, all at once, and sums up. Never rejects. */
export async function hostHealth(facts: HealthFacts): Promise<HostReadiness> {
  const checks = await Promise.all(
    facts.active.map(async (active) => ({
      type: active.found.type,
      required: active.required,
      health: await handlerHealth(active, facts.checkTimeoutSeconds),
    })),
  );
  const unhealthy = checks.filter(({ health }) => !health.healthy);
  const reasons = [
    ...(facts.state === "running" ? [] : [`the host is ${facts.state}`]),
    ...(facts.bus.healthy ? [] : [`the event bus: ${facts.bus.detail ?? "unhealthy"}`]),
    ...unhealthy
      .filter(({ required }) => required)
      .map(({ type, health }) => `handler ${type}: ${health.reason ?? "unhealthy"}`),
  ];
  const lesser = facts.failed.size > 0 || unhealthy.length > 0;
  return {
    ready: reasons.length === 0,
    reasons,
    status: reasons.length > 0 ? "unhealthy" : lesser ? "degraded" : "healthy",
    version: facts.version,
    details: {
      state: facts.state,
      pending: facts.pending,
      bus: facts.bus,
      handlers: Object.fromEntries(checks.map(({ type, health }) => [type, health])),
      failed_handlers: Object.fromEntries(facts.failed),
      skipped_handlers: Object.fromEntries(facts.skipped),
      load_report: facts.report ?? null,
    },
  };
}

/** Characters of an error text that are shown. */
const maxReason = 200;

async function handlerHealth({ handler }: ActiveHandler, seconds: number): Promise<HandlerHealth> {
  try {
    const health: unknown = await within((async () => await handler.healthCheck())(), seconds * 1000);
    if (health === "timeout")
      return { healthy: false, reason: `the health check took longer than ${seconds} s` };
    if (!isObject(health) || typeof health.healthy !== "boolean") {
      return { healthy: false, reason: "the health check answered without `healthy`" };
    }
    return jsonHealth(health, health.healthy);
  } catch (thrown) {
    return { healthy: false, reason: `the health check failed: ${messageOf(thrown)}`.slice(0, maxReason) };
  }
}

/** Health is shown as JSON; details that have no such form must not take the rest of it away. */
function jsonHealth(health: Record<string, unknown>, healthy: boolean): HandlerHealth {
  try {
    const json = toJsonValue(health);
    if (isObject(json)) return { ...json, healthy };
  } catch (thrown) {
    return { healthy, reason: `its details are not JSON: ${messageOf(thrown)}`.slice(0, maxReason) };
  }
  return { healthy };
}
