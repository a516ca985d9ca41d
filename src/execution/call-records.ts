/**
 * What is kept of a call that has ended: its counts, and a line in the log. Owns: how an outcome is named, and how many
 * lines there are. Does not own: the metrics' names, or what a failure means for an operator (the executor reports it).
 *
 * 1. No argument and no result is in either.
 * 2. Lines are sampled: beyond `linesPerSecond` they are left out, and the next one says how many were.
 */
import { CancelledError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { CallMetrics, Outcome, ToolMetrics } from "../core/metrics.ts";
import type { ToolCall, ToolResult } from "../tools/call.ts";

/** A person reads no more, and to write one costs more than to answer half a call. */
const linesPerSecond = 5;

export class CallRecords {
  readonly #log: Logger;
  readonly #metrics: CallMetrics | undefined;
  /** When the next line may be written, were lines evenly spread. */
  #nextAt = -Infinity;
  #leftOut = 0;

  constructor(log: Logger, metrics: CallMetrics | undefined) {
    this.#log = log;
    this.#metrics = metrics;
  }

  of(tool: string): ToolRecords {
    return new ToolRecords(this, this.#metrics?.of(tool));
  }

  /** A tool has gone, and with it its counts. */
  forget(tool: string): void {
    this.#metrics?.forget(tool);
  }

  /** (2) */
  line(call: ToolCall, outcome: Outcome, now: number, milliseconds: number, attempts: number): void {
    const second = 1000;
    // A full second's lines may come at once.
    if (this.#nextAt - now > second - second / linesPerSecond) {
      this.#leftOut += 1;
      return;
    }
    this.#nextAt = Math.max(now, this.#nextAt) + second / linesPerSecond;
    const fields = {
      tool: call.name,
      outcome,
      duration_ms: Math.round(milliseconds * 10) / 10,
      correlation_id: call.correlationId,
      ...(call.principal !== undefined && { principal: call.principal.name }),
      ...(attempts > 1 && { attempts }),
      ...(this.#leftOut > 0 && { left_out: this.#leftOut }),
    };
    this.#leftOut = 0;
    this.#log.info(fields, "a tool was called");
  }
}

/** The records of one tool. */
export class ToolRecords {
  readonly #all: CallRecords;
  readonly #metrics: ToolMetrics | undefined;

  constructor(all: CallRecords, metrics: ToolMetrics | undefined) {
    this.#all = all;
    this.#metrics = metrics;
  }

  /** @param now of the end, and since when, in milliseconds of one clock */
  add(call: ToolCall, result: ToolResult, now: number, startedAt: number): void {
    const milliseconds = now - startedAt;
    const outcome = outcomeOf(result);
    const attempts = result.meta === undefined ? 1 : attemptsOf(result.meta);
    this.#metrics?.count(outcome, milliseconds / 1000, attempts - 1);
    // A failure has a line of its own.
    if (result.failure === undefined) this.#all.line(call, outcome, now, milliseconds, attempts);
  }
}

function outcomeOf({ failure, isError }: ToolResult): Outcome {
  if (failure === undefined) return isError ? "tool_error" : "ok";
  return failure instanceof CancelledError ? "cancelled" : failure.code;
}

function attemptsOf(meta: NonNullable<ToolResult["meta"]>): number {
  const attempts = meta["onex-runtime/attempts"];
  return typeof attempts === "number" ? attempts : 1;
}
