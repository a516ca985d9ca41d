/**
 * Tools that are functions in this process: of a module file (kind `local`) or handed over in code (kind `function`).
 * Owns: the context a function gets and what becomes of its outcome. Does not own: the deadline, nor giving up on a
 * function that ignores its signal; both are the executor's.
 *
 * 1. Once a call is settled or aborted nothing that the function reports reaches the client.
 * 2. A module that loads but has lost its export is a broken edit like one that does not load: the last good function
 *    stays in use, and that is logged once. With no good one yet the caller gets the error.
 */
import { basename } from "node:path";
import { abortSignalOf, type CallSignal } from "../core/abort.ts";
import { RuntimeHostError } from "../core/errors.ts";
import { toJsonValue, type JsonValue } from "../core/json.ts";
import type { Logger } from "../core/log.ts";
import { publicMessage } from "../core/public-text.ts";
import { textResult, type Backend, type ToolCall, type ToolResult } from "../tools/call.ts";
import type { LocalExecution, Tool, ToolContext, ToolFunction, ToolLogLevel } from "../tools/tool.ts";
import { nearest } from "./explain.ts";
import { loadModule, type ModuleExports } from "./modules.ts";
import { toResult } from "./result.ts";

type AnyFunction = (input: unknown, context: ToolContext) => unknown;

const noMeta: Readonly<Record<string, unknown>> = Object.freeze({});

/** An export that was a function once. */
interface Served {
  readonly fn: ToolFunction;
  /** The exports whose lack of it was logged last. */
  lacking?: ModuleExports;
}

/** Rejects with a `RuntimeHostError` where the module or the export is not to be had. */
export class LocalBackend implements Backend {
  readonly #log: Logger;
  /** By module, then by export. */
  readonly #served = new Map<string, Map<string, Served>>();

  constructor(log: Logger) {
    this.#log = log;
  }

  async call(tool: Tool, call: ToolCall, signal: CallSignal): Promise<ToolResult> {
    const fn = await this.#functionOf(tool);
    if (signal.aborted) return aborted;
    return runFunction(fn, tool, call, abortSignalOf(signal), this.#log);
  }

  async destroy(): Promise<void> {}

  async #functionOf({ name, execution }: Tool): Promise<ToolFunction> {
    switch (execution.kind) {
      case "function":
        return execution.fn;
      case "local":
        return this.#exported(execution);
      default:
        throw new RuntimeHostError(`"${name}" is not a function of this process`);
    }
  }

  /** (2) */
  async #exported(execution: LocalExecution): Promise<ToolFunction> {
    const exports = await loadModule(execution.module, { log: this.#log });
    const served = this.#served.get(execution.module)?.get(execution.export);
    const found = Object.hasOwn(exports, execution.export) ? exports[execution.export] : undefined;
    if (typeof found === "function") {
      const fn = found as ToolFunction;
      if (served?.fn !== fn || served.lacking !== undefined) this.#keep(execution, fn);
      return fn;
    }
    const error = lackingError(exports, found, execution);
    if (served === undefined) throw error;
    if (served.lacking !== exports) {
      served.lacking = exports;
      this.#log.error(
        { module: execution.module, err: error },
        `${error.message}; its last good version stays in use until the next edit`,
      );
    }
    return served.fn;
  }

  #keep(execution: LocalExecution, fn: ToolFunction): void {
    const ofModule = this.#served.get(execution.module) ?? new Map<string, Served>();
    ofModule.set(execution.export, { fn });
    this.#served.set(execution.module, ofModule);
  }
}

/** Nobody waits for it: the executor has answered. */
const aborted = textResult("The call was given up.", true);

function lackingError(exports: ModuleExports, found: unknown, execution: LocalExecution): RuntimeHostError {
  const file = basename(execution.module);
  const facts = { transport: "local", target: execution.module } as const;
  if (found !== undefined)
    return new RuntimeHostError(`"${execution.export}" of ${file} is not a function but ${typeof found}`, {
      facts,
    });
  const names = Object.keys(exports);
  const list = names.length === 0 ? "nothing" : names.map((name) => `"${name}"`).join(", ");
  const guess = nearest(execution.export, names);
  const hint = guess === undefined ? "" : `; did you mean "${guess}"?`;
  return new RuntimeHostError(`${file} has no export "${execution.export}"; it exports ${list}${hint}`, {
    facts,
  });
}

async function runFunction(
  fn: ToolFunction,
  tool: Tool,
  call: ToolCall,
  signal: AbortSignal,
  log: Logger,
): Promise<ToolResult> {
  const calling = { over: false };
  const context = contextFor(tool, call, signal, calling, log);
  try {
    const value: unknown = await (fn as AnyFunction)(call.arguments, context);
    return toResult(value, { structured: tool.outputSchema !== undefined });
  } catch (thrown) {
    if (!signal.aborted)
      log.debug({ tool: tool.name, correlation_id: call.correlationId, err: thrown }, "the tool failed");
    return textResult(publicMessage(thrown), true);
  } finally {
    calling.over = true;
  }
}

function contextFor(
  tool: Tool,
  call: ToolCall,
  signal: AbortSignal,
  calling: { readonly over: boolean },
  log: Logger,
): ToolContext {
  let last = -Infinity;
  let warned = false;
  const isOver = (): boolean => calling.over || signal.aborted; // (1)
  return {
    signal,
    correlationId: call.correlationId,
    meta: call.meta ?? noMeta,
    progress(done, total, message) {
      if (call.onProgress === undefined || isOver()) return;
      if (!isNumber(done) || (total !== undefined && !isNumber(total))) {
        if (!warned) log.warn({ tool: tool.name, done, total }, "progress that is not a number is ignored");
        warned = true;
        return;
      }
      // The protocol wants every report to be larger than the last.
      if (done <= last) return;
      last = done;
      call.onProgress({
        done,
        ...(total === undefined ? {} : { total }),
        ...(typeof message === "string" ? { message } : {}),
      });
    },
    log(level, data) {
      if (call.onLog === undefined || isOver()) return;
      call.onLog(logLevels.has(level) ? level : "info", loggable(data));
    },
  };
}

const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);

const logLevels: ReadonlySet<ToolLogLevel> = new Set<ToolLogLevel>([
  "debug",
  "info",
  "notice",
  "warning",
  "error",
  "critical",
  "alert",
  "emergency",
]);

function loggable(data: unknown): JsonValue {
  if (data instanceof Error) return publicMessage(data);
  try {
    return toJsonValue(data);
  } catch (error) {
    return publicMessage(error);
  }
}
