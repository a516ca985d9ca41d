/** `onex stdio`: MCP over stdin and stdout, until the client closes its end or a signal comes. */
import { serveOverStdio } from "../mcp/stdio.ts";
import { watchFailures } from "./failures.ts";
import { openGateway, readConfig } from "./open.ts";
import { aborted, takeSignals } from "./signals.ts";
import { claimStdout } from "./stdout.ts";

/** Resolves with the exit code. */
export async function stdio(file: string | undefined): Promise<number> {
  const stdout = claimStdout();
  using signals = takeSignals();
  await using open = await openGateway(await readConfig(file));
  using failures = watchFailures(open.log);
  const connection = serveOverStdio({ ...open.gateway.serverDeps(), stdin: process.stdin, stdout });
  await Promise.race([connection.closed, aborted(AbortSignal.any([signals.signal, failures.signal]))]);
  await connection.close();
  return failures.signal.aborted ? 1 : 0;
}
