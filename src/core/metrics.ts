/**
 * What is counted, in Prometheus' terms. Owns the registry, the names and the labels. Does not own: when something is
 * counted, or the route that shows it.
 *
 * 1. Labels are bounded: tools are those of the catalog, outcomes those of the error table and three more. What was
 *    counted of a tool goes with it.
 */
import { Counter, Histogram, Registry } from "prom-client";

/** How a call ended: `ok`, `tool_error`, `cancelled`, or the code of the error that the runtime answered with. */
export type Outcome = string;

/** Upper bounds in seconds: from a service next door to the longest timeout there is. */
const durationBuckets = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
];

/** The counters of one tool, found once: to look them up by their labels costs more than to count. */
export class ToolMetrics {
  readonly #calls: CallMetrics;
  readonly #tool: string;
  readonly #duration: { observe(seconds: number): void };
  readonly #ok: { inc(): void };
  /** Its tool has gone: a call that ends now brings nothing back. (1) */
  isGone = false;
  /** Those there have been. */
  readonly outcomes = new Set<Outcome>(["ok"]);

  constructor(calls: CallMetrics, tool: string) {
    this.#calls = calls;
    this.#tool = tool;
    this.#duration = calls.durations.labels(tool);
    this.#ok = calls.ended.labels(tool, "ok");
  }

  /** @param retries attempts besides the first */
  count(outcome: Outcome, seconds: number, retries: number): void {
    if (this.isGone) return;
    this.#duration.observe(seconds);
    if (outcome === "ok") this.#ok.inc();
    else {
      this.outcomes.add(outcome);
      this.#calls.ended.labels(this.#tool, outcome).inc();
    }
    if (retries > 0) this.#calls.retries.labels(this.#tool).inc(retries);
  }
}

export class CallMetrics {
  readonly ended: Counter<"tool" | "outcome">;
  readonly durations: Histogram<"tool">;
  readonly retries: Counter<"tool">;
  readonly #byTool = new Map<string, ToolMetrics>();
  constructor(registry: Registry) {
    const registers = [registry];
    this.ended = new Counter({
      name: "onex_tool_calls_total",
      help: "Calls of tools that have ended.",
      labelNames: ["tool", "outcome"],
      registers,
    });
    this.durations = new Histogram({
      name: "onex_tool_call_duration_seconds",
      help: "From a call's begin to its end, waits and retries included.",
      labelNames: ["tool"],
      buckets: durationBuckets,
      registers,
    });
    this.retries = new Counter({
      name: "onex_tool_call_retries_total",
      help: "Attempts besides the first.",
      labelNames: ["tool"],
      registers,
    });
  }

  of(tool: string): ToolMetrics {
    let metrics = this.#byTool.get(tool);
    if (metrics === undefined) {
      metrics = new ToolMetrics(this, tool);
      this.#byTool.set(tool, metrics);
    }
    return metrics;
  }

  /** (1) */
  forget(tool: string): void {
    const metrics = this.#byTool.get(tool);
    if (metrics === undefined) return;
    metrics.isGone = true;
    this.#byTool.delete(tool);
    for (const outcome of metrics.outcomes) this.ended.remove(tool, outcome);
    this.durations.remove(tool);
    this.retries.remove(tool);
  }
}

/** All that is counted, as Prometheus reads it. */
export class Metrics {
  readonly #registry = new Registry();
  readonly calls = new CallMetrics(this.#registry);

  /** Content type of `text`. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** The exposition format, version 0.0.4. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
