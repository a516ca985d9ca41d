/** `onex tools`: what would be served, and what would not and why. */
import { definitionOf } from "../mcp/definition.ts";
import { columns, firstSentence } from "./columns.ts";
import { openGateway, readConfig } from "./open.ts";
import { claimStdout, print } from "./stdout.ts";

/** Resolves with the exit code. */
export async function tools(file: string | undefined, json: boolean): Promise<number> {
  const stdout = claimStdout();
  await using open = await openGateway(await readConfig(file));
  const { tools: served, withheld } = open.gateway.catalog.snapshot();
  if (json) {
    await print(stdout, `${JSON.stringify({ tools: served.map(definitionOf) }, null, 2)}\n`);
    return 0;
  }
  const lines = served.map(({ name, description }) => [name, firstSentence(description)] as const);
  await print(stdout, columns(lines));
  for (const { name, owner, reason } of withheld)
    process.stderr.write(`not served: ${name} of ${owner}: ${reason}\n`);
  if (served.length === 0)
    process.stderr.write("No tools. `onex check` says what became of every contract.\n");
  return 0;
}
