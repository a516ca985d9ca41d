/**
 * HandlerHttp: HTTP requests by envelope, shipped with the package. Owns: its operations and its life. Does not own: what
 * a payload may ask for (`http-request.ts`), connections and answers (`http-exchange.ts`), its limits (`http-config.ts`).
 *
 * 1. The verb of an operation says what it does: under another protocol_type there can be another one with other limits.
 */
import { InfraUnavailableError, ProtocolConfigurationError, RuntimeHostError } from "../core/errors.ts";
import { version } from "../core/version.ts";
import type {
  Envelope,
  Handler,
  HandlerConfig,
  HandlerDescription,
  HandlerHealth,
} from "../runtime/handler.ts";
import { parseHttpConfig, type HttpConfig } from "./http-config.ts";
import { HttpClient } from "./http-exchange.ts";
import { outboundRequest, type HttpMethod } from "./http-request.ts";

/** By the operation's verb. (1) */
const methods: ReadonlyMap<string, HttpMethod> = new Map([
  ["get", "GET"],
  ["post", "POST"],
  ["put", "PUT"],
  ["patch", "PATCH"],
  ["delete", "DELETE"],
]);
const supportedOperations = [...methods.keys()].map((verb) => `http.${verb}`);

interface Running {
  readonly config: HttpConfig;
  readonly client: HttpClient;
}

export class HandlerHttp implements Handler {
  readonly handlerType = "infra_handler";
  #running: Running | undefined;
  #pending = 0;

  /**
   * Takes its configuration; opens no connection yet.
   *
   * @throws ProtocolConfigurationError with one line for each bad key
   * @throws RuntimeHostError when it has been initialized and not shut down
   */
  async initialize(config: HandlerConfig): Promise<void> {
    if (this.#running !== undefined) throw new RuntimeHostError("HandlerHttp is already initialized");
    const parsed = parseHttpConfig(config);
    this.#running = { config: parsed, client: new HttpClient(parsed) };
  }

  /**
   * One request. Every status is an answer, `{status_code, headers, body, url}`, and redirects are not followed.
   *
   * @throws ProtocolConfigurationError for an unknown operation or a payload that cannot be sent
   * @throws InfraConnectionError or InfraTimeoutError (both retryable) where there is no answer
   * @throws RuntimeHostError for an address that may not be called or an answer that is too large
   */
  async execute(envelope: Envelope, { signal }: { readonly signal: AbortSignal }): Promise<unknown> {
    if (this.#running === undefined) {
      throw new RuntimeHostError("HandlerHttp is not initialized; call initialize() first");
    }
    const { operation, payload, correlation_id } = envelope;
    const method = methods.get(operation.slice(operation.indexOf(".") + 1));
    if (method === undefined) {
      throw new ProtocolConfigurationError(
        `Unknown operation '${operation}'. Supported: ${supportedOperations.join(", ")}`,
        { facts: { transport: "http", operation, correlation_id } },
      );
    }
    const { config, client } = this.#running;
    const request = outboundRequest(method, payload, config);
    this.#pending += 1;
    try {
      return await client.send(request, signal);
    } finally {
      this.#pending -= 1;
    }
  }

  /** Ends requests that are under way and closes the connections. Idempotent. */
  async shutdown(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.client.destroy(
      new InfraUnavailableError("The runtime is stopping.", { retryable: false }),
    );
  }

  async healthCheck(): Promise<HandlerHealth> {
    return this.#running === undefined
      ? { healthy: false, reason: "not_initialized" }
      : { healthy: true, transport_type: "http", pending: this.#pending };
  }

  describe(): HandlerDescription {
    const config = this.#running?.config;
    return {
      handler_type: this.handlerType,
      handler_category: "effect",
      transport_type: "http",
      supported_operations: supportedOperations,
      initialized: config !== undefined,
      ...(config !== undefined && {
        config: {
          max_request_bytes: config.maxRequestBytes,
          max_response_bytes: config.maxResponseBytes,
          timeout_seconds: config.timeoutSeconds,
          default_timeout_seconds: config.defaultTimeoutSeconds,
          allowed_networks: config.allowedNetworks,
          allowed_hosts: config.allowedHosts,
        },
      }),
      version,
    };
  }
}
