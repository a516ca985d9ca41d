/** `onex serve`: the runtime, until a signal. */
import { loadConfig, processEnv } from "../config/load.ts";
import { createLogger } from "../core/log.ts";
import { HandlerMCP } from "../handlers/mcp.ts";
import { composeHost } from "./compose.ts";
import { listenForOperators } from "./operator.ts";

/** Runs until SIGTERM or SIGINT; resolves with the exit code. */
export async function serve(file: string | undefined): Promise<number> {
  const config = await loadConfig({
    cwd: process.cwd(),
    env: processEnv(),
    ...(file !== undefined && { file }),
  });
  const log = createLogger(config.runtime.logging);
  const host = composeHost(config, log);
  await host.start();
  const operators = await listenForOperators(config.runtime.health, host, log);
  const mcp = host.handler("mcp");
  log.info(
    { mcp: mcp instanceof HandlerMCP ? mcp.endpoint : undefined, operators: operators?.url },
    "onex-runtime is ready",
  );
  await new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve());
    process.once("SIGINT", () => resolve());
  });
  const { forced } = await host.stop();
  await operators?.close();
  return forced ? 1 : 0;
}
