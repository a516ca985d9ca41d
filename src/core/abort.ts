/** Waiting and giving up. Every helper removes the listener and the timer it made. */
import { CancelledError, InfraTimeoutError } from "./errors.ts";

/** Above this a Node timer fires at once. It is 24.8 days, as good as never here. */
const longestTimerMs = 2 ** 31 - 1;

const startTimer = (fire: () => void, milliseconds: number): NodeJS.Timeout =>
  setTimeout(fire, Math.min(milliseconds, longestTimerMs));

/** Resolves after `milliseconds`; rejects with the signal's reason if it aborts first. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(abortReason(signal));
      return;
    }
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(abortReason(signal));
    };
    const timer = startTimer(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** The reason of an aborted signal as an Error. */
export function abortReason(signal: AbortSignal | undefined): Error {
  const reason: unknown = signal?.reason;
  return reason instanceof Error ? reason : new CancelledError();
}

/** Settles as `work` does, unless `signal` aborts first: then it rejects at once with the signal's reason. */
export function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    work.catch(() => undefined);
    return Promise.reject(abortReason(signal));
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(abortReason(signal));
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

export interface Deadline extends Disposable {
  /** Aborts with an `InfraTimeoutError` when the time is over, or with the parent's reason. */
  readonly signal: AbortSignal;
}

/**
 * A signal that aborts after `seconds` or with `parent`, whichever is first. Dispose it when the work is over.
 *
 * @param operation named in the error's message
 */
export function deadline(seconds: number, operation: string, parent?: AbortSignal): Deadline {
  const controller = new AbortController();
  const onParent = (): void => controller.abort(abortReason(parent));
  const timer = startTimer(() => {
    controller.abort(
      new InfraTimeoutError(`${operation} took longer than ${seconds} s`, {
        facts: { operation, timeout_seconds: seconds },
      }),
    );
  }, seconds * 1000);
  if (parent?.aborted === true) onParent();
  else parent?.addEventListener("abort", onParent, { once: true });
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      clearTimeout(timer);
      parent?.removeEventListener("abort", onParent);
    },
  };
}

/** `work`, but at most `milliseconds`: then `"timeout"`. Never rejects because of the time. */
export async function within<T>(work: Promise<T>, milliseconds: number): Promise<T | "timeout"> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<"timeout">((resolve) => {
    timer = startTimer(() => resolve("timeout"), milliseconds);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
