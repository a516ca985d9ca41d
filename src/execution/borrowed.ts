/**
 * An executor that is not ours. Owns: counting its calls, so that a stop can wait for them and give them up. Does not
 * own: the executor, which is never closed, nor any of the rules that our own has (arguments, deadline, breaker).
 */
import { abortable, abortSignalOf } from "../core/abort.ts";
import { InfraUnavailableError, ToolNotFoundError, type OnexError } from "../core/errors.ts";
import {
  failureResult,
  thrownResult,
  type CallTool,
  type ToolCall,
  type ToolExecutor,
  type ToolResult,
} from "../tools/call.ts";
import type { Snapshot } from "../tools/snapshot.ts";

export class BorrowedExecutor {
  readonly #executor: ToolExecutor;
  readonly #snapshot: () => Snapshot;
  readonly #running = new Map<AbortController, Promise<ToolResult>>();
  #refusal: OnexError | undefined;

  constructor(executor: ToolExecutor, snapshot: () => Snapshot) {
    this.#executor = executor;
    this.#snapshot = snapshot;
  }

  readonly call: CallTool = async (call, signal) => {
    if (this.#refusal !== undefined) return failureResult(this.#refusal);
    // What is not listed cannot be called, whoever executes.
    if (!this.#snapshot().byName.has(call.name)) return failureResult(new ToolNotFoundError(call.name));
    const stop = new AbortController();
    const running = this.#run(call, AbortSignal.any([abortSignalOf(signal), stop.signal]));
    this.#running.set(stop, running);
    try {
      return await running;
    } finally {
      this.#running.delete(stop);
    }
  };

  available(): boolean {
    return true;
  }

  async close(): Promise<void> {
    this.#refusal ??= new InfraUnavailableError("The runtime is draining and takes no new calls.");
    await Promise.all(this.#running.values());
  }

  async destroy(reason: Error): Promise<void> {
    this.#refusal ??= new InfraUnavailableError("The runtime is stopping.");
    for (const stop of this.#running.keys()) stop.abort(reason);
    await Promise.all(this.#running.values());
  }

  /** Settles as soon as the signal aborts, also where the executor ignores it. */
  async #run(call: ToolCall, signal: AbortSignal): Promise<ToolResult> {
    try {
      return await abortable(this.#executor.call(call, signal), signal);
    } catch (thrown) {
      return thrownResult(thrown);
    }
  }
}
