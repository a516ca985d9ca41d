/**
 * `onex serve`: the runtime, until a signal. Owns: the order of host and operator port, and the exit code. Does not
 * own: how the host stops, or the operator's routes.
 *
 * The operator port opens first and closes last, so that /ready tells of a start and of a drain.
 */
import type { Writable } from "node:stream";
import { within } from "../core/abort.ts";
import { createLogger, type Logger } from "../core/log.ts";
import { HandlerMCP } from "../handlers/mcp.ts";
import type { HttpServer } from "../http/server.ts";
import type { RuntimeHost } from "../runtime/host.ts";
import { banner } from "./banner.ts";
import { composeHost } from "./compose.ts";
import { watchFailures } from "./failures.ts";
import { readConfig } from "./open.ts";
import { listenForOperators } from "./operator.ts";
import { aborted, takeSignals } from "./signals.ts";
import { claimStdout, print } from "./stdout.ts";

/** For requests under way at the operator port once the host has stopped. */
const operatorCloseMs = 1000;

/** Runs until SIGTERM or SIGINT; resolves with the exit code: 1 where the stop had to be forced. */
export async function serve(file: string | undefined): Promise<number> {
  const stdout = claimStdout();
  using signals = takeSignals();
  const config = await readConfig(file);
  const log = createLogger({ ...config.runtime.logging, secrets: config.secrets });
  using failures = watchFailures(log);
  const host = composeHost(config, log);
  const operators = await listenForOperators(config.runtime.health, host, log);
  const ending = aborted(AbortSignal.any([signals.signal, failures.signal]));
  try {
    const started = await Promise.race([host.start().then(() => true), ending.then(() => false)]);
    if (started) {
      await announce(host, operators, log, stdout);
      await ending;
    }
    const { forced } = await host.stop();
    return forced || failures.signal.aborted ? 1 : 0;
  } finally {
    await closeOperators(operators);
  }
}

async function announce(
  host: RuntimeHost,
  operators: HttpServer | undefined,
  log: Logger,
  stdout: Writable,
): Promise<void> {
  const mcp = host.handler("mcp");
  const { details } = await host.ready();
  const facts = {
    mcp: mcp instanceof HandlerMCP ? mcp.endpoint : undefined,
    tools: mcp instanceof HandlerMCP ? (mcp.gateway?.catalog.snapshot().tools ?? []) : [],
    handlers: Object.keys(details.handlers),
    failed: details.failed_handlers,
    skipped: details.skipped_handlers,
    operators: operators?.url,
  };
  if (process.stdout.isTTY) await print(stdout, banner(facts));
  log.info(
    { mcp: facts.mcp, operators: facts.operators, tools: facts.tools.length, handlers: facts.handlers },
    "onex-runtime is ready",
  );
}

async function closeOperators(operators: HttpServer | undefined): Promise<void> {
  if (operators === undefined) return;
  if ((await within(operators.close(), operatorCloseMs)) !== "timeout") return;
  await operators.destroy(new Error("the runtime has stopped"));
}
