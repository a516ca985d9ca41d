/**
 * One session of the older revisions. Owns what the SDK does not look after: who uses the session, and which of its
 * requests wait for their answer. Does not own: when a session begins and ends.
 *
 * 1. An id that waits for its answer cannot be used again: the SDK would answer one request and never the other.
 * 2. A cancelled request is over at once.
 * 3. A request whose client has gone goes on, and the session is in use until it is over.
 */
import {
  WebStandardStreamableHTTPServerTransport,
  type AuthInfo,
  type JSONRPCMessage,
  type RequestId,
  type Server,
} from "@modelcontextprotocol/server";
import type { Clock } from "../core/clock.ts";
import { CancelledError } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { idOf, rpcError, type RpcId } from "./message.ts";

/** A call of the session that the SDK does not know of. */
export interface PlainCall {
  readonly id: RpcId;
  /** Ends it without an answer. */
  cancel(reason: unknown): void;
}

export interface SessionRequest {
  readonly parsedBody?: unknown;
  readonly authInfo: AuthInfo;
}

export class Session {
  readonly id: string;
  /** Name of the principal it belongs to. */
  readonly principal: string;
  readonly #server: Server;
  readonly #clock: Clock;
  readonly #transport: SessionTransport;
  #holds = 0;
  #isListening = false;
  #lastUsed: number;

  constructor(id: string, principal: string, server: Server, clock: Clock) {
    this.id = id;
    this.principal = principal;
    this.#server = server;
    this.#clock = clock;
    this.#transport = new SessionTransport({ sessionIdGenerator: () => id });
    this.#lastUsed = clock.now();
  }

  /** Monotonic ms of its last use; undefined while it is in use. (3) */
  get idleSince(): number | undefined {
    return this.#holds === 0 && !this.#transport.isWaiting ? this.#lastUsed : undefined;
  }

  connect(): Promise<void> {
    return this.#server.connect(this.#transport);
  }

  /** Keeps the session from being given up until the `fetch` that must follow has been answered. */
  hold(): void {
    this.#holds += 1;
  }

  /** Answers a POST or a GET. The hold ends with the answer's body. */
  async fetch(request: Request, options: SessionRequest): Promise<Response> {
    let isStream = false;
    const ended = (): void => {
      if (isStream && request.method === "GET") this.#isListening = false;
      this.#lastUsed = this.#clock.now();
      this.#holds -= 1;
    };
    try {
      const response = await this.#transport.serve(request, options);
      isStream = isEventStream(response);
      if (isStream && request.method === "GET") this.#isListening = true;
      return whenEnded(response, ended);
    } catch (error) {
      ended();
      throw error;
    }
  }

  /** Takes the place of an id for a request that is answered at once. False: the id waits for its answer. (1) */
  use(id: RpcId): boolean {
    if (this.#transport.waitsFor(id)) return false;
    this.#lastUsed = this.#clock.now();
    return true;
  }

  /** Has a call wait for its answer. False: its id does so already. (1) */
  beginPlain(call: PlainCall): boolean {
    if (this.#transport.waitsFor(call.id)) return false;
    this.#transport.plain.push(call);
    return true;
  }

  /** To be called once it has been answered, or cancelled. */
  endPlain(call: PlainCall): void {
    const { plain } = this.#transport;
    const at = plain.indexOf(call);
    if (at !== -1) plain.splice(at, 1);
    this.#lastUsed = this.#clock.now();
  }

  /** Tells the client, where it listens. */
  async toolsChanged(): Promise<void> {
    if (this.#isListening) await this.#server.sendToolListChanged();
  }

  /** Ends the stream of a client that waits for notifications; calls go on. */
  endStream(): void {
    this.#transport.closeStandaloneSSEStream();
  }

  /** Aborts its calls and ends its streams. */
  close(): Promise<void> {
    for (const call of [...this.#transport.plain]) call.cancel(new CancelledError());
    return this.#server.close();
  }
}

/** The answer to a cancelled request of a batch. Outside the range that JSON-RPC reserves. */
const requestCancelled = -32_800;

class SessionTransport extends WebStandardStreamableHTTPServerTransport {
  /** Requests of the SDK's without an answer; whether one came alone: no other answer needs its stream. */
  readonly waiting = new Map<RequestId, { readonly alone: boolean }>();
  /** Calls that the SDK does not know of. An array, as a Map that calls come to and go from keeps them (core/deadlines.ts). */
  readonly plain: PlainCall[] = [];

  get isWaiting(): boolean {
    return this.waiting.size > 0 || this.plain.length > 0;
  }

  waitsFor(id: RequestId): boolean {
    return this.waiting.has(id) || this.plain.some((call) => call.id === id);
  }

  async serve(request: Request, options: SessionRequest): Promise<Response> {
    const body = options.parsedBody;
    const messages = Array.isArray(body) ? (body as unknown[]) : [body];
    const ids = messages.map(requestIdOf).filter((id) => id !== null);
    const taken = ids.find((id, index) => this.waitsFor(id) || ids.indexOf(id) < index); // (1)
    if (taken !== undefined) {
      const problem = `the id ${JSON.stringify(taken)} belongs to a request that still waits for its answer`;
      return rpcError(400, -32600, `Invalid Request: ${problem}`, taken);
    }
    for (const id of ids) this.waiting.set(id, { alone: messages.length === 1 });
    const response = await this.handleRequest(request, options);
    // Any other answer is a refusal: the server has seen none of the requests.
    if (!isEventStream(response)) for (const id of ids) this.waiting.delete(id);
    for (const message of messages) await this.#endCancelled(message); // (2)
    return response;
  }

  override async send(
    message: JSONRPCMessage,
    options?: { readonly relatedRequestId?: RequestId },
  ): Promise<void> {
    const isAnswer = "result" in message || "error" in message;
    if (isAnswer && message.id !== undefined) this.waiting.delete(message.id);
    await super.send(message, options);
  }

  /**
   * The SDK never answers a cancelled request, keeps its stream for as long as the session lives, and with it the
   * answers of its whole batch. So it is answered here: alone to a closed stream, in a batch for the others' sake.
   */
  async #endCancelled(message: unknown): Promise<void> {
    if (!isObject(message) || message["method"] !== "notifications/cancelled") return;
    const id = isObject(message["params"]) ? idOf({ id: message["params"]["requestId"] }) : null;
    const plain = this.plain.find((call) => call.id === id);
    plain?.cancel(new CancelledError());
    const request = id === null ? undefined : this.waiting.get(id);
    if (id === null || request === undefined) return;
    if (request.alone) this.closeSSEStream(id);
    const error = { code: requestCancelled, message: "Request cancelled" };
    // It fails where the request came in the same moment and has not begun: such a one is not cancelled.
    await this.send({ jsonrpc: "2.0", id, error }).catch(() => undefined);
  }
}

const requestIdOf = (message: unknown): RpcId | null =>
  isObject(message) && "method" in message ? idOf(message) : null;

const isEventStream = (response: Response): boolean =>
  response.headers.get("content-type") === "text/event-stream";

/** Calls `done` once, when the response's body has been read, cancelled, or if there is none. */
function whenEnded(response: Response, done: () => void): Response {
  if (response.body === null) {
    done();
    return response;
  }
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done: ended, value } = await reader.read();
      if (ended) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  // Settles however the body ends: read to its end, cancelled, or failed.
  reader.closed.then(done, done);
  return new Response(body, response);
}
