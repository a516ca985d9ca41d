/**
 * Operations of handlers as tools, where there is no host. Owns: that a handler is started when a tool of it is first
 * called, and not before. Does not own: what a call comes to (`runtime/tools.ts`).
 */
import type { EventBus } from "../bus/bus.ts";
import { readEnvelope, type Answer } from "../bus/envelope.ts";
import type { LoadedConfig } from "../config/load.ts";
import { monotonicClock } from "../core/clock.ts";
import type { Logger } from "../core/log.ts";
import { HandlerMCP } from "../handlers/mcp.ts";
import type { FoundHandler } from "../runtime/contracts.ts";
import { dispatch, dispatchParts, type DispatchParts } from "../runtime/dispatch.ts";
import { startHandlers, type ActiveHandler } from "../runtime/start.ts";
import { shutDownByPriority } from "../runtime/stop.ts";
import { HandlerTools, toolRecords } from "../runtime/tools.ts";
import { discoveryOptions, settingsOf } from "./compose.ts";

export class LazyHandlers {
  /** For the handler that serves tools. */
  readonly tools = new HandlerTools(monotonicClock);
  readonly #found: readonly FoundHandler[];
  readonly #config: LoadedConfig;
  readonly #bus: EventBus;
  readonly #log: Logger;
  /** Started, or being started. */
  readonly #parts = new Map<FoundHandler, Promise<DispatchParts>>();
  readonly #active: ActiveHandler[] = [];
  readonly #abort = new AbortController();

  constructor(found: readonly FoundHandler[], config: LoadedConfig, bus: EventBus, log: Logger) {
    this.#found = found;
    this.#config = config;
    this.#bus = bus;
    this.#log = log;
  }

  /** A handler that serves tools is itself none. */
  serve(): void {
    const exposing = this.#found.filter(
      ({ Class }) => Class !== HandlerMCP && !(Class.prototype instanceof HandlerMCP),
    );
    this.tools.serve(
      exposing.flatMap((found) =>
        toolRecords(found.contract, (envelope, { signal }) => this.#handle(found, envelope, signal)),
      ),
    );
  }

  /** Ends what was started. */
  async close(): Promise<void> {
    this.#abort.abort();
    await Promise.allSettled(this.#parts.values());
    const { handlerTimeoutSeconds } = this.#config.runtime.shutdown;
    await shutDownByPriority(this.#active, handlerTimeoutSeconds * 1000, this.#log);
  }

  /** Rejects where the handler does not start; the next call tries again. */
  async #handle(found: FoundHandler, envelope: unknown, signal: AbortSignal): Promise<Answer> {
    let starting = this.#parts.get(found);
    if (starting === undefined) {
      starting = this.#start(found);
      this.#parts.set(found, starting);
      starting.catch(() => this.#parts.delete(found));
    }
    return await dispatch(await starting, readEnvelope(envelope), signal);
  }

  async #start(found: FoundHandler): Promise<DispatchParts> {
    const { type } = found;
    const common = { clock: monotonicClock, log: this.#log };
    const { active } = await startHandlers(
      {
        ...discoveryOptions(this.#config),
        ...common,
        bus: this.#bus,
        handlers: { [type]: { config: settingsOf(found, this.#found, this.#config) } },
      },
      { handlers: [found], failed: new Map(), skipped: new Map(), report: { directory: "", entries: [] } },
      [],
      this.#abort.signal,
    );
    this.#active.push(...active);
    const { maxConcurrency } = this.#config.runtime;
    return dispatchParts(active, { ...common, absent: new Map(), maxConcurrency });
  }
}
