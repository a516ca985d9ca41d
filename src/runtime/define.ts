/**
 * `defineHandler`: a handler as a plain object. Owns: making a class of it that the host can construct. Does not own:
 * the handler interface (`handler.ts`).
 */
import { ProtocolConfigurationError, RuntimeHostError } from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import type {
  Container,
  Envelope,
  Handler,
  HandlerClass,
  HandlerConfig,
  HandlerDescription,
  HandlerHealth,
} from "./handler.ts";

/** What an operation is given besides its payload. */
export interface HandlerContext<State = undefined> {
  /** Aborts at the deadline, when the caller gives up and when the host stops. */
  readonly signal: AbortSignal;
  readonly envelope: Envelope;
  readonly correlationId: string;
  readonly config: HandlerConfig;
  /** What `initialize` returned. */
  readonly state: State;
  readonly log: Logger;
  /** The host's collaborators; empty where the handler was constructed without a host. */
  readonly container: Container;
}

/** One operation. What it returns becomes the answer's payload, what it throws an error answer. */
export type Operation<State = undefined> = (
  payload: Readonly<Record<string, unknown>>,
  context: HandlerContext<State>,
) => unknown;

export interface HandlerDefinition<State = undefined> {
  readonly handlerType: string;
  /** By the envelope's whole operation, `greet.hello`. */
  readonly operations: Readonly<Record<string, Operation<State>>>;
  /** Opens what the operations need and returns it; it becomes their `context.state`. */
  initialize?(config: HandlerConfig, container: Container): State | Promise<State>;
  /** Closes what `initialize` opened. */
  shutdown?(state: State): void | Promise<void>;
  /** Default: healthy once initialized. */
  healthCheck?(state: State): HandlerHealth | Promise<HandlerHealth>;
  /** Facts to add to the description; never secrets. */
  describe?(): Readonly<Record<string, unknown>>;
  /** Higher shuts down first. Default 0. */
  readonly shutdownPriority?: number;
}

/**
 * A handler class from its parts:
 * `defineHandler({ handlerType: "greet", operations: { "greet.hello": (payload) => ({ text: "Hello" }) } })`.
 */
export function defineHandler<State = undefined>(definition: HandlerDefinition<State>): HandlerClass {
  const operations = new Map(Object.entries(definition.operations));
  const supported = [...operations.keys()];

  return class DefinedHandler implements Handler {
    readonly handlerType = definition.handlerType;
    readonly #container: Container;
    #running: { readonly config: HandlerConfig; readonly state: State } | undefined;

    constructor(container: Container = {}) {
      this.#container = container;
    }

    async initialize(config: HandlerConfig): Promise<void> {
      if (this.#running !== undefined) {
        throw new RuntimeHostError(`handler ${definition.handlerType} is already initialized`);
      }
      // Without `initialize` there is no State but undefined.
      const state = (await definition.initialize?.(config, this.#container)) as State;
      this.#running = { config, state };
    }

    async execute(envelope: Envelope, options: { readonly signal: AbortSignal }): Promise<unknown> {
      if (this.#running === undefined) {
        throw new RuntimeHostError(`handler ${definition.handlerType} is not initialized`);
      }
      const operation = operations.get(envelope.operation);
      if (operation === undefined) {
        throw new ProtocolConfigurationError(
          `unknown operation ${JSON.stringify(envelope.operation)}; ${definition.handlerType} has ${supported.join(", ")}`,
          { facts: { operation: envelope.operation, correlation_id: envelope.correlation_id } },
        );
      }
      return await operation(envelope.payload, {
        signal: options.signal,
        envelope,
        correlationId: envelope.correlation_id,
        config: this.#running.config,
        state: this.#running.state,
        log: this.#container.log ?? silentLogger,
        container: this.#container,
      });
    }

    async shutdown(): Promise<void> {
      const running = this.#running;
      this.#running = undefined;
      if (running !== undefined) await definition.shutdown?.(running.state);
    }

    async healthCheck(): Promise<HandlerHealth> {
      if (this.#running === undefined) return { healthy: false, reason: "not_initialized" };
      return (await definition.healthCheck?.(this.#running.state)) ?? { healthy: true };
    }

    describe(): HandlerDescription {
      return {
        ...definition.describe?.(),
        handler_type: definition.handlerType,
        supported_operations: supported,
      };
    }

    shutdownPriority(): number {
      return definition.shutdownPriority ?? 0;
    }
  };
}
