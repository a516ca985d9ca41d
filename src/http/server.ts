/**
 * Listening, apart from handling. Owns: the socket, its time limits, which requests are in progress, and the end:
 * graceful with `close`, now with `destroy`. Does not own: what a request means (`fetch`, `raw`), or streams that are
 * meant to stay open: their owner ends them before `close` can finish.
 *
 * 1. A request in progress is one whose headers are complete and whose answer is not. Only those hold up `close`.
 * 2. The time limits cover receiving a request, and an answer that its client does not read. To make an answer may take
 *    as long as it needs.
 * 3. The first cause of the end is the one that is reported; a `close` that `destroy` cuts short was a `destroy`.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { getRequestListener, RequestError } from "@hono/node-server";
import { messageOf, toOnexError } from "../core/errors.ts";
import { httpUrl, reachableHost } from "./address.ts";
import { bind } from "./bind.ts";
import { problem, problemHeaders, problemOf, toProblem } from "./problem.ts";
import { cutStalled } from "./stalled.ts";

export { waitUntilReady } from "./readiness.ts";

/**
 * False: nothing was read, `fetch` is to answer. True: it answers itself, or calls `next` later to have `fetch` answer
 * after all, or with what went wrong; the body that it has read by then it leaves in `req.rawBody`.
 */
export type RawListener = (
  req: IncomingMessage & { rawBody?: Buffer },
  res: ServerResponse,
  next: (failure?: { readonly error: unknown }) => void,
) => boolean;

export interface ListenOptions {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly fetch: (
    request: Request,
    env: { readonly incoming: IncomingMessage },
  ) => Response | Promise<Response>;
  /** Tried first. */
  readonly raw?: RawListener;
  /** More connections than this are dropped as they come. Default no limit. */
  readonly maxConnections?: number;
  /** Time to send all headers, from the connection on or from a later request's first byte. Default 10,000. */
  readonly headersTimeoutMs?: number;
  /** Time to send the whole request, headers included. Default 30,000. */
  readonly requestTimeoutMs?: number;
  /** How long an idle connection is kept for a next request. Default 5,000. */
  readonly keepAliveTimeoutMs?: number;
  /**
   * How long output may wait for a client that reads nothing of it, before its connection is reset; up to a third more.
   * Default 30,000: one that reads less than about 50 kB/s of an answer of several MB may count as such.
   */
  readonly writeTimeoutMs?: number;
  /** The server's own errors, and what `fetch` or `raw` threw where the answer was 500 or above. */
  readonly onError?: (error: Error) => void;
}

/** Why a server ended: asked to, forced to, its own error, or closed by something else. */
export type EndReason = "close" | "destroy" | "crashed" | "exited";

export interface ServerEnd {
  readonly reason: EndReason;
  /** What `destroy` was given, or the error that crashed it. */
  readonly error?: Error;
}

export type ServerState =
  | { readonly kind: "listening" }
  | ({ readonly kind: "closing" } & ServerEnd)
  | ({ readonly kind: "closed" } & ServerEnd);

export interface HttpServer extends AsyncDisposable {
  /** The address it is bound to. */
  readonly host: string;
  readonly port: number;
  /** Where it answers on this machine: `http://127.0.0.1:8090`, `http://[::1]:8090`. */
  readonly url: string;
  readonly state: ServerState;
  /** Resolves when it has ended, however that came about. */
  readonly closed: Promise<ServerEnd>;
  /** Open sockets. */
  readonly connections: number;
  /** Stops accepting, closes idle connections, lets requests in progress finish. Idempotent. */
  close(): Promise<void>;
  /** Ends every connection now. Idempotent; also ends a `close` that is under way. */
  destroy(reason: Error): Promise<void>;
}

/**
 * Binds and serves.
 *
 * @throws ProtocolConfigurationError where the host and port cannot be bound, with the remedy
 */
export async function listen(options: ListenOptions): Promise<HttpServer> {
  const requestTimeout = options.requestTimeoutMs ?? 30_000;
  const headersTimeout = Math.min(options.headersTimeoutMs ?? 10_000, requestTimeout);
  const report = options.onError ?? (() => undefined);
  // Arrays, as a Set that is added to and deleted from all the time keeps what it held (see core/deadlines.ts).
  const connections = new Map<Socket, ServerResponse[]>();

  const answer = async (request: Request, env: unknown): Promise<Response> =>
    unbuffered(await options.fetch(request, env as { incoming: IncomingMessage }));

  const respond = getRequestListener(answer, {
    hostname: options.host,
    // A library must not exchange the program's Request and Response.
    overrideGlobalObjects: false,
    errorHandler: (error) => {
      if (error instanceof RequestError)
        return problem(400, { detail: "The request line or Host is not valid." });
      // What is the caller's own fault is told to the caller alone.
      if (toOnexError(error).httpStatus >= 500) report(asError(error));
      return problemOf(error);
    },
  });

  const server = createServer({
    headersTimeout,
    requestTimeout,
    keepAliveTimeout: options.keepAliveTimeoutMs ?? 5_000,
    // How far past its limit a slow request may get. Node's own default is 30 s.
    // Node drops the second Authorization or Host of a request: joined, it is refused like any other nonsense.
    joinDuplicateHeaders: true,
    connectionsCheckingInterval: Math.min(1_000, Math.ceil(Math.min(headersTimeout, requestTimeout) / 4)),
    // Finds peers that vanished without a word while a stream to them is open.
    keepAlive: true,
    keepAliveInitialDelay: 30_000,
  });
  if (options.maxConnections !== undefined) server.maxConnections = options.maxConnections;

  // node counts an answer as done once it is written, and closes connections whose output is still on its way. (1)
  server.closeIdleConnections = () => {
    for (const [socket, inProgress] of connections) if (inProgress.length === 0) socket.destroySoon();
  };

  let state: ServerState = { kind: "listening" };
  const ended = Promise.withResolvers<ServerEnd>();
  let stalled: NodeJS.Timeout | undefined;

  const tryRaw = (raw: RawListener, req: IncomingMessage, res: ServerResponse): void => {
    const next: Parameters<RawListener>[2] = (failure) => {
      if (failure === undefined) void respond(req, res);
      else {
        report(asError(failure.error));
        failRaw(res, failure.error);
      }
    };
    try {
      if (!raw(req, res, next)) next();
    } catch (error) {
      next({ error });
    }
  };

  server.on("connection", (socket) => {
    connections.set(socket, []);
    socket.once("close", () => connections.delete(socket));
  });

  server.on("request", (req, res) => {
    const inProgress = connections.get(req.socket);
    inProgress?.push(res);
    res.once("close", () => {
      // Mostly it is the only one.
      const at = inProgress?.indexOf(res) ?? -1;
      if (at !== -1) inProgress?.splice(at, 1);
      if (state.kind !== "listening" && inProgress?.length === 0) req.socket.destroySoon();
    });
    if (state.kind !== "listening") res.shouldKeepAlive = false;
    if (options.raw === undefined) void respond(req, res);
    else tryRaw(options.raw, req, res);
  });

  await bind(server, options.host, options.port);
  const { address, port } = server.address() as AddressInfo;
  const stopCutting = cutStalled(connections, options.writeTimeoutMs ?? 30_000);

  server.on("error", (error) => {
    report(error);
    end({ reason: "crashed", error });
    for (const socket of connections.keys()) socket.destroy();
  });
  server.once("close", () => {
    clearTimeout(stalled);
    stopCutting();
    const { reason, error } = state.kind === "listening" ? ({ reason: "exited" } as ServerEnd) : state;
    const final = error === undefined ? { reason } : { reason, error };
    state = { kind: "closed", ...final };
    ended.resolve(final);
  });

  /** Leaves `listening`, once. (3) */
  const end = (why: ServerEnd): void => {
    if (state.kind !== "listening") return;
    const cause: ServerEnd = server.listening || why.reason === "crashed" ? why : { reason: "exited" };
    state = { kind: "closing", ...cause };
    server.close();
  };

  const drain = (): void => {
    server.closeIdleConnections();
    for (const inProgress of connections.values())
      for (const res of inProgress) if (!res.headersSent) res.shouldKeepAlive = false;
    // node stops looking for slow requests once it closes.
    stalled = setTimeout(() => {
      for (const [socket, inProgress] of connections)
        if (inProgress.some((res) => !res.req.complete)) socket.destroy();
    }, requestTimeout);
  };

  const self: HttpServer = {
    host: address,
    port,
    url: httpUrl(reachableHost(address), port),
    get state(): ServerState {
      // Someone else called close on it: it no longer accepts, though connections may still be open.
      if (state.kind === "listening" && !server.listening) return { kind: "closing", reason: "exited" };
      return state;
    },
    closed: ended.promise,
    get connections() {
      return connections.size;
    },
    async close() {
      if (state.kind === "listening") {
        end({ reason: "close" });
        drain();
      }
      await ended.promise;
    },
    async destroy(reason) {
      if (state.kind === "closed") return;
      // (3)
      if (state.kind === "closing" && state.reason === "close")
        state = { kind: "closing", reason: "destroy", error: reason };
      end({ reason: "destroy", error: reason });
      for (const socket of connections.keys()) socket.destroy();
      await ended.promise;
    },
    [Symbol.asyncDispose]: () => self.close(),
  };
  return self;
}

/**
 * An event stream goes out as it comes. Without the header node-server reads ahead to find a length, and a stream that
 * fails meanwhile is answered with the text of its error; with it the connection just breaks off.
 */
function unbuffered(response: Response): Response {
  if (response.headers.get("content-type")?.startsWith("text/event-stream") === true)
    response.headers.set("transfer-encoding", "chunked");
  return response;
}

/** The raw listener threw: a whole answer where none was begun, else an end the client can tell from a success. */
function failRaw(res: ServerResponse, thrown: unknown): void {
  if (res.headersSent) {
    res.destroy(asError(thrown));
    return;
  }
  const body = toProblem(500);
  res.writeHead(500, problemHeaders(body)).end(JSON.stringify(body));
}

const asError = (thrown: unknown): Error =>
  thrown instanceof Error ? thrown : new Error(messageOf(thrown), { cause: thrown });
