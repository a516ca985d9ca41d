/**
 * HandlerMCP: the handler that owns the MCP server. Owns: the life of that server (start, proof of readiness, stop) and
 * what is said of its health. Does not own: tools, calls or routes (`gateway.ts`), its configuration's rules (`mcp-config.ts`).
 *
 * 1. A start is whole or undone: whatever it opened is closed again, in reverse order, before it throws.
 * 2. After every `await` of a start, the start is still the current one, or it gives up.
 * 3. `shutdown` ends within shutdownTimeout + cancelTimeout + 2 s, whatever hangs.
 * 4. What was injected (registry, executor, bus) is used and stays open.
 */
import { randomBytes } from "node:crypto";
import { within } from "../core/abort.ts";
import { monotonicClock, type Clock } from "../core/clock.ts";
import { messageOf, ProtocolConfigurationError, RuntimeHostError } from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import { redact } from "../core/redact.ts";
import { version } from "../core/version.ts";
import { Gateway } from "../gateway.ts";
import { assertSafeBinding } from "../http/auth.ts";
import { listen, waitUntilReady, type HttpServer } from "../http/server.ts";
import type {
  Container,
  Envelope,
  Handler,
  HandlerConfig,
  HandlerDescription,
  HandlerHealth,
} from "../runtime/handler.ts";
import type { CallTool } from "../tools/call.ts";
import type { Catalog } from "../tools/catalog.ts";
import type { ToolDefinition, ToolFunction } from "../tools/tool.ts";
import { parseMcpConfig, type McpConfig } from "./mcp-config.ts";
import { handlerId, runOperation, supportedOperations } from "./mcp-operations.ts";

/** What the handler can be given beside the host's collaborators. */
export interface McpContainer extends Container {
  /** The tool catalog to serve from. */
  readonly registry?: Catalog;
  readonly executor?: { readonly call: CallTool };
}

interface Parts {
  readonly config: McpConfig;
  readonly gateway: Gateway;
  /** Absent with skip_server, and until the start has bound. */
  server?: HttpServer;
}

type State =
  | { readonly kind: "idle"; readonly end: "none" | "graceful" | "forced" }
  | ({ readonly kind: "starting"; readonly abort: AbortController; readonly done: Promise<undefined> } & {
      parts?: Parts;
    })
  | ({ readonly kind: "running"; readonly since: number } & { readonly parts: Parts })
  | ({ readonly kind: "draining"; readonly done: Promise<undefined> } & { readonly parts: Parts });

/** Why the handler is not healthy. */
type Reason =
  | "not_initialized"
  | "server_task_missing"
  | "server_cancelled"
  | "server_crashed"
  | "server_exited"
  | "draining";

const maxErrorText = 200;
/** Seconds that closing sources and the executor may take after the calls have ended. */
const closeSeconds = 2;

export class HandlerMCP implements Handler {
  readonly handlerType = "infra_handler";
  readonly handlerId = handlerId;
  /** Seconds until the server must have proved that it answers. */
  startupTimeout = 2;
  /** Seconds that calls under way are given to finish. */
  shutdownTimeout = 5;
  /** Seconds more, to abort what is left and close sockets. */
  cancelTimeout = 1;

  readonly #container: McpContainer;
  readonly #log: Logger;
  readonly #clock: Clock;
  /** Tools registered in code, kept over a restart. */
  readonly #registered = new Map<
    string,
    { readonly definition: ToolDefinition; readonly fn: ToolFunction }
  >();
  #state: State = { kind: "idle", end: "none" };

  constructor(container: McpContainer = {}) {
    this.#container = container;
    this.#log = container.log ?? silentLogger;
    this.#clock = container.clock ?? monotonicClock;
  }

  /** Where the server answers, `http://127.0.0.1:8090`; undefined while there is none. */
  get url(): string | undefined {
    return this.#parts?.server?.url;
  }

  /** The URL of the MCP endpoint. */
  get endpoint(): string | undefined {
    const parts = this.#parts;
    return parts?.server === undefined ? undefined : `${parts.server.url}${parts.config.path}`;
  }

  /** The gateway behind the server, for those who embed the handler; undefined unless it runs. */
  get gateway(): Gateway | undefined {
    return this.#state.kind === "running" ? this.#state.parts.gateway : undefined;
  }

  /**
   * Starts the server, or with `skip_server` only the catalog.
   *
   * @throws ProtocolConfigurationError for a bad configuration, or `MCP server startup failed: …` with its cause
   * @throws RuntimeHostError when it is already initialized
   */
  async initialize(config: HandlerConfig): Promise<void> {
    if (this.#state.kind !== "idle") {
      throw new RuntimeHostError("HandlerMCP is already initialized; call shutdown() first");
    }
    const parsed = parseMcpConfig(config);
    this.#checkBus(parsed);
    const abort = new AbortController();
    const { promise: done, resolve } = Promise.withResolvers<undefined>();
    const starting: Extract<State, { kind: "starting" }> = { kind: "starting", abort, done };
    this.#state = starting;
    try {
      await this.#start(parsed, starting);
    } catch (error) {
      await this.#undo(starting.parts, error);
      this.#state = { kind: "idle", end: "none" };
      throw startupError(error);
    } finally {
      resolve(undefined);
    }
  }

  /** Stops: no new calls, then calls finish, then the rest is aborted. Idempotent, also during a start. (3) */
  async shutdown(): Promise<void> {
    const state = this.#state;
    switch (state.kind) {
      case "idle":
        return;
      case "draining":
        return state.done;
      case "starting":
        state.abort.abort(new RuntimeHostError("shutdown was called during the start"));
        return state.done;
      case "running": {
        const { promise: done, resolve } = Promise.withResolvers<undefined>();
        this.#state = { kind: "draining", parts: state.parts, done };
        try {
          const end = await this.#stop(state.parts);
          this.#state = { kind: "idle", end };
        } finally {
          resolve(undefined);
        }
      }
    }
  }

  async execute(envelope: Envelope, options: { readonly signal: AbortSignal }): Promise<unknown> {
    if (this.#state.kind !== "running") {
      throw new RuntimeHostError("HandlerMCP is not initialized; call initialize() first");
    }
    const { gateway } = this.#state.parts;
    const deps = {
      snapshot: () => gateway.catalog.snapshot(),
      call: gateway.call,
      describe: () => this.describe(),
    };
    return runOperation(deps, envelope, options.signal);
  }

  /**
   * Serves a tool written in code; before `initialize` it is kept for the start. A second registration of a name
   * replaces the first.
   *
   * @returns false when max_tools is reached
   * @throws ProtocolConfigurationError for a definition that cannot be served
   */
  registerTool(definition: ToolDefinition, fn: ToolFunction): boolean {
    const served = this.#parts?.gateway.registerTool(definition, fn) ?? true;
    if (served) this.#registered.set(definition.name, { definition, fn });
    return served;
  }

  /** @returns false when no tool of this name was registered in code */
  unregisterTool(name: string): boolean {
    this.#parts?.gateway.unregisterTool(name);
    return this.#registered.delete(name);
  }

  async healthCheck(): Promise<HandlerHealth> {
    const parts = this.#parts;
    const { reason, error } = this.#reason();
    const skipServer = parts?.config.skipServer === true;
    return {
      healthy: reason === undefined,
      ...(reason !== undefined && { reason }),
      ...(error !== undefined && { error: error.slice(0, maxErrorText) }),
      ...(skipServer && { skip_server: true }),
      transport_type: "mcp",
      ...this.#flags(),
      tool_count: parts?.gateway.catalog.snapshot().tools.length ?? 0,
      uptime_seconds: this.#state.kind === "running" ? (this.#clock.now() - this.#state.since) / 1000 : 0,
      sources: (parts?.gateway.sources() ?? []).map((source) => ({
        name: source.name,
        kind: source.kind,
        state: source.state,
        age_seconds: source.ageSeconds,
        last_error: source.lastError?.slice(0, maxErrorText) ?? null,
      })),
    };
  }

  describe(): HandlerDescription {
    const parts = this.#parts;
    return {
      handler_type: this.handlerType,
      handler_category: "effect",
      transport_type: "mcp",
      supported_operations: [...supportedOperations],
      tool_count: parts?.gateway.catalog.snapshot().tools.length ?? 0,
      config: parts === undefined ? {} : redact(parts.config),
      ...this.#flags(),
      version,
    };
  }

  get #parts(): Parts | undefined {
    return this.#state.kind === "idle" ? undefined : this.#state.parts;
  }

  #flags(): { initialized: boolean; server_running: boolean; lifecycle_running: boolean } {
    return {
      initialized: this.#state.kind === "running" || this.#state.kind === "draining",
      server_running: this.#parts?.server?.state.kind === "listening",
      lifecycle_running: this.#state.kind === "running",
    };
  }

  #reason(): { readonly reason?: Reason; readonly error?: string } {
    const state = this.#state;
    switch (state.kind) {
      case "idle":
        return { reason: state.end === "forced" ? "server_cancelled" : "not_initialized" };
      case "starting":
        return { reason: "server_task_missing" };
      case "draining":
        return { reason: "draining" };
      case "running":
        return serverReason(state.parts);
    }
  }

  #checkBus(config: McpConfig): void {
    const type = this.#container.bus?.health().type;
    if (!config.kafkaEnabled || type === "kafka") return;
    throw new ProtocolConfigurationError(
      `'kafka_enabled' is true, but the host's event bus is ${type ?? "absent"}; it must be kafka`,
    );
  }

  async #start(config: McpConfig, starting: Extract<State, { kind: "starting" }>): Promise<void> {
    const { signal } = starting.abort;
    const gateway = new Gateway(config, {
      ...this.#container,
      env: this.#container.env ?? {},
      log: this.#log,
      clock: this.#clock,
    });
    const parts: Parts = { config, gateway };
    starting.parts = parts;
    for (const { definition, fn } of this.#registered.values()) gateway.registerTool(definition, fn);
    await gateway.start();
    signal.throwIfAborted();
    if (!config.skipServer) parts.server = await this.#serve(parts, signal);
    signal.throwIfAborted();
    this.#state = { kind: "running", parts, since: this.#clock.now() };
  }

  async #serve(parts: Parts, signal: AbortSignal): Promise<HttpServer> {
    const { config, gateway } = parts;
    assertSafeBinding({
      host: config.host,
      hasAuthentication: config.apiKeys.length > 0,
      allowUnauthenticated: config.allowUnauthenticated,
    });
    const token = randomBytes(32).toString("hex");
    const server = await listen({
      host: config.host,
      port: config.port,
      fetch: gateway.fetchHandler(token, {
        initialized: () => this.#flags().initialized,
        draining: () => this.#state.kind === "draining",
      }),
      onError: (error) => this.#log.error({ err: error.message }, "MCP server error"),
    });
    // From here on an undo has a server to close. (1)
    parts.server = server;
    await waitUntilReady(server, { token, timeoutMs: this.startupTimeout * 1000 }, signal);
    return server;
  }

  /** (1) */
  async #undo(parts: Parts | undefined, error: unknown): Promise<void> {
    const reason = error instanceof Error ? error : new RuntimeHostError(messageOf(error));
    await within(parts?.server?.destroy(reason) ?? Promise.resolve(), this.cancelTimeout * 1000);
    await within(parts?.gateway.destroy(reason) ?? Promise.resolve(), closeSeconds * 1000);
  }

  /** (3) */
  async #stop(parts: Parts): Promise<"graceful" | "forced"> {
    const { gateway, server } = parts;
    const finished = Promise.all([server?.close(), gateway.drain()]);
    const forced = (await within(finished, this.shutdownTimeout * 1000)) === "timeout";
    if (forced) {
      finished.catch(() => undefined);
      const reason = new RuntimeHostError(`shutdownTimeout (${this.shutdownTimeout} s) is over`);
      this.#log.warn(
        { timeout_seconds: this.shutdownTimeout },
        "calls did not finish in time and are aborted",
      );
      await within(
        Promise.all([gateway.destroy(reason), server?.destroy(reason)]),
        this.cancelTimeout * 1000,
      );
    }
    await within(gateway.close(), closeSeconds * 1000);
    return forced ? "forced" : "graceful";
  }
}

function serverReason(parts: Parts): { readonly reason?: Reason; readonly error?: string } {
  if (parts.config.skipServer) return {};
  const state = parts.server?.state;
  if (state === undefined) return { reason: "server_task_missing" };
  if (state.kind === "listening") return {};
  switch (state.reason) {
    case "crashed":
      return { reason: "server_crashed", error: messageOf(state.error) };
    case "destroy":
      return { reason: "server_cancelled" };
    case "close":
    case "exited":
      return { reason: "server_exited" };
  }
}

/** What went wrong is the cause; a problem of the configuration itself is passed on as it is. */
function startupError(error: unknown): ProtocolConfigurationError {
  return new ProtocolConfigurationError(`MCP server startup failed: ${messageOf(error)}`, { cause: error });
}
