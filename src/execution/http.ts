/**
 * Tools that are services over HTTP: kinds `onex` (the runtime's envelope) and `rest` (any API). Owns the order of a
 * call: plan, request, breaker, exchange, answer. Does not own: the deadline, which comes as the signal.
 *
 * 1. Nothing is sent but behind the breaker of the tool's origin.
 * 2. What is wrong before anything is sent is not the service's fault: no breaker sees it.
 */
import type { Clock } from "../core/clock.ts";
import { InfraUnavailableError, OnexError, toOnexError } from "../core/errors.ts";
import {
  withCircuitBreaker,
  type BreakerOptions,
  type CircuitBreaking,
} from "../resilience/circuit-breaker.ts";
import { failureResult, type Backend, type ToolCall, type ToolResult } from "../tools/call.ts";
import type { Tool } from "../tools/tool.ts";
import { exchangeFailure, readAnswer } from "./answer.ts";
import { Endpoints } from "./endpoints.ts";
import { exchange, type HttpRequest } from "./exchange.ts";
import { networks } from "./networks.ts";
import { planOf, targetOf, type Plan } from "./request.ts";
import { PlaceholderError } from "./template.ts";
import { invalidArguments } from "./validate.ts";

export interface HttpOptions {
  /** CIDR networks that may be called. Default: all but link-local and metadata addresses, which never may. */
  readonly allowedNetworks?: readonly string[];
  /** Of every origin's breaker. */
  readonly breaker?: BreakerOptions;
  readonly clock?: Clock;
}

/** The breakers are named by origin: `http://host:port`. */
export interface HttpBackend extends Backend, CircuitBreaking {
  /** Frees what is held for origins that no tool of `tools` points at. */
  retain(tools: readonly Tool[]): void;
}

/** Calls without a breaker: what `httpBackend` puts behind one. */
class Services {
  readonly #endpoints: Endpoints;
  /** Per tool object: a changed tool is another object. */
  readonly #plans = new WeakMap<Tool, Plan | OnexError>();

  constructor(options: HttpOptions) {
    this.#endpoints = new Endpoints(networks(options.allowedNetworks));
  }

  plan(tool: Tool): Plan | OnexError {
    let plan = this.#plans.get(tool);
    if (plan === undefined) {
      try {
        plan = planOf(tool);
      } catch (error) {
        plan = toOnexError(error);
      }
      this.#plans.set(tool, plan);
    }
    return plan;
  }

  /** The answer, whatever it says; the promise is rejected with an `OnexError` where there is none, or a 5xx. */
  prepare(tool: Tool, plan: Plan, request: HttpRequest, signal: AbortSignal): () => Promise<ToolResult> {
    const endpoint = this.#endpoints.get(plan.origin, tool.name);
    return async () => {
      try {
        return readAnswer(await exchange(endpoint, request, signal), tool, plan);
      } catch (error) {
        throw exchangeFailure(error, tool, plan.origin, signal);
      }
    };
  }

  /** The origins whose connections were given up. */
  keep(tools: readonly Tool[]): readonly string[] {
    if (this.#endpoints.origins.length === 0) return [];
    const wanted = new Set(tools.map(targetOf).filter((origin) => origin !== undefined));
    return this.#endpoints.retain(wanted);
  }

  destroy(reason: Error): Promise<void> {
    return this.#endpoints.destroy(reason);
  }
}

/**
 * @throws ProtocolConfigurationError where a network or a breaker option is not valid
 */
export function httpBackend(options: HttpOptions = {}): HttpBackend {
  const { breaker, clock } = options;
  const breaking = { ...(breaker && { breaker }), ...(clock && { clock }) };

  class BreakingServices extends withCircuitBreaker(Services, breaking) implements HttpBackend {
    async call(tool: Tool, call: ToolCall, signal: AbortSignal): Promise<ToolResult> {
      const plan = this.plan(tool);
      if (plan instanceof OnexError) return failureResult(plan);
      let request: HttpRequest;
      try {
        request = plan.build(call);
      } catch (error) {
        if (!(error instanceof PlaceholderError)) throw error;
        return invalidArguments(tool, { text: error.message, paths: [`/${error.argument}`] }); // (2)
      }
      try {
        return await this.withCircuit(plan.origin, this.prepare(tool, plan, request, signal)); // (1)
      } catch (error) {
        return failureResult(withoutAddress(toOnexError(error), tool));
      }
    }

    retain(tools: readonly Tool[]): void {
      for (const origin of this.keep(tools)) this.removeCircuit(origin);
    }
  }
  return new BreakingServices(options);
}

/** The breaker's refusal names its target; a client hears of the tool only. */
function withoutAddress(error: OnexError, tool: Tool): OnexError {
  if (error.facts.circuit_state === undefined) return error;
  const seconds = error.facts.retry_after_seconds ?? 1;
  return new InfraUnavailableError(
    `The service behind "${tool.name}" is not available at the moment; try again in ${seconds} s.`,
    { cause: error, facts: { transport: "http", ...error.facts } },
  );
}
