/** `onex tools`: what would be served, and what would not and why; with `--explain` the reasons for one name. */
import { explanationOnWire } from "../admin/explain.ts";
import { nearestKey } from "../core/config-issues.ts";
import { isObject } from "../core/json.ts";
import { definitionOf } from "../mcp/definition.ts";
import { columns, firstSentence } from "./columns.ts";
import { explanationText } from "./explanation.ts";
import { openGateway, readConfig } from "./open.ts";
import { ask } from "./request.ts";
import { claimStdout, print } from "./stdout.ts";

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
  return explain === undefined ? list(options) : explainTool(explain, options);
}

async function list({ config, json }: ToolsOptions): Promise<number> {
  const stdout = claimStdout();
  await using open = await openGateway(await readConfig(config));
  const { tools: served, withheld } = open.gateway.catalog.snapshot();
  if (json === true) {
    await print(stdout, `${JSON.stringify({ tools: served.map(definitionOf) }, null, 2)}\n`);
    return 0;
  }
  const lines = served.map(({ name, description }) => [name, firstSentence(description)] as const);
  await print(stdout, columns(lines));
  for (const { name, owner, reason } of withheld)
    process.stderr.write(`not served: ${name} of ${owner}: ${reason}\n`);
  for (const { name, lastError } of open.gateway.sources())
    if (lastError !== undefined) process.stderr.write(`source ${name}: ${lastError}\n`);
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
  if (explanation === undefined) return 1;
  await print(
    stdout,
    options.json === true ? `${JSON.stringify(explanation, null, 2)}\n` : explanationText(explanation),
  );
  return explanation.served === true ? 0 : 1;
}

async function explainHere(name: string, config: string | undefined): Promise<Record<string, unknown>> {
  await using open = await openGateway(await readConfig(config));
  const { gateway } = open;
  const explanation = gateway.explain(name);
  if (explanation.records.length === 0) {
    const known = [
      ...gateway.catalog.snapshot().byName.keys(),
      ...(gateway.report()?.entries.flatMap((entry) => entry.name ?? []) ?? []),
    ];
    const near = nearestKey(name, known);
    if (near !== undefined) process.stderr.write(`Did you mean ${near}?\n`);
    for (const entry of gateway.report()?.entries ?? []) {
      if (entry.name === name && entry.reason !== undefined)
        process.stderr.write(`${entry.path}: ${entry.outcome}: ${entry.reason}\n`);
    }
  }
  return { ...explanationOnWire(explanation) };
}

async function explainThere(
  name: string,
  url: string,
  apiKey: string | undefined,
): Promise<Record<string, unknown> | undefined> {
  const path = `/mcp/tools/${encodeURIComponent(name)}/explain`;
  const { status, text, body } = await ask({ url, path, ...(apiKey !== undefined && { apiKey }) });
  if (status === 200 && isObject(body)) return body;
  const detail = isObject(body) ? (body.detail ?? body.title) : text.slice(0, 200);
  process.stderr.write(`onex: ${url} answered ${status}: ${String(detail)}\n`);
  return undefined;
}
