/** Waiting and giving up. Every helper removes the listener and the timer it made. */
import { CancelledError, InfraTimeoutError } from "./errors.ts";

/**
 * What a call needs of the signal that ends it. An `AbortSignal` is one; a `Cancellation` is a cheap one: to make an
 * AbortController and listen to it costs 2 us, a twelfth of what a whole call costs.
 */
export interface CallSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
  addEventListener(type: "abort", listener: () => void, options?: { readonly once: true }): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

/** A signal and what aborts it, in one. */
export class Cancellation implements CallSignal {
  aborted = false;
  reason: unknown;
  /** Mostly there is one. */
  #listeners: (() => void) | (() => void)[] | undefined;
  #controller: AbortController | undefined;

  /** Does nothing where it has aborted already. */
  abort(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    const listeners = this.#listeners;
    this.#listeners = undefined;
    this.#controller?.abort(reason);
    if (typeof listeners === "function") listeners();
    else for (const listener of listeners ?? []) listener();
  }

  /** A listener hears of it once. None is called where it has aborted already, as with an `AbortSignal`. */
  addEventListener(_type: "abort", listener: () => void): void {
    if (this.aborted) return;
    const known = this.#listeners;
    if (known === undefined) this.#listeners = listener;
    else if (typeof known === "function") this.#listeners = [known, listener];
    else known.push(listener);
  }

  removeEventListener(_type: "abort", listener: () => void): void {
    const known = this.#listeners;
    if (known === listener) this.#listeners = undefined;
    else if (typeof known === "object") this.#listeners = known.filter((other) => other !== listener);
  }

  /** For code that takes nothing less; made when it is asked for. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.aborted) this.#controller.abort(this.reason);
    }
    return this.#controller.signal;
  }
}

/** The same as a whole `AbortSignal`. */
export function abortSignalOf(signal: CallSignal): AbortSignal {
  if (signal instanceof AbortSignal) return signal;
  if (signal instanceof Cancellation) return signal.signal;
  const controller = new AbortController();
  if (signal.aborted) controller.abort(signal.reason);
  else signal.addEventListener("abort", () => controller.abort(signal.reason), { once: true });
  return controller.signal;
}

/** Above this a Node timer fires at once. It is 24.8 days, as good as never here. */
const longestTimerMs = 2 ** 31 - 1;

const startTimer = (fire: () => void, milliseconds: number): NodeJS.Timeout =>
  setTimeout(fire, Math.min(milliseconds, longestTimerMs));

/** Resolves after `milliseconds`; rejects with the signal's reason if it aborts first. */
export function sleep(milliseconds: number, signal?: CallSignal): Promise<void> {
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
export function abortReason(signal: CallSignal | undefined): Error {
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
