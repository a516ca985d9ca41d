/**
 * The configuration and the MCP handler without its server, for commands that look at tools or call them. Owns: that
 * no port is opened, and another handler started only where a tool of it is called. Consul and Kafka are read as the
 * configuration says.
 */
import { loadConfig, processEnv, type LoadedConfig } from "../config/load.ts";
import { RuntimeHostError } from "../core/errors.ts";
import { createLogger, type Logger } from "../core/log.ts";
import { HandlerMCP } from "../handlers/mcp.ts";
import type { Gateway } from "../gateway.ts";
import { discoverHandlers, type FoundHandler } from "../runtime/contracts.ts";
import type { HandlerConfig } from "../runtime/handler.ts";
import { constructHandler } from "../runtime/loader.ts";
import { composeBus, discoveryOptions, settingsOf } from "./compose.ts";
import { LazyHandlers } from "./lazy-handlers.ts";

/** The configuration as the command line names it. */
export function readConfig(file: string | undefined): Promise<LoadedConfig> {
  return loadConfig({ cwd: process.cwd(), env: processEnv(), ...(file !== undefined && { file }) });
}

export interface OpenGateway extends AsyncDisposable {
  readonly gateway: Gateway;
  readonly log: Logger;
}

/** The handler of type mcp, among all that the configuration has, and what it is initialized with. */
export interface FoundMcp {
  readonly found: FoundHandler;
  readonly handlers: readonly FoundHandler[];
  readonly settings: HandlerConfig;
}

/** @throws RuntimeHostError where the configuration has no usable handler of type mcp */
export async function findMcp(config: LoadedConfig): Promise<FoundMcp> {
  const { handlers, failed } = await discoverHandlers(discoveryOptions(config));
  const found = handlers.find(({ type }) => type === "mcp");
  if (found !== undefined) return { found, handlers, settings: settingsOf(found, handlers, config) };
  const reason =
    failed.get("mcp")?.reason ?? "handler_source leaves out the shipped one and no contract declares it";
  throw new RuntimeHostError(`There is no handler of type mcp: ${reason}`);
}

/**
 * The tools of a configuration, ready to be called. Dispose it when done.
 *
 * @param options readOnly: following the sources writes nothing, in files or on Kafka. Default false
 * @throws RuntimeHostError where the configuration has no usable handler of type mcp
 */
export async function openGateway(
  config: LoadedConfig,
  options: { readonly readOnly?: boolean } = {},
): Promise<OpenGateway> {
  const log = createLogger({ ...quieter(config.runtime.logging), secrets: config.secrets });
  const { found, handlers, settings } = await findMcp(config);
  const bus = composeBus(config, log);
  const others = new LazyHandlers(handlers, config, bus, log);
  const container = { bus, log, env: config.env, tools: others.tools, listen: false, ...options };
  const handler = constructHandler(found.Class, found.contract.handlerClass, container);
  if (!(handler instanceof HandlerMCP)) {
    throw new RuntimeHostError(
      `The handler of type mcp is ${found.contract.handlerClass}, which is not HandlerMCP: its tools can only be reached through onex serve`,
    );
  }
  try {
    await bus.start();
    await handler.initialize(settings);
    others.serve();
  } catch (error) {
    await handler.shutdown();
    await bus.close();
    throw error;
  }
  const { gateway } = handler;
  if (gateway === undefined) throw new RuntimeHostError("HandlerMCP stopped while it started");
  const close = async (): Promise<void> => {
    await handler.shutdown();
    await others.close();
    await bus.close();
  };
  return { gateway, log, [Symbol.asyncDispose]: close };
}

/** A command that prints a result has no use for the lines of an orderly start. */
function quieter(logging: LoadedConfig["runtime"]["logging"]): LoadedConfig["runtime"]["logging"] {
  return logging.level === "info" ? { ...logging, level: "warn" } : logging;
}
