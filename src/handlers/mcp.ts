/**
 * HandlerMCP: the handler that owns the MCP server. Owns: the life of that server (start, proof of readiness, stop) and
 * the tools registered in code, over restarts. Does not own: tools, calls or routes (`gateway.ts`), its configuration's
 * rules (`mcp-config.ts`), what it says of itself (`mcp-health.ts`).
 *
 * 1. A start is whole or undone: whatever it opened is closed again, in reverse order, before it throws.
 * 2. A start that `shutdown` overtakes gives up at its next step, whatever it waits for.
 * 3. `shutdown` ends within shutdownTimeout + cancelTimeout + 2 s, whatever hangs, and never rejects.
 * 4. What was injected (registry, executor, bus) is used and stays open.
 */
import { randomBytes } from "node:crypto";
import { requireEventLog } from "../bus/bus.ts";
import { abortable, abortReason, within } from "../core/abort.ts";
import { monotonicClock, type Clock } from "../core/clock.ts";
import {
  InfraUnavailableError,
  messageOf,
  ProtocolConfigurationError,
  RuntimeHostError,
  toOnexError,
} from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import { Gateway } from "../gateway.ts";
import { assertSafeBinding } from "../http/auth.ts";
import { listen, waitUntilReady, type HttpServer } from "../http/server.ts";
import type {
  Container,
  Handler,
  HandlerConfig,
  HandlerDescription,
  HandlerHealth,
} from "../runtime/handler.ts";
import type { ToolExecutor } from "../tools/call.ts";
import type { Catalog } from "../tools/catalog.ts";
import type { ToolContext, ToolDefinition, ToolFunction } from "../tools/tool.ts";
import { parseMcpConfig, type McpConfig } from "./mcp-config.ts";
import { descriptionOf, healthOf } from "./mcp-health.ts";
import { factsOf, handlerId, runOperation, type OperationEnvelope } from "./mcp-operations.ts";
import { isInitialized, partsOf, type Parts, type Starting, type State } from "./mcp-state.ts";
import { servableDefinition } from "./tool-definition.ts";

/** What the handler can be given beside the host's collaborators. */
export interface McpContainer extends Container {
  /** The tool catalog to serve from. */
  readonly registry?: Catalog;
  /** Executes the calls of tools in the catalog. */
  readonly executor?: ToolExecutor;
  /** Whether a server is opened. Default true; false: the sources are followed, and calls come through `gateway`. */
  readonly listen?: boolean;
  /** Sources are read and nothing is written: no last good state, no topic. Default false. */
  readonly readOnly?: boolean;
}

/** Seconds that closing sources and the executor may take after the calls have ended. */
const closeSeconds = 2;
/** Seconds that leaving Consul may take at most, before calls are drained. */
const deregisterSeconds = 2;

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
  readonly #registered = new Map<
    string,
    { readonly definition: ToolDefinition; readonly fn: ToolFunction }
  >();
  #state: State = { kind: "idle", forced: false };

  constructor(container: McpContainer = {}) {
    this.#container = container;
    this.#log = container.log ?? silentLogger;
    this.#clock = container.clock ?? monotonicClock;
  }

  /** Where the server answers, `http://127.0.0.1:8090`; undefined while there is none. */
  get url(): string | undefined {
    return partsOf(this.#state)?.server?.url;
  }

  /** The URL of the MCP endpoint; undefined while there is no server. */
  get endpoint(): string | undefined {
    const parts = partsOf(this.#state);
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
   * @throws RuntimeHostError when it has been initialized and not shut down
   */
  async initialize(config: HandlerConfig): Promise<void> {
    if (this.#state.kind !== "idle") {
      const present = { starting: "starting", running: "already initialized", draining: "shutting down" };
      throw new RuntimeHostError(
        `HandlerMCP is ${present[this.#state.kind]}; initialize it again once shutdown() has resolved`,
      );
    }
    const parsed = parseMcpConfig(config);
    if (parsed.kafkaEnabled && !parsed.skipServer) requireEventLog(this.#container.bus);
    const { promise: done, resolve } = Promise.withResolvers<undefined>();
    const starting: Starting = { kind: "starting", abort: new AbortController(), done };
    this.#state = starting;
    try {
      const parts = await this.#start(parsed, starting);
      starting.abort.signal.throwIfAborted(); // (2)
      this.#state = { kind: "running", parts, since: this.#clock.now() };
      parts.registration?.start();
      this.#logStart(parts);
    } catch (thrown) {
      await this.#undo(starting.parts, toOnexError(thrown));
      this.#state = { kind: "idle", forced: false };
      throw startupError(thrown);
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
        this.#state = { ...state, kind: "draining", done };
        this.#state = { kind: "idle", forced: await this.#stop(state.parts) };
        resolve(undefined);
      }
    }
  }

  /**
   * Runs one of the envelope operations `mcp.list_tools`, `mcp.call_tool` and `mcp.describe`.
   *
   * @throws RuntimeHostError where it is not initialized, else as `runOperation`
   */
  async execute(
    envelope: OperationEnvelope,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<unknown> {
    const state = this.#state;
    const facts = factsOf(envelope);
    if (state.kind === "draining") {
      throw new InfraUnavailableError("HandlerMCP is shutting down and takes no new operations", { facts });
    }
    if (state.kind !== "running") {
      throw new RuntimeHostError("HandlerMCP is not initialized; call initialize() first", { facts });
    }
    const { gateway } = state.parts;
    const deps = {
      snapshot: () => gateway.catalog.snapshot(),
      call: gateway.call,
      describe: () => this.describe(),
      clock: this.#clock,
    };
    return runOperation(deps, envelope, options.signal ?? new AbortController().signal);
  }

  /**
   * Serves a tool written in code. A second registration of a name replaces the first. It is kept over restarts; before
   * `initialize` it waits for the start, which says in the log when there was no room for it.
   *
   * @returns false when max_tools is reached
   * @throws ProtocolConfigurationError for a definition that cannot be served, with the reason
   */
  // `Input` is for the caller's benefit: without it the parameter of a function written in place would be `never`.
  // eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- as said above
  registerTool<Input = Record<string, unknown>>(
    definition: ToolDefinition,
    fn: (input: Input, context: ToolContext) => unknown,
  ): boolean {
    const entry = { definition: servableDefinition(definition, fn), fn: fn as ToolFunction };
    const served = this.#open?.registerTool(entry.definition, entry.fn) ?? true;
    if (served) this.#registered.set(definition.name, entry);
    return served;
  }

  /** @returns false when no tool of this name was registered in code */
  unregisterTool(name: string): boolean {
    this.#open?.unregisterTool(name);
    return this.#registered.delete(name);
  }

  async healthCheck(): Promise<HandlerHealth> {
    return healthOf(this.#state, this.#clock.now());
  }

  describe(): HandlerDescription {
    return descriptionOf(this.#state, this.handlerType);
  }

  /** The gateway while tools may still be put into it. */
  get #open(): Gateway | undefined {
    return this.#state.kind === "draining" ? undefined : partsOf(this.#state)?.gateway;
  }

  /** Opens everything, each part noted on `starting` before the next step can fail. (1) (2) */
  async #start(config: McpConfig, starting: Starting): Promise<Parts> {
    const { signal } = starting.abort;
    const { registry, executor, bus, tools, listen: isServer = true, readOnly, env = {} } = this.#container;
    const gateway = new Gateway(config, {
      ...(registry !== undefined && { registry }),
      ...(executor !== undefined && { executor }),
      ...(bus !== undefined && { bus }),
      ...(tools !== undefined && { handlerTools: tools }),
      ...(readOnly !== undefined && { readOnly }),
      env,
      log: this.#log,
      clock: this.#clock,
    });
    const parts: Parts = { config, gateway };
    starting.parts = parts;
    for (const { definition, fn } of this.#registered.values()) {
      if (!gateway.registerTool(definition, fn))
        this.#log.warn(
          { tool: definition.name, max_tools: config.maxTools },
          "a tool is not served: max_tools is reached",
        );
    }
    await abortable(gateway.start(), signal);
    if (isServer && !config.skipServer) await this.#serve(parts, signal);
    return parts;
  }

  async #serve(parts: Parts, signal: AbortSignal): Promise<void> {
    const { config, gateway } = parts;
    assertSafeBinding({
      host: config.host,
      hasAuthentication: config.apiKeys.length > 0,
      allowUnauthenticated: config.allowUnauthenticated,
    });
    const token = randomBytes(32).toString("hex");
    const listening = listen({
      host: config.host,
      port: config.port,
      ...gateway.surface(token, {
        initialized: () => isInitialized(this.#state),
        draining: () => this.#state.kind === "draining",
      }),
      onError: (error) => this.#log.error({ err: error }, `MCP server: ${error.message}`),
    });
    const server = await untilAborted(listening, signal);
    parts.server = server;
    parts.registration = gateway.registration(Number(new URL(server.url).port), () => this.#isWell());
    await waitUntilReady(server, { token, timeoutMs: this.startupTimeout * 1000 }, signal);
  }

  #isWell(): boolean {
    return healthOf(this.#state, this.#clock.now()).healthy;
  }

  /** (1) */
  async #undo(parts: Parts | undefined, reason: Error): Promise<void> {
    if (parts === undefined) return;
    const { server, gateway, registration } = parts;
    await registration?.close(0);
    if (server !== undefined) await this.#atMost(this.cancelTimeout, server.destroy(reason));
    await this.#atMost(closeSeconds, gateway.destroy(reason));
  }

  /** Resolves with whether it had to be forced. (3) */
  async #stop({ gateway, server, registration }: Parts): Promise<boolean> {
    const began = this.#clock.now();
    // First, so that nobody sends calls to a server that is closing. What it takes is taken from the calls' time.
    if (registration !== undefined)
      await registration.close(Math.min(deregisterSeconds, this.shutdownTimeout / 2) * 1000);
    const drained = Promise.all([server?.close(), gateway.drain()]);
    const rest = Math.max(0, this.shutdownTimeout - (this.#clock.now() - began) / 1000);
    const end = await this.#atMost(rest, drained);
    if (end === "done") {
      await this.#atMost(closeSeconds, gateway.close());
      return false;
    }
    const reason = new InfraUnavailableError("The runtime is stopping and has aborted the call.", {
      // Nobody knows how far the call had come.
      retryable: false,
    });
    if (end === "timeout") {
      const limit = { timeout_seconds: this.shutdownTimeout };
      this.#log.warn(limit, "calls did not finish in time and are aborted");
    }
    // Their callers are told, if they take the answer in time.
    gateway.abortCalls(reason);
    await this.#atMost(this.cancelTimeout, drained);
    await this.#atMost(closeSeconds, Promise.all([server?.destroy(reason), gateway.destroy(reason)]));
    return true;
  }

  /** Waits for a part of a stop, within a limit; what goes wrong with it is logged. */
  async #atMost(seconds: number, work: Promise<unknown>): Promise<"done" | "failed" | "timeout"> {
    try {
      return (await within(work, seconds * 1000)) === "timeout" ? "timeout" : "done";
    } catch (thrown) {
      this.#log.error({ err: thrown }, `Stopping the MCP server: ${messageOf(thrown)}`);
      return "failed";
    }
  }

  #logStart({ config, gateway, server }: Parts): void {
    const facts = { url: server?.url, path: config.path, tools: gateway.catalog.snapshot().tools.length };
    this.#log.info(
      facts,
      server === undefined ? "MCP handler runs without a server" : "MCP server is running",
    );
  }
}

/** The server, or a rejection as soon as the signal aborts; one that still comes up is ended. */
async function untilAborted(listening: Promise<HttpServer>, signal: AbortSignal): Promise<HttpServer> {
  try {
    return await abortable(listening, signal);
  } catch (thrown) {
    listening.then(
      (server) => server.destroy(abortReason(signal)),
      () => undefined,
    );
    throw thrown;
  }
}

function startupError(thrown: unknown): ProtocolConfigurationError {
  const { message, facts } = toOnexError(thrown);
  return new ProtocolConfigurationError(`MCP server startup failed: ${message}`, { cause: thrown, facts });
}
