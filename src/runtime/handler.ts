/** What a handler is. The host knows handlers by this interface alone. */
import type { EventBus } from "../bus/bus.ts";
import type { Envelope } from "../bus/envelope.ts";
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/log.ts";
import type { ToolSource } from "../tools/source.ts";

export type { Envelope } from "../bus/envelope.ts";

/** How the host hands its collaborators to a handler it constructs. All optional: a handler also works alone. */
export interface Container {
  readonly bus?: EventBus;
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /**
   * The operations of the other handlers that their contracts expose as tools, for a handler that serves tools. The host
   * closes nothing of it: whoever starts it closes it.
   */
  readonly tools?: ToolSource;
}

export type HandlerConfig = Readonly<Record<string, unknown>>;

export interface HandlerHealth {
  readonly healthy: boolean;
  readonly reason?: string;
  readonly [detail: string]: unknown;
}

export interface HandlerDescription {
  readonly handler_type: string;
  readonly supported_operations?: readonly string[];
  readonly [detail: string]: unknown;
}

export interface Handler {
  /** What kind of handler this is; the routing key is its contract's `protocol_type`. */
  readonly handlerType: string;
  /** `handler_id` of its answers. Default: its contract's. */
  readonly handlerId?: string;
  /** Where it rejects it has undone what it had begun: the host does not call `shutdown` then. */
  initialize(config: HandlerConfig): Promise<void>;
  /** Returns the payload of the answer. A thrown error becomes an error answer. */
  execute(envelope: Envelope, options: { readonly signal: AbortSignal }): Promise<unknown>;
  /** Also called while `initialize` is still under way, where the start was given up. */
  shutdown(): Promise<void>;
  healthCheck(): Promise<HandlerHealth>;
  describe(): HandlerDescription;
  /** Higher shuts down first. Default 0. */
  shutdownPriority?(): number;
}

export type HandlerClass = new (container?: Container) => Handler;
