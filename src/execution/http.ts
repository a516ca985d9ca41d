/**
 * Tools that are services over HTTP: kinds `onex` (the runtime's envelope) and `rest` (any API). Owns the order of a
 * call: instance, plan, request, breaker, exchange, answer; and when another instance is tried. Does not own: the
 * deadline, which comes as the signal; waiting and trying again.
 *
 * 1. Nothing is sent but behind the breaker of the instance's origin.
 * 2. What is wrong before anything is sent is not the service's fault: no breaker sees it.
 * 3. A call goes on to another instance, at once and to each origin once, where nothing of it had been sent; where the
 *    connection was lost after that, only if the tool says that it may be called twice.
 * 4. The instances are those of the present snapshot, also in the middle of a call: what has gone is not opened again.
 */
import type { CallSignal } from "../core/abort.ts";
import type { Clock } from "../core/clock.ts";
import { InfraConnectionError, InfraUnavailableError, OnexError } from "../core/errors.ts";
import {
  withCircuitBreaker,
  type BreakerOptions,
  type CircuitBreaking,
} from "../resilience/circuit-breaker.ts";
import { failureResult, type Backend, type ToolCall, type ToolResult } from "../tools/call.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { Tool } from "../tools/tool.ts";
import { exchangeFailure, readAnswer } from "./answer.ts";
import { exchange, type HttpRequest, type Sending } from "./exchange.ts";
import { networks } from "./networks.ts";
import type { Terms } from "./picker.ts";
import { Pools } from "./pools.ts";
import type { Plan } from "./request.ts";
import { isStandIn, Routes, type Target } from "./routes.ts";
import { PlaceholderError } from "./template.ts";
import { invalidArguments } from "./validate.ts";

export interface HttpOptions {
  /** The catalog's present snapshot. */
  readonly snapshot: () => Snapshot;
  /** CIDR networks that may be called. Default: all but link-local and metadata addresses, which never may. */
  readonly allowedNetworks?: readonly string[];
  /** Of every origin's breaker. */
  readonly breaker?: BreakerOptions;
  readonly clock?: Clock;
  /** Of the choice between instances. Default `Math.random`. */
  readonly random?: () => number;
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
  readonly routes = new Routes();

  constructor(options: HttpOptions) {
    this.pools = new Pools(networks(options.allowedNetworks));
  }

  /** The answer, whatever it says; the promise is rejected with an `OnexError` where there is none, or a 5xx. */
  prepare(
    tool: Tool,
    plan: Plan,
    request: HttpRequest,
    signal: CallSignal,
    sending: Sending,
  ): () => Promise<ToolResult> {
    const pool = this.pools.get(plan.origin, tool.name);
    return async () => {
      try {
        return readAnswer(await exchange(pool, request, signal, sending), tool, plan);
      } catch (error) {
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
 * @throws ProtocolConfigurationError where a network or a breaker option is not valid
 */
export function httpBackend(options: HttpOptions): HttpBackend {
  const { snapshot, breaker, clock, random = Math.random } = options;
  const breaking = { ...(breaker && { breaker }), ...(clock && { clock }) };

  class BreakingServices extends withCircuitBreaker(Services, breaking) implements HttpBackend {
    readonly #terms: Terms<Target> = {
      random,
      load: ({ key }) => this.pools.outstanding(key),
      allows: ({ key }) => !this.#isOpen(key),
    };

    async call(tool: Tool, call: ToolCall, signal: CallSignal): Promise<ToolResult> {
      let tried: Set<string> | undefined;
      let serving = tool;
      let failure: OnexError | undefined;
      for (;;) {
        const target = this.#next(serving, tried);
        if (target === undefined) return failureResult(failure ?? noInstance(tool));
        const sending: Sending = { begun: false };
        try {
          return await this.#attempt(tool, target, call, signal, sending);
        } catch (error) {
          if (error instanceof PlaceholderError)
            return invalidArguments(tool, { text: error.message, paths: [`/${error.argument}`] }); // (2)
          if (!(error instanceof OnexError)) throw error;
          failure = withoutAddress(error, tool);
          if (signal.aborted || !mayGoOn(tool, failure, sending)) return failureResult(failure);
        }
        tried ??= new Set();
        tried.add(target.key);
        const present = snapshot().byName.get(tool.name); // (4)
        if (present === undefined || !isStandIn(tool, present)) return failureResult(failure);
        serving = present;
      }
    }

    available(tool: Tool): boolean {
      return this.routes.originsOf(tool).some((origin) => !this.#isOpen(origin));
    }

    retain(present: Snapshot): void {
      for (const origin of this.keep(present)) this.removeCircuit(origin);
    }

    #attempt(
      tool: Tool,
      { plan }: Target,
      call: ToolCall,
      signal: CallSignal,
      sending: Sending,
    ): Promise<ToolResult> {
      if (plan instanceof OnexError) throw plan;
      const work = this.prepare(tool, plan, plan.build(call), signal, sending);
      return this.withCircuit(plan.origin, work); // (1)
    }

    /** An instance whose breaker is open is passed over while another is there. */
    #next(tool: Tool, tried: ReadonlySet<string> | undefined): Target | undefined {
      const picker = this.routes.of(tool);
      // Where all are open, the one that opens first says when.
      if (tried === undefined) return picker.pick(this.#terms) ?? this.#firstToOpen(picker.items);
      const { allows } = this.#terms;
      return picker.pick({ ...this.#terms, allows: (target) => !tried.has(target.key) && allows(target) });
    }

    #firstToOpen(targets: readonly Target[]): Target | undefined {
      const until = ({ key }: Target): number => {
        const state = this.circuitState(key);
        return state?.kind === "open" ? state.until : 0;
      };
      return targets.toSorted((a, b) => until(a) - until(b))[0];
    }

    #isOpen(origin: string): boolean {
      return this.circuitState(origin)?.kind === "open";
    }
  }
  return new BreakingServices(options);
}

/** (3) */
function mayGoOn({ annotations }: Tool, failure: OnexError, sending: Sending): boolean {
  if (!sending.begun) return true;
  const isLost = failure instanceof InfraConnectionError && failure.facts.status === undefined;
  return isLost && (annotations.readOnly === true || annotations.idempotent === true);
}

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
