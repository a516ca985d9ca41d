/**
 * What tools and handlers do to the process they run in. Owns: that an error which nobody caught is logged rather than
 * ending the process unsaid, and that only the command line ends the process.
 */
import { messageOf, RuntimeHostError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";

export interface Failures extends Disposable {
  /** Aborted when something was thrown that nobody caught. */
  readonly signal: AbortSignal;
}

/**
 * What is left uncaught. A rejected promise concerns whoever made it and is logged; after an exception nothing is
 * certain, and the command stops in order.
 */
export function watchFailures(log: Logger): Failures {
  const controller = new AbortController();
  const onRejection = (reason: unknown): void => {
    log.error({ err: reason }, `A promise was rejected and nobody handled it: ${messageOf(reason)}`);
  };
  const onException = (error: unknown): void => {
    log.error({ err: error }, `An exception was thrown and nobody caught it; stopping: ${messageOf(error)}`);
    controller.abort(error);
  };
  process.on("unhandledRejection", onRejection).on("uncaughtException", onException);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      process.off("unhandledRejection", onRejection).off("uncaughtException", onException);
    },
  };
}

/** Ends the process at once: Node's own, whatever `process.exit` is meanwhile. */
export const endProcess: typeof process.exit = process.exit.bind(process);

/**
 * Until it is disposed `process.exit` is an error of whoever calls it. A tool could otherwise end every other call, and
 * a module that `onex check` imports could end the check as a success.
 */
export function refuseExit(): Disposable {
  process.exit = (code) => {
    throw new RuntimeHostError(
      `process.exit(${code ?? ""}) was called: what runs in this process may throw, but not end it`,
    );
  };
  return {
    [Symbol.dispose]() {
      process.exit = endProcess;
    },
  };
}
