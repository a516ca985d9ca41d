/**
 * Tools that are services over HTTP: kinds `onex` (the runtime's envelope) and `rest` (any API). Owns the order of an
 * attempt: instance, plan, request, breaker, exchange, answer. Does not own: the deadline, which comes with the signal;
 * whether and where a call that failed is tried again (`attempts.ts`).
 *
 * 1. Nothing is sent but behind the breaker of the instance's origin.
 * 2. What is wrong before anything is sent is not the service's fault: no breaker sees it.
 */
import type { CallSignal } from "../core/abort.ts";
import { monotonicClock, type Clock } from "../core/clock.ts";
import { CancelledError, InfraUnavailableError, OnexError } from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import {
  withCircuitBreaker,
  type BreakerOptions,
  type CircuitBreaking,
} from "../resilience/circuit-breaker.ts";
import { resolveRetryOptions, type RetryOptions } from "../resilience/retry.ts";
import { failureResult, type Backend, type ToolCall, type ToolResult } from "../tools/call.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { Tool } from "../tools/tool.ts";
import { exchangeFailure, readAnswer } from "./answer.ts";
import { Attempts, type Instances, type RetryParts } from "./attempts.ts";
import type { InstanceLimits } from "./call-limits.ts";
import { exchange, type HttpRequest } from "./exchange.ts";
import { networks } from "./networks.ts";
import type { Terms } from "./picker.ts";
import { Pools } from "./pools.ts";
import { Outgoing, type Plan } from "./request.ts";
import { Routes, type Route, type Target } from "./routes.ts";
import { PlaceholderError } from "./template.ts";
import { secureContext, type ServiceTls } from "./tls.ts";
import { invalidArguments } from "./validate.ts";

export interface HttpOptions {
  /** The catalog's present snapshot. */
  readonly snapshot: () => Snapshot;
  /** Of every instance. */
  readonly limits: InstanceLimits;
  /** CIDR networks that may be called. Default: all but link-local and metadata addresses, which never may. */
  readonly allowedNetworks?: readonly string[];
  /** Of `https:` services. Default: Node's own authorities, no client certificate. */
  readonly tls?: ServiceTls;
  /** Of every origin's breaker. */
  readonly breaker?: BreakerOptions;
  readonly retry?: RetryOptions;
  readonly clock?: Clock;
  /** Of the choice between instances and of waits. Default `Math.random`. */
  readonly random?: () => number;
  readonly log?: Logger;
}

/** The breakers are named by origin: `http://host:port`. */
export interface HttpBackend extends Backend, CircuitBreaking {
  /** False while a call would be refused: no instance is there, or the breakers of all are open. */
  available(tool: Tool): boolean;
  /** Frees what is held for tools that are gone, and for origins that no tool of the snapshot points at. */
  retain(snapshot: Snapshot): void;
}

/** Of a tool without a live instance: sources learn of one within moments, checks run every few seconds. */
const noInstanceRetrySeconds = 5;

/** Calls without a breaker: what `httpBackend` puts behind one. */
class Services {
  readonly pools: Pools;
  readonly routes: Routes;

  constructor(options: HttpOptions, clock: Clock) {
    const tls = options.tls && secureContext(options.tls);
    this.pools = new Pools(networks(options.allowedNetworks), options.limits, tls);
    this.routes = new Routes(clock);
  }

  /** The answer, whatever it says; the promise is rejected with an `OnexError` where there is none, or a 5xx. */
  prepare(
    tool: Tool,
    plan: Plan,
    request: HttpRequest,
    signal: CallSignal,
    outgoing: Outgoing,
    isFirst: boolean,
  ): () => Promise<ToolResult> {
    const pool = this.pools.get(plan.origin, tool.name);
    return async () => {
      try {
        return readAnswer(await exchange(pool, request, signal, outgoing), tool, plan);
      } catch (error) {
        // A later attempt has what the others left of the time: that it is over says nothing about this instance.
        if (!isFirst && signal.aborted) throw new CancelledError(undefined, { cause: error });
        throw exchangeFailure(error, tool, plan.origin, signal);
      }
    };
  }

  /** The origins whose connections were given up. */
  keep(snapshot: Snapshot): readonly string[] {
    this.routes.retain(snapshot);
    if (this.pools.origins.length === 0) return [];
    const wanted = new Set<string>();
    for (const tool of snapshot.tools) for (const origin of this.routes.originsOf(tool)) wanted.add(origin);
    return this.pools.retain(wanted);
  }

  destroy(reason: Error): Promise<void> {
    return this.pools.destroy(reason);
  }
}

/**
 * @throws ProtocolConfigurationError where a network, a breaker or retry option, or a file of `tls` is not valid
 */
export function httpBackend(options: HttpOptions): HttpBackend {
  const { snapshot, breaker, clock = monotonicClock, random = Math.random } = options;
  const retry = resolveRetryOptions(options.retry);

  class BreakingServices
    extends withCircuitBreaker(Services, { clock, ...(breaker && { breaker }) })
    implements HttpBackend, Instances
  {
    readonly terms: Terms<Target> = {
      random,
      load: ({ key }) => this.pools.load(key),
      allows: ({ key }) => this.circuitAdmits(key) && !this.pools.isFull(key),
    };
    readonly #parts: RetryParts = { instances: this, retry, clock, log: options.log ?? silentLogger };

    async call(tool: Tool, call: ToolCall, signal: CallSignal, deadline: number): Promise<ToolResult> {
      const route = this.routeOf(tool);
      let target = route && (route.picker.pick(this.terms) ?? this.soonest(route));
      if (route === undefined || target === undefined) return failureResult(noInstance(tool));
      route.budget.deposit();
      const outgoing = new Outgoing(call);
      let attempts: Attempts | undefined;
      for (;;) {
        let result: ToolResult;
        try {
          const isFirst = attempts === undefined;
          result = await this.#attempt(tool, target, outgoing, signal, deadline, isFirst);
        } catch (error) {
          if (error instanceof PlaceholderError)
            return invalidArguments(tool, { text: error.message, paths: [`/${error.argument}`] }); // (2)
          if (!(error instanceof OnexError)) throw error;
          result = failureResult(withoutAddress(error, tool));
        }
        if (result.failure === undefined) return attempts?.settled(result) ?? result;
        attempts ??= new Attempts(this.#parts, tool, call, signal, deadline);
        target = await attempts.next(result.failure, target, outgoing.begun);
        if (target === undefined) return attempts.settled(result);
        outgoing.begun = false;
      }
    }

    available(tool: Tool): boolean {
      return this.routes.originsOf(tool).some((origin) => this.circuitState(origin)?.kind !== "open");
    }

    retain(present: Snapshot): void {
      for (const origin of this.keep(present)) this.removeCircuit(origin);
    }

    routeOf(tool: Tool): Route | undefined {
      return this.routes.of(tool, snapshot);
    }

    soonest({ targets }: Route): Target | undefined {
      return targets.toSorted((a, b) => this.readyMs(a) - this.readyMs(b))[0];
    }

    readyMs(target: Target): number {
      const state = this.circuitState(target.key);
      if (state?.kind === "open") return state.until - clock.now();
      // Trials and calls under way end at any moment.
      return this.terms.allows(target) ? 0 : busyMs;
    }

    isWell({ key }: Target): boolean {
      const state = this.circuitState(key);
      return state === undefined || (state.kind === "closed" && state.failures === 0);
    }

    #attempt(
      tool: Tool,
      { plan }: Target,
      outgoing: Outgoing,
      signal: CallSignal,
      deadline: number,
      isFirst: boolean,
    ): Promise<ToolResult> {
      if (plan instanceof OnexError) throw plan;
      const request = plan.build(outgoing, deadline - clock.now());
      const work = this.prepare(tool, plan, request, signal, outgoing, isFirst);
      return this.withCircuit(plan.origin, work); // (1)
    }
  }
  return new BreakingServices(options, clock);
}

/** Milliseconds that are waited where it cannot be known for how long: what Retry-After says then, a second. */
const busyMs = 1000;

const noInstance = (tool: Tool): InfraUnavailableError =>
  new InfraUnavailableError(
    `No instance of the service behind "${tool.name}" is available at the moment; try again in ${noInstanceRetrySeconds} s.`,
    {
      facts: { transport: "http", tool_name: tool.name, retry_after_seconds: noInstanceRetrySeconds },
    },
  );

/** The breaker's refusal names its target; a client hears of the tool only. */
function withoutAddress(error: OnexError, tool: Tool): OnexError {
  if (error.facts.circuit_state === undefined) return error;
  const seconds = error.facts.retry_after_seconds ?? 1;
  return new InfraUnavailableError(
    `The service behind "${tool.name}" is not available at the moment; try again in ${seconds} s.`,
    { cause: error, facts: { transport: "http", ...error.facts } },
  );
}
