/**
 * The gateway: catalog, sources, executor and MCP front, joined. Owns: who is made with what, and the HTTP surface.
 * Does not own: the socket (the MCP handler listens), the configuration's keys, or any part's inside.
 *
 * The control loop writes snapshots (sources -> catalog), the call loop reads one (front -> executor); they meet here.
 */
import { gatewayRoutes, type GatewayReads } from "./admin/routes.ts";
import type { Clock } from "./core/clock.ts";
import { ProtocolConfigurationError } from "./core/errors.ts";
import type { Logger } from "./core/log.ts";
import { version } from "./core/version.ts";
import {
  normaliseInputSchema,
  normaliseOutputSchema,
  type NormalisedSchema,
} from "./contract/input-schema.ts";
import type { LoadReport } from "./contract/load.ts";
import { nameProblem } from "./contract/tool-name.ts";
import { ContractSource } from "./discovery/contracts.ts";
import { Executor } from "./execution/executor.ts";
import { createAuthenticator, type ApiKey } from "./http/auth.ts";
import { createGuard, readBody } from "./http/guard.ts";
import { problem, problemResponse } from "./http/problem.ts";
import { readinessProof } from "./http/readiness.ts";
import { definitionOf } from "./mcp/definition.ts";
import { Front } from "./mcp/front.ts";
import type { ServerDeps } from "./mcp/server.ts";
import type { CallTool } from "./tools/call.ts";
import { Catalog } from "./tools/catalog.ts";
import { toolFromCode } from "./tools/define.ts";
import type { SourceStatus, ToolSource } from "./tools/source.ts";
import type { JsonSchema, ToolDefinition, ToolFunction } from "./tools/tool.ts";

export interface GatewayOptions {
  readonly host: string;
  /** Path of the MCP endpoint. */
  readonly path: string;
  readonly stateless: boolean;
  readonly jsonResponse: boolean;
  readonly sessionTtlSeconds: number;
  readonly maxSessions: number;
  readonly sessionSecret?: string;
  readonly pageSize: number;
  readonly timeoutSeconds: number;
  readonly maxTools: number;
  readonly requiredTags: readonly string[];
  readonly excludedTags: readonly string[];
  readonly contractsDir?: string;
  readonly exposeNodeTypes: readonly string[];
  readonly allowedNetworks: readonly string[];
  readonly allowedHosts: readonly string[];
  readonly allowedOrigins: readonly string[];
  readonly apiKeys: readonly ApiKey[];
}

export interface GatewayParts {
  /** Used and left open when given; made and closed here when not. */
  readonly registry?: Catalog;
  readonly executor?: { readonly call: CallTool };
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Name of the source of tools registered in code. */
const codeSource = "code";

export class Gateway {
  readonly catalog: Catalog;
  readonly call: CallTool;
  readonly #options: GatewayOptions;
  readonly #parts: GatewayParts;
  readonly #executor?: Executor;
  readonly #stopFreeing?: () => void;
  readonly #sources: readonly ToolSource[];
  readonly #contracts: ContractSource | undefined;
  #front: Front | undefined;

  constructor(options: GatewayOptions, parts: GatewayParts) {
    this.#options = options;
    this.#parts = parts;
    this.catalog = parts.registry ?? new Catalog({ ...options, log: parts.log });
    if (parts.executor === undefined) {
      this.#executor = this.#makeExecutor();
      this.call = this.#executor.call;
      this.#stopFreeing = this.catalog.onChange(this.#executor.onSnapshot);
    } else {
      this.call = parts.executor.call;
    }
    this.#contracts = this.#makeContractSource();
    this.#sources = this.#contracts === undefined ? [] : [this.#contracts];
  }

  /** Starts the sources; resolves once each has applied its first state. */
  async start(): Promise<void> {
    await Promise.all(
      this.#sources.map((source) => source.start((change) => this.catalog.apply(source.name, change))),
    );
  }

  sources(): readonly SourceStatus[] {
    return this.#sources.map((source) => source.status());
  }

  /** What became of each contract file; undefined without a contracts directory. */
  report(): LoadReport | undefined {
    return this.#contracts?.report();
  }

  /**
   * Serves a tool written in code.
   *
   * @returns false when max_tools is reached
   * @throws ProtocolConfigurationError for a definition that cannot be served
   */
  registerTool(definition: ToolDefinition, fn: ToolFunction): boolean {
    const tool = toolFromCode(servable(definition), fn);
    const known = this.catalog.has(codeSource, definition.name);
    if (!known && this.catalog.snapshot().tools.length >= this.#options.maxTools) return false;
    this.catalog.apply(codeSource, {
      put: [{ key: definition.name, tool }],
      remove: [],
    });
    const withheld = this.catalog
      .snapshot()
      .withheld.find((entry) => entry.source === "handler" && entry.owner === definition.name);
    if (withheld !== undefined) {
      this.#parts.log.warn(
        { tool: definition.name, reason: withheld.reason },
        "a tool registered in code is not served",
      );
    }
    return true;
  }

  /** @returns false when no tool of this name was registered in code */
  unregisterTool(name: string): boolean {
    if (!this.catalog.has(codeSource, name)) return false;
    this.catalog.apply(codeSource, { put: [], remove: [name] });
    return true;
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
   * The HTTP surface.
   *
   * @param token secret of this start, by which the readiness poll knows our server
   * @param state the handler's own
   */
  fetchHandler(token: string, state: GatewayState): (request: Request) => Response | Promise<Response> {
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
    const authenticator = createAuthenticator({ apiKeys: options.apiKeys, loopbackIsAdmin: true, log });
    const body = async (request: Request): Promise<Uint8Array | Response> => {
      const read = await readBody(request, guard.maxBodyBytes);
      return read.ok ? read.bytes : problemResponse(read.problem);
    };
    const http = { ...authenticator, guard: guard.middleware, readBody: body, problem };
    const app = gatewayRoutes(this.#reads(token, state), http);
    app.all(options.path, async (context) => {
      const request = context.req.raw;
      const principal = authenticator.authorize(request, "user");
      if (principal instanceof Response) return principal;
      if (!state.initialized() || state.draining()) return notServing();
      if (request.method !== "POST") return front.fetch(request, principal);
      const bytes = await body(request);
      return bytes instanceof Response
        ? bytes
        : front.fetch(request, principal, new TextDecoder().decode(bytes));
    });
    return (request) => app.fetch(request);
  }

  get sessionCount(): number {
    return this.#front?.sessionCount ?? 0;
  }

  /** Ends subscriptions and waiting streams, refuses new calls; resolves when the calls under way have finished. */
  async drain(): Promise<void> {
    await Promise.all([this.#front?.endStreams(), this.#executor?.close()]);
  }

  /** Drains, then closes front and sources. What was injected stays open. Idempotent. */
  async close(): Promise<void> {
    await this.drain();
    this.#stopFreeing?.();
    await Promise.all([this.#front?.close(), ...this.#sources.map((source) => source.close())]);
    if (this.#parts.registry !== undefined) this.#withdraw(this.#parts.registry);
  }

  /** Aborts the calls under way, then closes. Idempotent. */
  async destroy(reason: Error): Promise<void> {
    await Promise.all([this.#executor?.destroy(reason), this.#front?.close()]);
    await this.close();
  }

  /** An injected catalog outlives us: our records leave it. */
  #withdraw(registry: Catalog): void {
    for (const name of [codeSource, ...this.#sources.map((source) => source.name)]) registry.clear(name);
  }

  #reads(token: string, state: GatewayState): GatewayReads {
    return {
      ...state,
      snapshot: () => this.catalog.snapshot(),
      sources: () => this.sources(),
      definition: definitionOf,
      available: (tool) => this.#executor?.available(tool) ?? true,
      readinessProof: (nonce) => readinessProof(token, nonce),
    };
  }

  #makeExecutor(): Executor {
    const { timeoutSeconds, allowedNetworks } = this.#options;
    const { log, clock } = this.#parts;
    return new Executor({
      snapshot: () => this.catalog.snapshot(),
      timeoutSeconds,
      allowedNetworks,
      clock,
      log,
    });
  }

  #makeContractSource(): ContractSource | undefined {
    const { contractsDir, exposeNodeTypes } = this.#options;
    if (contractsDir === undefined) return undefined;
    const { env, log, clock } = this.#parts;
    return new ContractSource({ directory: contractsDir, env, exposeNodeTypes, log, clock });
  }
}

/** What the HTTP surface shows of the handler. */
export interface GatewayState {
  readonly initialized: () => boolean;
  readonly draining: () => boolean;
}

const notServing = (): Response =>
  problem(503, { detail: "The server is starting or stopping; try again.", headers: { "retry-after": "1" } });

/** The definition with schemas that every client takes. */
function servable(definition: ToolDefinition): ToolDefinition {
  const { name, description, inputSchema, outputSchema } = definition;
  const problem = nameProblem(name) ?? (description.trim() === "" ? "the description is empty" : undefined);
  if (problem !== undefined)
    throw new ProtocolConfigurationError(`Tool '${name}' cannot be served: ${problem}`);
  return {
    ...definition,
    inputSchema: schemaOf(name, "inputSchema", normaliseInputSchema(inputSchema)),
    ...(outputSchema !== undefined && {
      outputSchema: schemaOf(name, "outputSchema", normaliseOutputSchema(outputSchema)),
    }),
  };
}

function schemaOf(tool: string, key: string, normalised: NormalisedSchema): JsonSchema {
  if (normalised.ok) return normalised.schema;
  throw new ProtocolConfigurationError(
    `Tool '${tool}' cannot be served: its ${key} is not valid: ${normalised.problem}`,
  );
}
