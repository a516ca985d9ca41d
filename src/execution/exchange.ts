/**
 * One HTTP request and its answer over a pool. Owns the mechanics: sending, collecting the body within its limit,
 * aborting. Does not own: what a status or a body means.
 *
 * 1. The promise settles once, and at once when the signal aborts, even while the request still waits for its turn or a
 *    socket. Its place among the calls of the origin is free when undici is done with it.
 * 2. A body is never held beyond the limit: the request is aborted at the first byte too many.
 * 3. As long as nothing of the request was handed to a socket, `sending.begun` is false: the service has not seen it.
 */
import type { Dispatcher } from "undici";
import { abortReason, type CallSignal } from "../core/abort.ts";
import { CancelledError } from "../core/errors.ts";
import type { Waiting } from "../resilience/bulkhead.ts";
import { maxResultBytes } from "./result.ts";
import type { OriginPool } from "./pools.ts";

export interface HttpRequest {
  readonly method: string;
  /** Path and query, encoded. */
  readonly path: string;
  /** Names and values in turn. */
  readonly headers: string[];
  readonly body: string | null;
}

/** How far a request has come. (3) */
export interface Sending {
  begun: boolean;
}

export type HttpHeaders = Readonly<Record<string, string | readonly string[] | undefined>>;

export interface HttpAnswer {
  readonly status: number;
  readonly headers: HttpHeaders;
  readonly body: Buffer;
}

/** The answer is larger than the limit; `bytes` where it said how large. */
export class AnswerTooLargeError extends Error {
  override readonly name = "AnswerTooLargeError";
  readonly bytes: number | undefined;
  constructor(bytes?: number) {
    super(`the answer is larger than ${maxResultBytes} bytes`);
    this.bytes = bytes;
  }
}

/**
 * Rejects with the signal's reason, an `AnswerTooLargeError`, or undici's error; with a `CancelledError` where the signal
 * aborts before its turn has come.
 *
 * @param pool whose bulkhead is not full
 */
export function exchange(
  pool: OriginPool,
  request: HttpRequest,
  signal: CallSignal,
  sending: Sending,
): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(abortReason(signal));
    else new Exchange(pool, signal, sending, resolve, reject).send(request);
  });
}

class Exchange implements Dispatcher.DispatchHandler {
  readonly #pool: OriginPool;
  readonly #signal: CallSignal;
  readonly #sending: Sending;
  readonly #resolve: (answer: HttpAnswer) => void;
  readonly #reject: (error: Error) => void;
  readonly #chunks: Buffer[] = [];
  #waiting: Waiting | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #isHead = false;
  #status = 0;
  #headers: HttpHeaders = {};
  #bytes = 0;

  constructor(
    pool: OriginPool,
    signal: CallSignal,
    sending: Sending,
    resolve: (answer: HttpAnswer) => void,
    reject: (error: Error) => void,
  ) {
    this.#pool = pool;
    this.#signal = signal;
    this.#sending = sending;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  send(request: HttpRequest): void {
    this.#signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#isHead = request.method === "HEAD";
    if (this.#pool.bulkhead.enter()) this.#dispatch(request);
    else this.#waiting = this.#pool.bulkhead.wait(() => this.#dispatch(request));
  }

  #dispatch(request: HttpRequest): void {
    // undici reports what it finds wrong with a request through onResponseError too.
    this.#pool.pool.dispatch(request, this);
  }

  readonly #onAbort = (): void => {
    const reason = abortReason(this.#signal);
    if (this.#waiting !== undefined && this.#pool.bulkhead.quit(this.#waiting)) {
      // It never had its turn: a deadline that passed meanwhile says nothing about the service.
      this.#reject(new CancelledError(undefined, { cause: reason }));
      return;
    }
    this.#reject(reason); // (1)
    this.#controller?.abort(reason);
  };

  /** There is a connection; the next thing that undici does is to write to it. */
  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#signal.aborted) controller.abort(abortReason(this.#signal));
    else this.#sending.begun = true; // (3)
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (status < 200) return;
    this.#status = status;
    this.#headers = headers;
    // What a HEAD announces does not come.
    const announced = this.#isHead ? 0 : Number(headers["content-length"]);
    if (announced > maxResultBytes) controller.abort(new AnswerTooLargeError(announced)); // (2)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#bytes += chunk.length;
    if (this.#bytes > maxResultBytes)
      controller.abort(new AnswerTooLargeError()); // (2)
    else this.#chunks.push(chunk);
  }

  onResponseEnd(): void {
    this.#over();
    const [first] = this.#chunks;
    const body = this.#chunks.length === 1 && first !== undefined ? first : Buffer.concat(this.#chunks);
    this.#resolve({ status: this.#status, headers: this.#headers, body });
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#over();
    this.#reject(error);
  }

  #over(): void {
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#pool.leave();
  }
}
