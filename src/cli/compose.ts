/** The runtime host, made from a loaded configuration. Owns: which bus, which handlers ship with the package. */
import { fileURLToPath } from "node:url";
import { MemoryBus } from "../bus/memory.ts";
import type { LoadedConfig } from "../config/load.ts";
import type { Logger } from "../core/log.ts";
import { version } from "../core/version.ts";
import { loadModule } from "../execution/modules.ts";
import { HandlerMCP } from "../handlers/mcp.ts";
import type { BootstrapHandler } from "../runtime/contracts.ts";
import { RuntimeHost } from "../runtime/host.ts";

/** Shipped contracts lie beside the package's code, wherever the working directory is. */
const bootstrap: readonly BootstrapHandler[] = [
  {
    handlerClass: "onex-runtime#HandlerMCP",
    contractFile: fileURLToPath(
      new URL("../../contracts/handlers/mcp/handler_contract.yaml", import.meta.url),
    ),
    load: async () => HandlerMCP,
  },
];

/** A host that is not started. */
export function composeHost(config: LoadedConfig, log: Logger): RuntimeHost {
  const { runtime } = config;
  return new RuntimeHost({
    ...runtime,
    version,
    bus: new MemoryBus({ maxHistory: runtime.eventBus.maxHistory, concurrency: runtime.maxConcurrency, log }),
    handlers: config.handlers,
    contractsDir: config.contractsDir,
    bootstrap,
    env: config.env,
    log,
    importModule: loadModule,
  });
}
