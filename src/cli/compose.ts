/** The runtime host, made from a loaded configuration. Owns: which bus, which handlers ship with the package. */
import { fileURLToPath } from "node:url";
import { KafkaBus } from "../bus/kafka.ts";
import { MemoryBus } from "../bus/memory.ts";
import type { LoadedConfig } from "../config/load.ts";
import type { Logger } from "../core/log.ts";
import { version } from "../core/version.ts";
import { loadModule } from "../execution/modules.ts";
import { HandlerHttp } from "../handlers/http.ts";
import { HandlerMCP } from "../handlers/mcp.ts";
import type { BootstrapHandler, DiscoveryOptions, FoundHandler } from "../runtime/contracts.ts";
import type { HandlerConfig } from "../runtime/handler.ts";
import { RuntimeHost } from "../runtime/host.ts";
import { handlerConfig } from "../runtime/settings.ts";
import { consulContracts } from "./remote-contracts.ts";

/** Shipped contracts lie beside the package's code, wherever the working directory is. */
const contractFile = (type: string): string =>
  fileURLToPath(new URL(`../../contracts/handlers/${type}/handler_contract.yaml`, import.meta.url));

const bootstrap: readonly BootstrapHandler[] = [
  {
    handlerClass: "onex-runtime#HandlerMCP",
    contractFile: contractFile("mcp"),
    load: async () => HandlerMCP,
  },
  {
    handlerClass: "onex-runtime#HandlerHttp",
    contractFile: contractFile("http"),
    load: async () => HandlerHttp,
  },
];

/** Where the configuration's handlers are looked for. */
export const discoveryOptions = (
  config: Pick<LoadedConfig, "contractsDir" | "env"> & {
    readonly runtime: Pick<LoadedConfig["runtime"], "handlerSource" | "allowedNamespaces" | "consul">;
  },
): DiscoveryOptions => ({
  contractsDir: config.contractsDir,
  handlerSource: config.runtime.handlerSource,
  allowedNamespaces: config.runtime.allowedNamespaces,
  bootstrap,
  ...(config.runtime.consul !== undefined && { remote: consulContracts(config.runtime.consul) }),
  env: config.env,
  importModule: loadModule,
});

/** What one of the handlers that were found is given to initialize it, as the host gives it. */
export function settingsOf(
  { type, contract }: FoundHandler,
  found: readonly FoundHandler[],
  { handlers, env }: LoadedConfig,
): HandlerConfig {
  const types = found.map((other) => other.type);
  return handlerConfig(type, types, contract.configDefaults, handlers[type]?.config, env);
}

/**
 * Messages that the bus hands out at once. How many envelopes run is the host's to bound, by `max_concurrency`; were the
 * bus to bound them too, those that queue for one serialized handler would hold up everybody else's.
 */
const busConcurrency = 10_000;

/** The bus that the configuration names, not started. */
export function composeBus({ runtime }: LoadedConfig, log: Logger): MemoryBus | KafkaBus {
  const { name: source, eventBus } = runtime;
  const common = { source, concurrency: busConcurrency, log };
  return eventBus.type === "kafka"
    ? new KafkaBus({ ...eventBus, ...common })
    : new MemoryBus({ ...eventBus, ...common });
}

/** A host that is not started. */
export function composeHost(config: LoadedConfig, log: Logger): RuntimeHost {
  return new RuntimeHost({
    ...config.runtime,
    ...discoveryOptions(config),
    version,
    bus: composeBus(config, log),
    handlers: config.handlers,
    log,
  });
}
