/** `onex tools`: what would be served, and what would not and why; with `--explain` the reasons for one name. */
import { explanationOnWire } from "../admin/explain.ts";
import { nearestKey } from "../core/config-issues.ts";
import type { JsonObject } from "../core/json.ts";
import type { Gateway } from "../gateway.ts";
import { definitionOf } from "../mcp/definition.ts";
import { columns, firstSentence, plain } from "./columns.ts";
import { explanationText } from "./explanation.ts";
import { openGateway, readConfig } from "./open.ts";
import { read } from "./request.ts";
import { claimStdout, print } from "./stdout.ts";
import { UsageError } from "./usage.ts";

export interface ToolsOptions {
  readonly config?: string;
  readonly json?: boolean;
  /** A name, served or not. */
  readonly explain?: string;
  /** A running server to ask about the name. Absent: the tools of the configuration are looked up in this process. */
  readonly url?: string;
  readonly apiKey?: string;
}

/** Resolves with the exit code. */
export async function tools({ explain, ...options }: ToolsOptions): Promise<number> {
  if (explain === undefined && (options.url !== undefined || options.apiKey !== undefined))
    throw new UsageError("--url and --api-key go with --explain: what a server serves is at its /mcp/tools");
  return explain === undefined ? list(options) : explainTool(explain, options);
}

async function list({ config, json }: ToolsOptions): Promise<number> {
  const stdout = claimStdout();
  await using open = await openGateway(await readConfig(config), { readOnly: true });
  const { tools: served, withheld } = open.gateway.catalog.snapshot();
  if (json === true) {
    await print(stdout, `${JSON.stringify({ tools: served.map(definitionOf) }, null, 2)}\n`);
    return 0;
  }
  const lines = served.map(({ name, description }) => [name, firstSentence(description)] as const);
  await print(stdout, columns(lines));
  for (const { name, owner, reason } of withheld)
    process.stderr.write(`${plain(`not served: ${name} of ${owner}: ${reason}`)}\n`);
  tellTroubles(open.gateway);
  if (served.length === 0)
    process.stderr.write("No tools. `onex check` says what became of every contract.\n");
  return 0;
}

/** 1 where the name is not served. */
async function explainTool(name: string, options: ToolsOptions): Promise<number> {
  const stdout = claimStdout();
  const explanation =
    options.url === undefined
      ? await explainHere(name, options.config)
      : await explainThere(name, options.url, options.apiKey);
  await print(
    stdout,
    options.json === true ? `${JSON.stringify(explanation, null, 2)}\n` : explanationText(explanation),
  );
  return explanation.served === true ? 0 : 1;
}

async function explainHere(name: string, config: string | undefined): Promise<Record<string, unknown>> {
  await using open = await openGateway(await readConfig(config), { readOnly: true });
  const { gateway } = open;
  tellTroubles(gateway);
  const explanation = gateway.explain(name);
  if (explanation.records.length + explanation.problems.length === 0) {
    const near = nearestKey(name, [
      ...gateway.catalog.snapshot().byName.keys(),
      ...(gateway.report()?.entries.flatMap(({ name: node, tool = node }) => tool ?? []) ?? []),
    ]);
    if (near !== undefined) process.stderr.write(`Did you mean ${near}?\n`);
  }
  return { ...explanationOnWire(explanation) };
}

function tellTroubles(gateway: Gateway): void {
  for (const { name, lastError } of gateway.sources())
    if (lastError !== undefined) process.stderr.write(`${plain(`source ${name}: ${lastError}`)}\n`);
}

const explainThere = (name: string, url: string, apiKey: string | undefined): Promise<JsonObject> =>
  read({
    url,
    path: `/mcp/tools/${encodeURIComponent(name)}/explain`,
    ...(apiKey !== undefined && { apiKey }),
  });
