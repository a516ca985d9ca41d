/**
 * The runtime host. Owns: the order of starting and stopping, and the host's state. Does not own: what happens to an
 * envelope (`inbox.ts`, `dispatch.ts`), reading the configuration (`config/`), listening (`admin/`, `cli/`), signals (`cli/`).
 *
 * 1. A start that fails closes what it had opened, last first, within `rollbackMs`, and rejects with one error.
 * 2. `start` and `stop` are idempotent; a host that has stopped or failed is not started again.
 * 3. While it drains, what the bus had delivered is answered and `handle` refuses. Where the bus keeps messages, those
 *    without an answer at the end of it are left to the next process.
 * 4. Nothing that hangs makes `stop` take longer than the grace period and a second.
 */
import type { Unsubscribe } from "../bus/bus.ts";
import { errorAnswer, parseEnvelope, readEnvelope, type Answer } from "../bus/envelope.ts";
import { abortable, within } from "../core/abort.ts";
import { monotonicClock, type Clock } from "../core/clock.ts";
import {
  CancelledError,
  InfraUnavailableError,
  RuntimeHostError,
  messageOf,
  toOnexError,
} from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { thinned } from "../core/thinned-log.ts";
import { discoverHandlers, failureText, type Discovery } from "./contracts.ts";
import { dispatch, dispatchParts, type DispatchParts } from "./dispatch.ts";
import type { Handler } from "./handler.ts";
import { hostHealth, type HostHealth, type HostReadiness } from "./health.ts";
import { addressOf, answerMessage } from "./inbox.ts";
import { Slots } from "./lanes.ts";
import { checkOptions, type HostOptions } from "./options.ts";
import { Pending } from "./pending.ts";
import { startHandlers, type ActiveHandler } from "./start.ts";
import { shutDownByPriority, shutDownInReverse } from "./stop.ts";
import { serveTools, withdrawTools, type HandleEnvelope } from "./tools.ts";

interface Live {
  readonly discovery: Discovery;
  readonly active: readonly ActiveHandler[];
  readonly failed: ReadonlyMap<string, string>;
  readonly parts: DispatchParts;
}

export type HostState =
  | { readonly kind: "idle" }
  | { readonly kind: "starting"; readonly done: Promise<void>; readonly abort: AbortController }
  | { readonly kind: "running"; readonly live: Live; readonly unsubscribe: Unsubscribe }
  | { readonly kind: "draining" | "stopping"; readonly live: Live; readonly done: Promise<StopOutcome> }
  | { readonly kind: "stopped"; readonly outcome: StopOutcome }
  | { readonly kind: "failed"; readonly error: Error };

export interface StopOutcome {
  /** True where the grace period ended first and everything was destroyed. */
  readonly forced: boolean;
}

/** For undoing a start; a failed start is to end the process within 5 s. */
const rollbackMs = 4000;
/** For error answers to go out once what was pending has been aborted. */
const abortedAnswersMs = 1000;
/** A liveness probe's own patience is often 1 s; a handler that hangs must not make the process look dead. */
const livenessCheckSeconds = 0.5;

export class RuntimeHost {
  readonly #options: HostOptions;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #abort = new AbortController();
  readonly #pending = new Pending();
  #state: HostState = { kind: "idle" };

  /** @throws ProtocolConfigurationError where options contradict one another */
  constructor(options: HostOptions) {
    checkOptions(options);
    this.#options = options;
    this.#clock = options.clock ?? monotonicClock;
    this.#log = options.log;
  }

  get state(): HostState {
    return this.#state;
  }

  /** Resolves when envelopes are being taken. @throws RuntimeHostError with the first thing that failed as cause */
  async start(): Promise<void> {
    const state = this.#state;
    if (state.kind === "running") return;
    if (state.kind === "idle") {
      const abort = new AbortController();
      const { promise: done, resolve, reject } = Promise.withResolvers<undefined>();
      this.#state = { kind: "starting", done, abort };
      this.#start(abort.signal).then(() => resolve(undefined), reject);
      await done;
      return;
    }
    if (state.kind === "starting") {
      await state.done;
      return;
    }
    throw new RuntimeHostError(
      `the host is ${state.kind} and cannot be started again; construct another one`,
    ); // (2)
  }

  /** Drains, shuts the handlers down and closes the bus. Never rejects. */
  async stop(): Promise<StopOutcome> {
    const state = this.#state;
    switch (state.kind) {
      case "idle":
      case "failed": {
        const outcome = { forced: false };
        if (state.kind === "idle") this.#state = { kind: "stopped", outcome };
        return outcome;
      }
      case "starting":
        state.abort.abort(new CancelledError("the host was stopped while it started"));
        await state.done.catch(() => undefined);
        return await this.stop();
      case "running": {
        const { promise: done, resolve } = Promise.withResolvers<StopOutcome>();
        this.#state = { kind: "draining", live: state.live, done };
        void this.#stop(state.live, state.unsubscribe, done).then(resolve);
        return await done;
      }
      case "draining":
      case "stopping":
        return await state.done;
      case "stopped":
        return state.outcome;
    }
  }

  /**
   * The answer to one envelope. Never rejects.
   *
   * @param input bytes or text as they came, or a value that was JSON
   */
  async handle(input: unknown, options: { readonly signal?: AbortSignal } = {}): Promise<Answer> {
    const state = this.#state;
    return await this.#answer(input, state.kind === "running" ? state.live.parts : undefined, options.signal);
  }

  /** A tool of a handler is called by way of another handler, which may serve before the bus is there. */
  #callTools(parts: DispatchParts): HandleEnvelope {
    return async (envelope, { signal }) => {
      const { kind } = this.#state;
      const isOpen = kind === "running" || kind === "starting";
      return await this.#answer(envelope, isOpen ? parts : undefined, signal);
    };
  }

  /** @param parts undefined: the host takes nothing at the moment (3) */
  async #answer(
    input: unknown,
    parts: DispatchParts | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    const read =
      typeof input === "string" || input instanceof Uint8Array ? parseEnvelope(input) : readEnvelope(input);
    if (parts === undefined) {
      const error = new InfraUnavailableError(`the host is ${this.#state.kind}`, { retryable: true });
      return errorAnswer(addressOf(read), error, { handlerId: null, processingTimeMs: 0 });
    }
    const either = signal === undefined ? this.#abort.signal : AbortSignal.any([this.#abort.signal, signal]);
    return await this.#pending.run(() => dispatch(parts, read, either));
  }

  /** How the host is, soon: a handler that does not answer within `livenessCheckSeconds` counts as unhealthy. */
  async health(): Promise<HostHealth> {
    const seconds = Math.min(livenessCheckSeconds, this.#options.healthCheckTimeoutSeconds);
    const { status, version, details } = await this.#askHandlers(seconds);
    return { status, version, details };
  }

  /** How the host is, with the time that the configuration gives a health check. */
  async ready(): Promise<HostReadiness> {
    return await this.#askHandlers(this.#options.healthCheckTimeoutSeconds);
  }

  async #askHandlers(checkTimeoutSeconds: number): Promise<HostReadiness> {
    const live = liveOf(this.#state);
    return await hostHealth({
      state: this.#state.kind,
      version: this.#options.version,
      pending: this.#pending.count,
      bus: this.#options.bus.health(),
      active: live?.active ?? [],
      failed: live?.failed ?? new Map(),
      skipped: live?.discovery.skipped ?? new Map(),
      report: live?.discovery.report,
      checkTimeoutSeconds,
    });
  }

  /** The running handler of this type. */
  handler(type: string): Handler | undefined {
    return liveOf(this.#state)?.active.find((active) => active.found.type === type)?.handler;
  }

  async #start(signal: AbortSignal): Promise<void> {
    const { bus, inputTopic, consumerGroup } = this.#options;
    const opened: ActiveHandler[] = [];
    try {
      await abortable(bus.start(), signal);
      const discovery = await abortable(discoverHandlers(this.#options), signal);
      const started = await startHandlers(
        { ...this.#options, clock: this.#clock },
        discovery,
        opened,
        signal,
      );
      const { maxConcurrency } = this.#options;
      const parts = dispatchParts(started.active, {
        absent: new Map([...started.failed, ...discovery.skipped]),
        maxConcurrency,
        clock: this.#clock,
        log: this.#log,
      });
      const onLate = thinned(
        (fields) => this.#log.warn(fields, "An answer could not be published yet"),
        this.#clock,
      );
      const inbox = { ...this.#options, onLate };
      // An envelope that calls a tool holds a slot while it waits for the tool, and must not wait for itself. Served before
      // the bus is there, which may have to wait for its brokers: whoever serves tools already does.
      const toolParts = { ...parts, slots: new Slots(maxConcurrency) };
      serveTools(started.active, this.#callTools(toolParts), this.#log);
      const live: Live = { discovery, ...started, parts };
      const unsubscribe = await abortable(
        bus.subscribe(
          inputTopic,
          consumerGroup,
          (message, aborted) => this.#pending.run(() => answerMessage(message, inbox, live.parts, aborted)),
          { deadLetters: "commands" },
        ),
        signal,
      );
      this.#state = { kind: "running", live, unsubscribe };
      this.#logStart(live);
    } catch (thrown) {
      await this.#undo(opened, thrown);
      const error = startError(thrown);
      this.#state = { kind: "failed", error };
      throw error;
    }
  }

  /** (1) */
  async #undo(opened: readonly ActiveHandler[], thrown: unknown): Promise<void> {
    const { bus } = this.#options;
    withdrawTools(opened);
    const shareMs = rollbackMs / (opened.length + 1);
    await shutDownInReverse(opened, shareMs, this.#log);
    const closing = bus
      .close()
      .catch((error: unknown) => this.#log.error({ err: error }, "The bus did not close"));
    if ((await within(closing, shareMs)) === "timeout") {
      bus.destroy(toOnexError(thrown)).catch(() => undefined);
    }
  }

  async #stop(live: Live, unsubscribe: Unsubscribe, done: Promise<StopOutcome>): Promise<StopOutcome> {
    const { bus, shutdown } = this.#options;
    const inOrder = this.#stopInOrder(live, unsubscribe, done).catch((thrown: unknown) => {
      this.#log.error({ err: thrown }, `Stopping went wrong: ${messageOf(thrown)}`);
    });
    const forced = (await within(inOrder, shutdown.gracePeriodSeconds * 1000)) === "timeout";
    if (forced) {
      const reason = new RuntimeHostError(
        `the host did not stop within its grace period of ${shutdown.gracePeriodSeconds} s and was destroyed`,
      );
      this.#log.error({ pending: this.#pending.count }, reason.message);
      await within(
        bus.destroy(reason).catch(() => undefined),
        abortedAnswersMs,
      ); // (4)
    }
    const outcome = { forced };
    this.#state = { kind: "stopped", outcome };
    return outcome;
  }

  async #stopInOrder(live: Live, unsubscribe: Unsubscribe, done: Promise<StopOutcome>): Promise<void> {
    const { bus, shutdown } = this.#options;
    const drained = unsubscribe(this.#abort.signal)
      .catch((thrown: unknown) =>
        this.#log.error({ err: thrown }, `Unsubscribing failed: ${messageOf(thrown)}`),
      )
      .then(() => this.#pending.idle());
    if ((await within(drained, shutdown.drainTimeoutSeconds * 1000)) === "timeout") {
      this.#log.warn(
        { pending: this.#pending.count },
        `${this.#pending.count} envelopes were pending after ${shutdown.drainTimeoutSeconds} s and are aborted`,
      );
    }
    // What is pending after this point is answered, with an error, or left to the next process where the bus keeps it.
    this.#abort.abort(new InfraUnavailableError("the host is stopping", { retryable: true }));
    await within(drained, abortedAnswersMs);
    if (this.#state.kind === "draining") this.#state = { kind: "stopping", live, done };
    withdrawTools(live.active);
    await shutDownByPriority(live.active, shutdown.handlerTimeoutSeconds * 1000, this.#log);
    await bus.close();
  }

  #logStart({ active, failed, discovery }: Live): void {
    for (const entry of discovery.report.entries) {
      const { path, outcome } = entry;
      const why = failureText(entry);
      if (outcome === "failed") this.#log.error({ path }, `Handler contract ${path}: ${why}`);
      else this.#log.info({ path }, `Handler contract ${path} ${outcome}${why === "" ? "" : `: ${why}`}`);
    }
    this.#log.info(
      { handlers: active.map(({ found }) => found.type), degraded: failed.size > 0 },
      `Runtime host ${this.#options.name} is running`,
    );
  }
}

function liveOf(state: HostState): Live | undefined {
  return "live" in state ? state.live : undefined;
}

function startError(thrown: unknown): Error {
  const error = toOnexError(thrown);
  return new RuntimeHostError(`The runtime host could not start: ${error.message}`, {
    cause: error,
    facts: error.facts,
  });
}
