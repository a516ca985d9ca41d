/**
 * The gateway: catalog, sources, executor and MCP front, joined. Owns: who is made with what, and the HTTP surface.
 * Does not own: the socket (the MCP handler listens), the configuration's keys, or any part's inside.
 *
 * The control loop writes snapshots (sources -> catalog), the call loop reads one (front -> executor); they meet here.
 *
 * 1. Every call goes through `call`, over HTTP and by envelope alike, so that a stop can wait for it and end it.
 * 2. What was injected stays open; our own records leave an injected catalog.
 */
import { randomUUID } from "node:crypto";
import { every } from "hono/combine";
import { gatewayRoutes, type GatewayReads } from "./admin/routes.ts";
import type { Clock } from "./core/clock.ts";
import { toOnexError, type OnexError } from "./core/errors.ts";
import type { Logger } from "./core/log.ts";
import { Metrics } from "./core/metrics.ts";
import { version } from "./core/version.ts";
import type { LoadReport } from "./contract/load.ts";
import type { EventBus } from "./bus/bus.ts";
import { BusRequests } from "./bus/request.ts";
import { problemsOf } from "./discovery/problems.ts";
import type { Registration } from "./discovery/register.ts";
import { makeRegistration, type RegisterSettings } from "./discovery/register-runtime.ts";
import { makeSources, type Sources, type SourcesOptions } from "./discovery/sources.ts";
import { Sync } from "./discovery/sync.ts";
import { BorrowedExecutor } from "./execution/borrowed.ts";
import type { CallLimits } from "./execution/call-limits.ts";
import { Executor, type Circuits } from "./execution/executor.ts";
import type { ServiceTls } from "./execution/tls.ts";
import { isLoopback } from "./http/address.ts";
import { createAuthenticator, type ApiKey } from "./http/auth.ts";
import { shareWith } from "./http/cors.ts";
import { createGuard } from "./http/guard.ts";
import { httpParts } from "./http/parts.ts";
import { plainDoor } from "./http/plain-door.ts";
import { problem } from "./http/problem.ts";
import { readinessProof } from "./http/readiness.ts";
import type { ListenOptions } from "./http/server.ts";
import { definitionOf } from "./mcp/definition.ts";
import { Front } from "./mcp/front.ts";
import type { ServerDeps } from "./mcp/server.ts";
import type { CallTool, Principal, ToolExecutor } from "./tools/call.ts";
import { Catalog } from "./tools/catalog.ts";
import { toolFromCode } from "./tools/define.ts";
import type { Explanation } from "./tools/explain.ts";
import type { SourceStatus, ToolSource } from "./tools/source.ts";
import type { ToolDefinition, ToolFunction } from "./tools/tool.ts";

/** The part of the MCP handler's configuration that the gateway needs; its schema has the ranges. */
export interface GatewayOptions extends SourcesOptions {
  readonly host: string;
  /** Path of the MCP endpoint. */
  readonly path: string;
  readonly stateless: boolean;
  readonly jsonResponse: boolean;
  readonly sessionTtlSeconds: number;
  readonly maxSessions: number;
  /** Absent: random per process. */
  readonly sessionSecret?: string;
  readonly pageSize: number;
  readonly timeoutSeconds: number;
  /** Absent: the executor's own. */
  readonly limits?: CallLimits;
  readonly maxTools: number;
  readonly requiredTags: readonly string[];
  readonly excludedTags: readonly string[];
  /** Where the last good state of Consul and of the events is kept. Absent: nowhere. */
  readonly stateDir?: string;
  readonly allowedNetworks: readonly string[];
  /** Of tools that are services over https. Absent: Node's own. */
  readonly serviceTls?: ServiceTls;
  readonly allowedHosts: readonly string[];
  readonly allowedOrigins: readonly string[];
  /** Empty: no authentication. */
  readonly apiKeys: readonly ApiKey[];
  /** Absent: this runtime is not registered anywhere. */
  readonly register?: RegisterSettings;
}

export interface GatewayParts {
  /** Used and left open when given; made and closed here when not. */
  readonly registry?: Catalog;
  readonly executor?: ToolExecutor;
  /** Closed by its owner. */
  readonly bus?: EventBus;
  /** Tools of others in this process: the host's handlers. Closed here. */
  readonly handlerTools?: ToolSource;
  /** Sources are read and nothing is written: no last good state, no topic. Default false. */
  readonly readOnly?: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly clock: Clock;
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** The text of a body; none where it is not UTF-8, which is no JSON either (RFC 8259, section 8.1). */
function textOf(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    return "";
  }
}

/** What the HTTP surface shows of the handler. */
export interface GatewayState {
  readonly initialized: () => boolean;
  readonly draining: () => boolean;
}

/** Name of the source of tools registered in code. */
const codeSource = "code";

export class Gateway {
  readonly catalog: Catalog;
  /** Calls a tool of the catalog. Never rejects. Bound. (1) */
  readonly call: CallTool;
  readonly #metrics = new Metrics();
  readonly #options: GatewayOptions;
  readonly #parts: GatewayParts;
  /** Only our own knows whether a tool is available. */
  readonly #executor: Executor | BorrowedExecutor;
  readonly #stopFreeing: (() => void) | undefined;
  readonly #sources: Sources;
  readonly #sync: Sync;
  /** Keeps our records in a shared catalog apart from those of others. */
  readonly #owner = randomUUID();
  #front: Front | undefined;
  #released: Promise<void> | undefined;

  constructor(options: GatewayOptions, parts: GatewayParts) {
    this.#options = options;
    this.#parts = parts;
    this.catalog = parts.registry ?? new Catalog({ ...options, log: parts.log, clock: parts.clock });
    if (parts.executor === undefined) {
      const executor = this.#makeExecutor();
      this.#executor = executor;
      this.#stopFreeing = this.catalog.onSnapshot(executor.onSnapshot);
    } else {
      this.#executor = new BorrowedExecutor(parts.executor, () => this.catalog.snapshot());
    }
    this.call = this.#executor.call;
    this.#sources = makeSources(options, parts);
    this.#sync = this.#makeSync(this.#sources);
  }

  /** Starts the sources; resolves once each has applied its first state, or is known to be out of reach. */
  start(): Promise<void> {
    return this.#sync.start();
  }

  sources(): readonly SourceStatus[] {
    return this.#sync.statuses();
  }

  /** Why a name is served as it is, or is not. Sources are named as in `sources()`. */
  explain(name: string): Explanation {
    const explanation = this.catalog.explain(name, {
      problems: problemsOf(this.#sources),
      statuses: this.sources(),
    });
    const suffix = this.#recordsOf("");
    const records = explanation.records.map((record) => ({
      ...record,
      source: record.source.replace(suffix, ""),
    }));
    return { ...explanation, records };
  }

  /** What became of each contract file; undefined without a contracts directory. */
  report(): LoadReport | undefined {
    return this.#sources.contracts?.report();
  }

  /**
   * Serves a tool written in code, that can be served.
   *
   * @returns false when max_tools is reached
   */
  registerTool(definition: ToolDefinition, fn: ToolFunction): boolean {
    const { name } = definition;
    const records = this.#recordsOf(codeSource);
    const limit = Math.min(this.#options.maxTools, this.catalog.maxTools);
    const isFull = this.catalog.snapshot().tools.length >= limit;
    if (isFull && !this.catalog.has(records, name)) return false;
    this.catalog.apply(records, { put: [{ key: name, tool: toolFromCode(definition, fn) }], remove: [] });
    const withheld = this.catalog
      .snapshot()
      .withheld.find((entry) => entry.source === "handler" && entry.owner === name);
    if (withheld !== undefined) {
      this.#parts.log.warn(
        { tool: name, reason: withheld.reason },
        "a tool registered in code is not served",
      );
    }
    return true;
  }

  /** @returns false when no tool of this name was registered in code */
  unregisterTool(name: string): boolean {
    const records = this.#recordsOf(codeSource);
    if (!this.catalog.has(records, name)) return false;
    this.catalog.apply(records, { put: [], remove: [name] });
    return true;
  }

  /**
   * Keeps this runtime registered, where the configuration wants that; not started. The caller closes it.
   *
   * @param port that is bound
   * @param isReady whether the server is well
   * @throws ProtocolConfigurationError where nothing says at which address others reach this runtime
   */
  registration(port: number, isReady: () => boolean): Registration | undefined {
    const { register, host, path } = this.#options;
    if (register === undefined) return undefined;
    const wish = { ...this.#options, register };
    return makeRegistration(wish, { ...this.#parts, catalog: this.catalog }, { host, port, path }, isReady);
  }

  /** What an MCP server of this gateway is made from; also what `onex stdio` serves. */
  serverDeps(): ServerDeps & Pick<ConstructorParameters<typeof Front>[0], "onChange"> {
    return {
      info: { name: "onex-runtime", title: "onex-runtime", version },
      snapshot: () => this.catalog.snapshot(),
      onChange: (listener) => this.catalog.onChange(listener),
      call: this.call,
      pageSize: this.#options.pageSize,
      cacheScope: this.#options.apiKeys.length === 0 ? "public" : "private",
      log: this.#parts.log,
    };
  }

  /**
   * The HTTP surface: the whole of it, and the short way for plain requests to the MCP endpoint.
   *
   * @param token secret of this start, by which the readiness poll knows our server
   * @param state the handler's own
   */
  surface(token: string, state: GatewayState): Pick<ListenOptions, "fetch" | "raw"> {
    const options = this.#options;
    const { log } = this.#parts;
    const front = new Front({
      ...this.serverDeps(),
      stateless: options.stateless,
      jsonResponse: options.jsonResponse,
      sessions: {
        ttlSeconds: options.sessionTtlSeconds,
        max: options.maxSessions,
        ...(options.sessionSecret !== undefined && { secret: options.sessionSecret }),
      },
      clock: this.#parts.clock,
    });
    this.#front = front;
    const guard = createGuard(options);
    const middleware = every(guard.middleware, shareWith(options.allowedOrigins));
    const isServing = (): boolean => state.initialized() && !state.draining();
    const loopbackIsAdmin = isLoopback(options.host);
    const authenticator = createAuthenticator({ apiKeys: options.apiKeys, loopbackIsAdmin, log });
    const http = httpParts({ ...guard, middleware }, authenticator);
    const app = gatewayRoutes(this.#reads(token, state), http);
    app.all(options.path, async (context) => {
      const request = context.req.raw;
      const principal = http.authorize(request, "user");
      if (principal instanceof Response) return principal;
      let body: string | undefined;
      if (request.method === "POST") {
        const bytes = await http.readBody(request);
        if (bytes instanceof Response) return bytes;
        body = textOf(bytes);
      }
      // Asked last: a stop may have begun while the body came in.
      if (!isServing()) return notServing();
      return front.fetch(request, principal, body);
    });
    const raw = plainDoor({
      path: options.path,
      guard,
      authenticator,
      isServing,
      mayTake: (headers) => front.mayTake(headers),
      take: (...request) => front.take(...request),
    });
    return { fetch: (request) => app.fetch(request), raw };
  }

  get sessionCount(): number {
    return this.#front?.sessionCount ?? 0;
  }

  /** Ends subscriptions and waiting streams, refuses new calls; resolves when the calls under way have finished. */
  async drain(): Promise<void> {
    await Promise.all([this.#front?.endStreams(), this.#executor.close()]);
  }

  /** Ends the calls under way: each is answered at once, with `reason`. */
  abortCalls(reason: OnexError): void {
    this.#executor.destroy(reason).catch((error: unknown) => {
      this.#parts.log.error({ err: error }, "an executor could not be closed");
    });
  }

  /** Drains, then closes front and sources. Idempotent. (2) */
  async close(): Promise<void> {
    await this.drain();
    await this.#release();
  }

  /** Aborts the calls under way and closes, without waiting for anybody. Idempotent. (2) */
  async destroy(reason: Error): Promise<void> {
    await Promise.all([this.#executor.destroy(reason), this.#release()]);
  }

  #release(): Promise<void> {
    this.#released ??= this.#releaseAll();
    return this.#released;
  }

  /** One part that fails to close does not keep the others open. */
  async #releaseAll(): Promise<void> {
    this.#stopFreeing?.();
    const ends = await Promise.allSettled([this.#front?.close() ?? Promise.resolve(), this.#sync.close()]);
    const failed = ends.find((end) => end.status === "rejected");
    for (const name of [codeSource, ...this.sources().map((source) => source.name)]) {
      this.catalog.clear(this.#recordsOf(name));
    }
    if (failed !== undefined) throw toOnexError(failed.reason);
  }

  #recordsOf(source: string): string {
    return `${source} of ${this.#owner}`;
  }

  #reads(token: string, state: GatewayState): GatewayReads {
    return {
      ...state,
      snapshot: () => this.catalog.snapshot(),
      sources: () => this.sources(),
      report: () => this.report(),
      definition: definitionOf,
      available: (tool) => this.#executor.available(tool),
      explain: (name) => this.explain(name),
      metrics: this.#metrics,
      breakers: () => this.#circuits?.circuitStates() ?? new Map(),
      resetBreaker: (name, by) => this.#resetBreaker(name, by),
      now: () => this.#parts.clock.now(),
      readinessProof: (nonce) => readinessProof(token, nonce),
    };
  }

  /** Undefined where the executor is not ours. */
  get #circuits(): Circuits | undefined {
    return this.#executor instanceof Executor ? this.#executor.circuits : undefined;
  }

  #resetBreaker(name: string, by: Principal): boolean {
    const existed = this.#circuits?.resetCircuit(name) ?? false;
    if (existed) this.#parts.log.info({ target: name, by: by.name }, "a circuit breaker was reset by hand");
    return existed;
  }

  #makeExecutor(): Executor {
    const { timeoutSeconds, limits, allowedNetworks, serviceTls } = this.#options;
    const { bus, log, clock } = this.#parts;
    return new Executor({
      ...(bus !== undefined && { bus: new BusRequests(bus, log) }),
      snapshot: () => this.catalog.snapshot(),
      timeoutSeconds,
      ...(limits !== undefined && { limits }),
      allowedNetworks,
      ...(serviceTls !== undefined && { tls: serviceTls }),
      metrics: this.#metrics.calls,
      clock,
      log,
    });
  }

  #makeSync({ contracts, ...remote }: Sources): Sync {
    const { handlerTools, readOnly = false, log, clock } = this.#parts;
    const { stateDir } = this.#options;
    return new Sync({
      catalog: this.catalog,
      recordsOf: (source) => this.#recordsOf(source),
      local: [contracts, handlerTools].filter((source) => source !== undefined),
      ...remote,
      ...(stateDir !== undefined && { stateDir }),
      readOnly,
      clock,
      log,
    });
  }
}

const notServing = (): Response =>
  problem(503, { detail: "The server is starting or stopping; try again.", headers: { "retry-after": "1" } });
