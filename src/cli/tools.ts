/** `onex tools`: what would be served, and what would not and why. */
import { randomUUID } from "node:crypto";
import { columns, firstSentence } from "./columns.ts";
import { openGateway, readConfig } from "./open.ts";
import { claimStdout, print } from "./stdout.ts";

/** Resolves with the exit code. */
export async function tools(file: string | undefined, json: boolean): Promise<number> {
  const stdout = claimStdout();
  await using open = await openGateway(await readConfig(file));
  if (json) {
    const envelope = { operation: "mcp.list_tools", payload: {}, headers: {}, metadata: {} };
    const ids = { correlation_id: randomUUID(), envelope_id: randomUUID() };
    const listed = await open.handler.execute(
      { ...envelope, ...ids },
      { signal: new AbortController().signal },
    );
    await print(stdout, `${JSON.stringify(listed, null, 2)}\n`);
    return 0;
  }
  const { tools: served, withheld } = open.gateway.catalog.snapshot();
  const lines = served.map(({ name, description }) => [name, firstSentence(description)] as const);
  await print(stdout, columns(lines));
  for (const { name, owner, reason } of withheld)
    process.stderr.write(`not served: ${name} of ${owner}: ${reason}\n`);
  if (served.length === 0)
    process.stderr.write("No tools. `onex check` says what became of every contract.\n");
  return 0;
}
