/**
 * How many calls may be under way, and how many may wait: of each tool and of each instance. Owns: the limits and their
 * check, the error of a call that is turned away. Does not own: the bulkheads (`executor.ts`, `pools.ts`), what one does
 * (`resilience/bulkhead.ts`).
 *
 * 1. One tool never fills an instance that others share: it has fewer calls under way than an instance takes.
 */
import { inspect } from "node:util";
import { InfraUnavailableError, ProtocolConfigurationError, type ErrorFacts } from "../core/errors.ts";

export interface CallLimits {
  /** Calls of one tool under way at a time, 1..10000. Default 128. */
  readonly toolConcurrency?: number;
  /** Calls of one tool that wait for that, 0..100000. Default 512. */
  readonly toolQueue?: number;
  /** Calls under way at one instance at a time, of all tools, and so its connections, 2..10000. Default 256. */
  readonly instanceConcurrency?: number;
  /** Calls that wait for that, 0..100000. Default 256. */
  readonly instanceQueue?: number;
}

export const defaultCallLimits = Object.freeze({
  toolConcurrency: 128,
  toolQueue: 512,
  instanceConcurrency: 256,
  instanceQueue: 256,
});

/** Of one instance. */
export interface InstanceLimits {
  /** Connections, and so calls under way. */
  readonly concurrency: number;
  /** Calls that wait for one. */
  readonly queue: number;
}

/** Why the two do not go together, as the end of a sentence; undefined where they do. (1) */
export const limitsProblem = (toolConcurrency: number, instanceConcurrency: number): string | undefined =>
  toolConcurrency < instanceConcurrency
    ? undefined
    : `must be below instance_concurrency (${instanceConcurrency}), or one slow tool could use up an instance that other tools share`;

/**
 * The limits, complete and frozen.
 *
 * @throws ProtocolConfigurationError where one is out of its range, or the two of concurrency do not go together
 */
export function resolveCallLimits(options: CallLimits = {}): Readonly<Required<CallLimits>> {
  const limits = { ...defaultCallLimits, ...options };
  check("tool_concurrency", limits.toolConcurrency, 1, 10_000);
  check("tool_queue", limits.toolQueue, 0, 100_000);
  check("instance_concurrency", limits.instanceConcurrency, 2, 10_000);
  check("instance_queue", limits.instanceQueue, 0, 100_000);
  const problem = limitsProblem(limits.toolConcurrency, limits.instanceConcurrency);
  if (problem !== undefined)
    throw new ProtocolConfigurationError(`tool_concurrency (${limits.toolConcurrency}) ${problem}`);
  return Object.freeze(limits);
}

function check(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max)
    throw new ProtocolConfigurationError(
      `${name} must be an integer from ${min} to ${max}, got ${inspect(value)}`,
    );
}

/** In whole seconds, the least that Retry-After can say: a place may be free at any moment. */
const retryAfterSeconds = 1;

/** @param says who is too busy, as the beginning of a sentence */
export const overloaded = (says: string, facts: ErrorFacts): InfraUnavailableError =>
  new InfraUnavailableError(`${says} overloaded; try again in ${retryAfterSeconds} s.`, {
    facts: { ...facts, reason: "overloaded", retry_after_seconds: retryAfterSeconds },
  });
