/**
 * Executes calls. Owns the order of a call and its deadline. Does not own: how a kind of tool is run (`local.ts`,
 * `http.ts`, `bus.ts`), what a schema says (`validate.ts`).
 *
 * 1. A call always resolves; whatever goes wrong is a value.
 * 2. A call settles at once when its caller goes, its time is over or the runtime ends, even where the tool ignores its
 *    signal; what the tool does later is dropped.
 * 3. A call reads the snapshot once; no source is ever waited for.
 */
import type { CallSignal } from "../core/abort.ts";
import { monotonicClock, type Clock } from "../core/clock.ts";
import { Deadlines } from "../core/deadlines.ts";
import { InfraUnavailableError, OnexError, RuntimeHostError, ToolNotFoundError } from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import type { BreakerOptions, CircuitBreaking } from "../resilience/circuit-breaker.ts";
import { Bulkhead } from "../resilience/bulkhead.ts";
import type { CallMetrics } from "../core/metrics.ts";
import type { RetryOptions } from "../resilience/retry.ts";
import {
  failureResult,
  thrownResult,
  type Backend,
  type CallTool,
  type ToolCall,
  type ToolResult,
} from "../tools/call.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { Execution, JsonSchema, Tool } from "../tools/tool.ts";
import { overloaded, resolveCallLimits, type CallLimits } from "./call-limits.ts";
import { CallRecords, type ToolRecords } from "./call-records.ts";
import { BusBackend, type BusRequester } from "./bus.ts";
import { httpBackend, type HttpBackend } from "./http.ts";
import { LocalBackend } from "./local.ts";
import { cancelled, Run, type RunTerms } from "./run.ts";
import type { ServiceTls } from "./tls.ts";
import { invalidArguments, Validators } from "./validate.ts";

export interface ExecutorOptions {
  /** The catalog's present snapshot. */
  readonly snapshot: () => Snapshot;
  /** Deadline of a tool without its own, in seconds. */
  readonly timeoutSeconds: number;
  /** CIDR networks that may be called. Default: all but link-local and metadata addresses, which never may. */
  readonly allowedNetworks?: readonly string[];
  /** Of `https:` services. Default: Node's own authorities, no client certificate. */
  readonly tls?: ServiceTls;
  /** Carries the calls of kind `bus`, and is closed with the executor. Without one such a tool answers that it is missing. */
  readonly bus?: BusRequester;
  readonly breaker?: BreakerOptions;
  readonly retry?: RetryOptions;
  readonly limits?: CallLimits;
  /** Where calls are counted. Default: nowhere. */
  readonly metrics?: CallMetrics;
  readonly clock?: Clock;
  /** Of the choice between instances and of waits. Default `Math.random`. */
  readonly random?: () => number;
  readonly log?: Logger;
}

/** What an operator may see of the breakers and do to them; named by origin. */
export type Circuits = Pick<CircuitBreaking, "circuitState" | "circuitStates" | "resetCircuit">;

/** What is held of a tool that was called. */
interface ToolTerms extends RunTerms {
  readonly records: ToolRecords;
}

export class Executor {
  readonly #snapshot: () => Snapshot;
  readonly #timeoutSeconds: number;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #limits: Readonly<Required<CallLimits>>;
  readonly #records: CallRecords;
  /** Of the tools that were called, by name. */
  readonly #terms = new Map<string, ToolTerms>();
  /** By their limit in seconds; every call under way is in one of them. */
  readonly #deadlines = new Map<number, Deadlines>();
  readonly #validators = new Validators();
  readonly #http: HttpBackend;
  readonly #bus: BusBackend;
  readonly #backends: Readonly<Record<Execution["kind"], Backend>>;
  #active = 0;
  #state: "open" | "draining" | "closed" = "open";
  #onIdle: (() => void) | undefined;

  /** @throws ProtocolConfigurationError where an option or a file of `tls` is not valid */
  constructor(options: ExecutorOptions) {
    this.#snapshot = options.snapshot;
    this.#timeoutSeconds = options.timeoutSeconds;
    this.#log = options.log ?? silentLogger;
    this.#clock = options.clock ?? monotonicClock;
    const limits = resolveCallLimits(options.limits);
    this.#limits = limits;
    this.#records = new CallRecords(this.#log, options.metrics);
    this.#http = httpBackend({
      snapshot: options.snapshot,
      limits: { concurrency: limits.instanceConcurrency, queue: limits.instanceQueue },
      ...(options.allowedNetworks && { allowedNetworks: options.allowedNetworks }),
      ...(options.tls && { tls: options.tls }),
      ...(options.breaker && { breaker: options.breaker }),
      ...(options.retry && { retry: options.retry }),
      clock: this.#clock,
      ...(options.random && { random: options.random }),
      log: this.#log,
    });
    this.#bus = new BusBackend(options.bus);
    const local = new LocalBackend(this.#log);
    this.#backends = {
      local,
      function: local,
      onex: this.#http,
      rest: this.#http,
      bus: this.#bus,
    };
  }

  /** Calls under way. */
  get active(): number {
    return this.#active;
  }

  /** The state of every target's breaker, and their reset. */
  get circuits(): Circuits {
    return this.#http;
  }

  /** False while a call of the tool would be refused: no instance is there, or the breakers of all are open. */
  available(tool: Tool): boolean {
    switch (tool.execution.kind) {
      case "local":
      case "function":
        return true;
      case "onex":
      case "rest":
        return this.#http.available(tool);
      case "bus":
        return this.#bus.available;
    }
  }

  /** Looks the tool up, checks the arguments and runs it within its deadline. Never rejects. Bound. */
  readonly call: CallTool = async (call, signal) => {
    let result: ToolResult;
    try {
      result = await this.#execute(call, signal); // (1)
    } catch (error) {
      result = thrownResult(error);
    }
    if (result.failure !== undefined) this.#report(call, result.failure);
    return result;
  };

  /** To be called after every new snapshot: frees what is held for tools and targets that are gone. */
  readonly onSnapshot = (snapshot: Snapshot): void => {
    this.#validators.retain(snapshot.tools);
    // While calls of one that has gone are under way it keeps its bulkhead: it may be back before they have ended.
    for (const [name, { bulkhead }] of this.#terms) {
      if (snapshot.byName.has(name) || bulkhead.load > 0) continue;
      this.#terms.delete(name);
      this.#records.forget(name);
    }
    this.#http.retain(snapshot);
  };

  /** Refuses new calls, lets running ones finish, then frees everything. Idempotent. */
  async close(): Promise<void> {
    if (this.#state === "open") this.#state = "draining";
    await this.#idle();
    if (this.#state === "closed") return;
    // Nothing runs any more. A request that still waits for its connection belongs to a call that was given up; to let
    // it finish would take as long as the connection attempt does.
    await this.destroy(new InfraUnavailableError("The runtime is stopping."));
  }

  /** Ends running calls now, with `reason`, and frees everything. Idempotent. */
  async destroy(reason: Error): Promise<void> {
    this.#state = "closed";
    const failure =
      reason instanceof OnexError
        ? reason
        : new InfraUnavailableError("The runtime is stopping.", { cause: reason });
    // The latest first: one that waits must not be let in by the end of one before it.
    const running = [...this.#deadlines.values()].flatMap((deadlines) => deadlines.entries());
    for (const run of running) if (run instanceof Run) run.end(failure);
    await Promise.all(this.#distinctBackends().map((backend) => backend.destroy(reason)));
  }

  async #execute(call: ToolCall, signal: CallSignal): Promise<ToolResult> {
    if (this.#state !== "open")
      return failureResult(new InfraUnavailableError("The runtime is draining and takes no new calls."));
    const tool = this.#snapshot().byName.get(call.name); // (3)
    if (tool === undefined) return failureResult(new ToolNotFoundError(call.name));
    const startedAt = this.#clock.now();
    const terms = this.#termsOf(tool);
    const result = await this.#checked(terms, call, signal, startedAt);
    terms.records.add(call, result, this.#clock.now(), startedAt);
    return result;
  }

  async #checked(
    terms: ToolTerms,
    call: ToolCall,
    signal: CallSignal,
    startedAt: number,
  ): Promise<ToolResult> {
    const { tool } = terms;
    if (signal.aborted) return failureResult(cancelled(signal));
    const invalid = this.#validators.checkArguments(tool, call.arguments);
    if (invalid !== undefined) return invalidArguments(tool, invalid);
    if (terms.bulkhead.full) return failureResult(tooManyCalls(tool));
    const result = await this.#run(terms, call, signal, startedAt);
    return tool.outputSchema === undefined || result.isError
      ? result
      : this.#checkOutput(tool, tool.outputSchema, result);
  }

  /** The backend's result, or a failure as soon as the caller goes, the time is over or the runtime ends. (2) */
  #run(terms: ToolTerms, call: ToolCall, signal: CallSignal, startedAt: number): Promise<ToolResult> {
    return new Promise((resolve) => {
      const run = new Run(terms, call, signal, startedAt + terms.seconds * 1000);
      this.#active++;
      run.begin((result) => {
        this.#active--;
        resolve(result);
        if (this.#active === 0) this.#onIdle?.();
      });
    });
  }

  /** Found once for each form of a tool that is called. */
  #termsOf(tool: Tool): ToolTerms {
    const known = this.#terms.get(tool.name);
    if (known?.tool === tool) return known;
    const seconds = tool.timeoutSeconds ?? this.#timeoutSeconds;
    let deadlines = this.#deadlines.get(seconds);
    if (deadlines === undefined) {
      deadlines = new Deadlines(seconds * 1000);
      this.#deadlines.set(seconds, deadlines);
    }
    const terms = {
      tool,
      seconds,
      deadlines,
      backend: this.#backends[tool.execution.kind],
      bulkhead: known?.bulkhead ?? new Bulkhead(this.#limits.toolConcurrency, this.#limits.toolQueue),
      records: this.#records.of(tool.name),
    };
    this.#terms.set(tool.name, terms);
    return terms;
  }

  #checkOutput(tool: Tool, schema: JsonSchema, result: ToolResult): ToolResult {
    const invalid = this.#validators.checkOutput(tool, schema, result.structuredContent);
    if (invalid === undefined) return result;
    const says = `The tool "${tool.name}" answered something its output schema does not allow`;
    const where = invalid.paths.length === 0 ? "" : ` at ${invalid.paths.join(", ")}`;
    return failureResult(
      new RuntimeHostError(`${says}${where}`, { facts: { tool_name: tool.name } }),
      `${says}: ${invalid.text}`,
    );
  }

  /** Resolves once no call is under way. */
  async #idle(): Promise<void> {
    if (this.#active === 0) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const before = this.#onIdle;
    this.#onIdle = () => {
      before?.();
      resolve(undefined);
    };
    await promise;
  }

  #distinctBackends(): readonly Backend[] {
    return [...new Set(Object.values(this.#backends))];
  }

  /** What an operator has to know is a warning; what only the caller has done wrong is not. */
  #report(call: ToolCall, failure: OnexError): void {
    const fields = { tool: call.name, correlation_id: call.correlationId, ...failure.facts };
    if (failure.countsForBreaker || failure instanceof RuntimeHostError)
      this.#log.warn({ ...fields, cause: failure.cause }, failure.describe());
    else this.#log.debug(fields, failure.describe());
  }
}

const tooManyCalls = (tool: Tool): OnexError =>
  overloaded(`Too many calls of the tool "${tool.name}" are under way or wait: it is`, {
    operation: "call_tool",
    tool_name: tool.name,
  });
