/**
 * One call under way. Owns its place among the calls of its tool, its time and its one end. Does not own: what is run, or
 * what comes of the outcome. It is itself the signal that its backend listens to, as one object costs less than two.
 *
 * 1. It settles once: with the backend's result, or as soon as its caller goes, its time is over or the runtime ends.
 * 2. What it waits for before its turn is part of its time.
 */
import { Cancellation, type CallSignal } from "../core/abort.ts";
import { monotonicClock } from "../core/clock.ts";
import { CancelledError, InfraTimeoutError, OnexError } from "../core/errors.ts";
import type { Bulkhead, Waiting } from "../resilience/bulkhead.ts";
import { failureResult, thrownResult, type Backend, type ToolCall, type ToolResult } from "../tools/call.ts";
import type { Tool } from "../tools/tool.ts";
import type { Deadlines, Limited } from "../core/deadlines.ts";

/** What the runs of one tool have in common. */
export interface RunTerms {
  readonly tool: Tool;
  readonly backend: Backend;
  readonly bulkhead: Bulkhead;
  readonly seconds: number;
  /** Of all runs with this limit. */
  readonly deadlines: Deadlines;
}

export class Run extends Cancellation implements Limited {
  readonly deadline: number;
  due = 0;
  before: Limited | undefined;
  after: Limited | undefined;
  readonly #terms: RunTerms;
  readonly #call: ToolCall;
  readonly #parent: CallSignal;
  readonly #onParent = (): void => this.end(cancelled(this.#parent));
  #settle: ((result: ToolResult) => void) | undefined;
  #waiting: Waiting | undefined;

  /** @param deadline in milliseconds of the clock */
  constructor(terms: RunTerms, call: ToolCall, parent: CallSignal, deadline: number) {
    super();
    this.deadline = deadline;
    this.#terms = terms;
    this.#call = call;
    this.#parent = parent;
  }

  /** Begins, or waits for its turn; there must be room for either. @param settle called once, with the outcome */
  begin(settle: (result: ToolResult) => void): void {
    const { bulkhead, deadlines } = this.#terms;
    this.#settle = settle;
    this.#parent.addEventListener("abort", this.#onParent, { once: true });
    deadlines.add(this);
    if (bulkhead.enter()) void this.#run();
    else this.#waiting = bulkhead.wait(() => void this.#run());
  }

  /** Ends it with `failure`, where it has not settled. */
  end(failure: OnexError): void {
    if (this.#settle === undefined) return;
    this.#terms.deadlines.remove(this);
    this.#over(failureResult(failure));
    this.abort(failure);
  }

  timeOver(): void {
    const { tool, seconds } = this.#terms;
    const failure = new InfraTimeoutError(`The tool "${tool.name}" took longer than ${seconds} s.`, {
      facts: { operation: "call_tool", tool_name: tool.name, timeout_seconds: seconds },
    });
    this.#over(failureResult(failure));
    // Where part of its time went by before its turn, that it is over says nothing about the service.
    this.abort(this.#waiting === undefined ? failure : new CancelledError(undefined, { cause: failure }));
  }

  async #run(): Promise<void> {
    const { tool, backend, deadlines } = this.#terms;
    // Let in by the end of another whose time was over at the same moment: its own end comes next.
    if (this.due <= monotonicClock.now()) return;
    let result: ToolResult;
    try {
      result = await backend.call(tool, this.#call, this, this.deadline);
    } catch (error) {
      result = thrownResult(error);
    }
    if (this.#settle === undefined) return; // (1)
    deadlines.remove(this);
    this.#over(result);
  }

  #over(result: ToolResult): void {
    const settle = this.#settle;
    if (settle === undefined) return;
    this.#settle = undefined;
    this.#parent.removeEventListener("abort", this.#onParent);
    settle(result);
    const { bulkhead } = this.#terms;
    if (this.#waiting === undefined || !bulkhead.quit(this.#waiting)) bulkhead.leave();
  }
}

/** Why a call has ended whose signal has aborted. */
export function cancelled(signal: CallSignal): OnexError {
  const { reason } = signal;
  return reason instanceof OnexError ? reason : new CancelledError(undefined, { cause: reason });
}
