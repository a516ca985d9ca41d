/**
 * From contracts to running handlers. Owns: constructing and initializing handlers, and what it means that one is
 * required. Does not own: finding them (`contracts.ts`), undoing a start (`host.ts`, with `stop.ts`).
 */
import type { EventBus } from "../bus/bus.ts";
import { abortable } from "../core/abort.ts";
import type { Clock } from "../core/clock.ts";
import { ProtocolConfigurationError, RuntimeHostError, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { failureText, type Discovery, type DiscoveryOptions, type FoundHandler } from "./contracts.ts";
import type { Handler } from "./handler.ts";
import { constructHandler } from "./loader.ts";
import { handlerConfig } from "./settings.ts";
import { HandlerTools } from "./tools.ts";

/** One handler's part of the configuration. */
export interface HandlerSection {
  /** Whether the start fails where this handler does not initialize. Default true. */
  readonly required?: boolean;
  /** The environment laid over it already. */
  readonly config: Readonly<Record<string, unknown>>;
}

export interface StartOptions extends DiscoveryOptions {
  /** By type. A handler that is not named here is not required. */
  readonly handlers: Readonly<Record<string, HandlerSection>>;
  readonly bus: EventBus;
  readonly log: Logger;
  readonly clock: Clock;
}

export interface ActiveHandler {
  readonly found: FoundHandler;
  readonly handler: Handler;
  readonly required: boolean;
  /** What it is given of the other handlers' tools. */
  readonly tools: HandlerTools;
}

export interface StartedHandlers {
  /** In the order of initialization. */
  readonly active: readonly ActiveHandler[];
  /** Why a handler is not there, by type, or by path where the type is not known. */
  readonly failed: ReadonlyMap<string, string>;
}

/**
 * Initializes the handlers, one after the other.
 *
 * @param opened receives every handler that needs a `shutdown`, also where this rejects
 * @throws RuntimeHostError naming the required handler that failed; where none could be started, all the reasons
 */
export async function startHandlers(
  options: StartOptions,
  discovery: Discovery,
  opened: ActiveHandler[],
  signal: AbortSignal,
): Promise<StartedHandlers> {
  const failed = new Map([...discovery.failed].map(([key, failure]) => [key, failureText(failure)]));
  const isRequired = (type: string): boolean => {
    const section = sectionOf(options, type);
    return section !== undefined && section.required !== false;
  };
  for (const type of Object.keys(options.handlers)) {
    const known = discovery.skipped.has(type) || discovery.handlers.some((found) => found.type === type);
    if (known) continue;
    const reason = failed.get(type) ?? notDeclared(type, options, discovery);
    if (isRequired(type)) throw new RuntimeHostError(`required handler ${type}: ${reason}`);
    failed.set(type, reason);
  }
  const types = discovery.handlers.map((found) => found.type);
  for (const found of discovery.handlers) {
    signal.throwIfAborted();
    const required = isRequired(found.type);
    try {
      await startHandler(found, required, types, options, opened, signal);
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const reason = messageOf(thrown);
      if (required) {
        throw new RuntimeHostError(`required handler ${found.type} did not start: ${reason}`, {
          cause: thrown,
          facts: { target: found.type },
        });
      }
      failed.set(found.type, reason);
      options.log.error(
        { handler: found.type, err: thrown },
        `Handler ${found.type} did not start: ${reason}`,
      );
    }
  }
  if (opened.length === 0) throw noHandler(options, discovery, failed);
  return { active: [...opened], failed };
}

async function startHandler(
  found: FoundHandler,
  required: boolean,
  types: readonly string[],
  options: StartOptions,
  opened: ActiveHandler[],
  signal: AbortSignal,
): Promise<void> {
  const { type, contract } = found;
  const tools = new HandlerTools(options.clock);
  const handler = constructHandler(found.Class, contract.handlerClass, {
    bus: options.bus,
    log: options.log.child({ handler: type }),
    clock: options.clock,
    env: options.env,
    tools,
  });
  const config = handlerConfig(
    type,
    types,
    contract.configDefaults,
    sectionOf(options, type)?.config,
    options.env,
  );
  const active: ActiveHandler = { found, handler, required, tools };
  opened.push(active);
  try {
    await abortable((async () => await handler.initialize(config))(), signal);
  } catch (thrown) {
    // A handler whose initialize failed has undone itself; one that was only given up on has not.
    if (!signal.aborted) opened.pop();
    throw thrown;
  }
}

function sectionOf(options: StartOptions, type: string): HandlerSection | undefined {
  return Object.hasOwn(options.handlers, type) ? options.handlers[type] : undefined;
}

function notDeclared(type: string, options: StartOptions, discovery: Discovery): string {
  return `it is configured, but no handler contract declares proto.${type}; ${whereLooked(options, discovery)}`;
}

function noHandler(
  options: StartOptions,
  discovery: Discovery,
  failed: ReadonlyMap<string, string>,
): ProtocolConfigurationError {
  const reasons = [
    ...[...failed].map(([key, reason]) => `${key}: ${reason}`),
    ...[...discovery.skipped].map(([type, reason]) => `${type} skipped: ${reason}`),
  ];
  return new ProtocolConfigurationError(
    `no handler could be started; ${whereLooked(options, discovery)}${reasons.length > 0 ? `; ${reasons.join("; ")}` : ""}`,
  );
}

function whereLooked(options: StartOptions, discovery: Discovery): string {
  const { mode } = options.handlerSource;
  const places = [
    ...(mode === "contract" ? [] : [`the ${options.bootstrap.length} shipped`]),
    ...(mode === "bootstrap" || options.contractsDir === undefined
      ? []
      : [`handler_contract.yaml below ${options.contractsDir}`]),
    ...(mode === "bootstrap" || options.remote === undefined
      ? []
      : [`the contracts in ${options.remote.name}`]),
  ];
  const broken = discovery.report.entries.filter((entry) => entry.outcome === "failed");
  const also =
    broken.length > 0
      ? ` (not usable: ${broken.map((entry) => `${entry.path}: ${failureText(entry)}`).join("; ")})`
      : "";
  return `looked at ${places.join(" and ")}${also}`;
}
