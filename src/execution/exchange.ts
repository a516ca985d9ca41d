/**
 * One HTTP request and its answer over a pool. Owns the mechanics: sending, collecting the body within its limit,
 * aborting. Does not own: what a status or a body means.
 *
 * 1. The promise settles once, and at once when the signal aborts, even while the request still waits for a socket.
 * 2. A body is never held beyond the limit: the request is aborted at the first byte too many.
 */
import type { Dispatcher } from "undici";
import { abortReason } from "../core/abort.ts";
import { maxResultBytes } from "./result.ts";
import type { Endpoint } from "./endpoints.ts";

export interface HttpRequest {
  readonly method: string;
  /** Path and query, encoded. */
  readonly path: string;
  /** Names and values in turn. */
  readonly headers: string[];
  readonly body: string | null;
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

/** Rejects with the signal's reason, an `AnswerTooLargeError`, or undici's error. */
export function exchange(endpoint: Endpoint, request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(abortReason(signal));
    else new Exchange(endpoint, signal, resolve, reject).send(request);
  });
}

class Exchange implements Dispatcher.DispatchHandler {
  readonly #endpoint: Endpoint;
  readonly #signal: AbortSignal;
  readonly #resolve: (answer: HttpAnswer) => void;
  readonly #reject: (error: Error) => void;
  readonly #chunks: Buffer[] = [];
  #controller: Dispatcher.DispatchController | undefined;
  #isHead = false;
  #status = 0;
  #headers: HttpHeaders = {};
  #bytes = 0;

  constructor(
    endpoint: Endpoint,
    signal: AbortSignal,
    resolve: (answer: HttpAnswer) => void,
    reject: (error: Error) => void,
  ) {
    this.#endpoint = endpoint;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  send(request: HttpRequest): void {
    this.#signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#endpoint.outstanding++;
    this.#isHead = request.method === "HEAD";
    // undici reports what it finds wrong with a request through onResponseError too.
    this.#endpoint.pool.dispatch(request, this);
  }

  readonly #onAbort = (): void => {
    const reason = abortReason(this.#signal);
    this.#reject(reason); // (1)
    this.#controller?.abort(reason);
  };

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#signal.aborted) controller.abort(abortReason(this.#signal));
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
    this.#endpoint.outstanding--;
  }
}
