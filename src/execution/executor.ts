/**
 * Executes calls. Owns the order of a call and its deadline. Does not own: how a kind of tool is run (`local.ts`,
 * `http.ts`, `bus.ts`), what a schema says (`validate.ts`).
 *
 * 1. A call always resolves; whatever goes wrong is a value.
 * 2. A call settles at once when its caller goes, its time is over or the runtime ends, even where the tool ignores its
 *    signal; what the tool does later is dropped.
 * 3. A call reads the snapshot once; no source is ever waited for.
 */
import { Cancellation, type CallSignal } from "../core/abort.ts";
import type { Clock } from "../core/clock.ts";
import {
  CancelledError,
  InfraTimeoutError,
  InfraUnavailableError,
  OnexError,
  RuntimeHostError,
  ToolNotFoundError,
} from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import type { BreakerOptions, CircuitBreaking } from "../resilience/circuit-breaker.ts";
import {
  failureResult,
  thrownResult,
  type Backend,
  type CallTool,
  type ToolCall,
  type ToolResult,
} from "../tools/call.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { Execution, Tool } from "../tools/tool.ts";
import { BusBackend, type BusRequester } from "./bus.ts";
import { httpBackend, type HttpBackend } from "./http.ts";
import { LocalBackend } from "./local.ts";
import { invalidArguments, Validators } from "./validate.ts";

export interface ExecutorOptions {
  /** The catalog's present snapshot. */
  readonly snapshot: () => Snapshot;
  /** Deadline of a tool without its own, in seconds. */
  readonly timeoutSeconds: number;
  /** CIDR networks that may be called. Default: all but link-local and metadata addresses, which never may. */
  readonly allowedNetworks?: readonly string[];
  /** Carries the calls of kind `bus`, and is closed with the executor. Without one such a tool answers that it is missing. */
  readonly bus?: BusRequester;
  readonly breaker?: BreakerOptions;
  readonly clock?: Clock;
  /** Of the choice between instances. Default `Math.random`. */
  readonly random?: () => number;
  readonly log?: Logger;
}

/** What an operator may see of the breakers and do to them; named by origin. */
export type Circuits = Pick<CircuitBreaking, "circuitState" | "circuitStates" | "resetCircuit">;

type End = (failure: OnexError) => void;

export class Executor {
  readonly #snapshot: () => Snapshot;
  readonly #timeoutSeconds: number;
  readonly #log: Logger;
  readonly #validators = new Validators();
  readonly #http: HttpBackend;
  readonly #bus: BusBackend;
  readonly #backends: Readonly<Record<Execution["kind"], Backend>>;
  /** One entry for each call under way. */
  readonly #running = new Set<End>();
  #state: "open" | "draining" | "closed" = "open";
  #onIdle: (() => void) | undefined;

  /** @throws ProtocolConfigurationError where a network or a breaker option is not valid */
  constructor(options: ExecutorOptions) {
    this.#snapshot = options.snapshot;
    this.#timeoutSeconds = options.timeoutSeconds;
    this.#log = options.log ?? silentLogger;
    this.#http = httpBackend({
      snapshot: options.snapshot,
      ...(options.allowedNetworks && { allowedNetworks: options.allowedNetworks }),
      ...(options.breaker && { breaker: options.breaker }),
      ...(options.clock && { clock: options.clock }),
      ...(options.random && { random: options.random }),
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
    return this.#running.size;
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
    for (const end of [...this.#running]) end(failure);
    await Promise.all(this.#distinctBackends().map((backend) => backend.destroy(reason)));
  }

  async #execute(call: ToolCall, signal: CallSignal): Promise<ToolResult> {
    if (this.#state !== "open")
      return failureResult(new InfraUnavailableError("The runtime is draining and takes no new calls."));
    const tool = this.#snapshot().byName.get(call.name); // (3)
    if (tool === undefined) return failureResult(new ToolNotFoundError(call.name));
    if (signal.aborted) return failureResult(cancelled(signal));
    const invalid = this.#validators.checkArguments(tool, call.arguments);
    if (invalid !== undefined) return invalidArguments(tool, invalid);
    const result = await this.#limited(tool, call, signal);
    return this.#checkOutput(tool, result);
  }

  /** The backend's result, or a failure as soon as the caller goes, the time is over or the runtime ends. (2) */
  #limited(tool: Tool, call: ToolCall, parent: CallSignal): Promise<ToolResult> {
    const seconds = tool.timeoutSeconds ?? this.#timeoutSeconds;
    // One timer and one listener for each call, rather than the general helpers: this is the hot path.
    return new Promise((resolve) => {
      const cancellation = new Cancellation();
      const settle = (result: ToolResult): void => {
        if (!this.#running.delete(end)) return;
        clearTimeout(timer);
        parent.removeEventListener("abort", onParent);
        resolve(result);
        if (this.#running.size === 0) this.#onIdle?.();
      };
      const end: End = (failure) => {
        settle(failureResult(failure));
        cancellation.abort(failure);
      };
      const onParent = (): void => end(cancelled(parent));
      const timer = setTimeout(() => end(timedOut(tool, seconds)), seconds * 1000);
      parent.addEventListener("abort", onParent, { once: true });
      this.#running.add(end);
      this.#backends[tool.execution.kind]
        .call(tool, call, cancellation)
        .then(settle, (error: unknown) => settle(thrownResult(error)));
    });
  }

  #checkOutput(tool: Tool, result: ToolResult): ToolResult {
    if (tool.outputSchema === undefined || result.isError) return result;
    const invalid = this.#validators.checkOutput(tool, tool.outputSchema, result.structuredContent);
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
    if (this.#running.size === 0) return;
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

function cancelled(signal: CallSignal): OnexError {
  const reason: unknown = signal.reason;
  return reason instanceof OnexError ? reason : new CancelledError(undefined, { cause: reason });
}

const timedOut = (tool: Tool, seconds: number): OnexError =>
  new InfraTimeoutError(`The tool "${tool.name}" took longer than ${seconds} s.`, {
    facts: { operation: "call_tool", tool_name: tool.name, timeout_seconds: seconds },
  });
