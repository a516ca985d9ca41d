/**
 * `onex plan`: what a configuration would change in the catalog of a running server. Owns the comparison. Opens no port;
 * contracts, Consul and Kafka are read as the configuration says, and nothing is written.
 */
import { isDeepStrictEqual } from "node:util";
import type { LoadedConfig } from "../config/load.ts";
import { RuntimeHostError } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import type { Gateway } from "../gateway.ts";
import { parseMcpConfig } from "../handlers/mcp-config.ts";
import { httpUrl, isWildcard } from "../http/address.ts";
import { definitionOf } from "../mcp/definition.ts";
import { columns, plain } from "./columns.ts";
import { findMcp, openGateway, readConfig } from "./open.ts";
import { read } from "./request.ts";
import { claimStdout, print } from "./stdout.ts";
import { UsageError } from "./usage.ts";

export interface PlanOptions {
  readonly config?: string;
  /** Of the running server. Default: where the configuration says that it listens. */
  readonly url?: string;
  readonly apiKey?: string;
  readonly json?: boolean;
}

/** A tool as `/mcp/tools` shows it, or would. */
type Shown = Readonly<Record<string, unknown>>;

interface Plan {
  readonly added: readonly { readonly name: string; readonly from: string }[];
  readonly removed: readonly { readonly name: string; readonly reason: string }[];
  /** With the keys that would be others. */
  readonly changed: readonly { readonly name: string; readonly keys: readonly string[] }[];
  readonly unchanged: number;
}

/** Resolves with the exit code. */
export async function plan({ url, apiKey, ...options }: PlanOptions): Promise<number> {
  const stdout = claimStdout();
  const config = await readConfig(options.config);
  const present = await runningTools(url ?? (await serverUrl(config)), apiKey);
  await using open = await openGateway(config, { readOnly: true });
  for (const { name, state, lastError = "it is not read yet", restoredFrom } of open.gateway.sources()) {
    if (state === "ready") continue;
    const lack = restoredFrom === undefined ? "what it would say" : `what it has said since ${restoredFrom}`;
    process.stderr.write(`${plain(`source ${name} is ${state}, the plan lacks ${lack}: ${lastError}`)}\n`);
  }
  const result = compare(present, wouldBe(open.gateway), (name) => open.gateway.explain(name).reason);
  await print(stdout, options.json === true ? `${JSON.stringify(result, null, 2)}\n` : planText(result));
  return 0;
}

/** @throws UsageError where the port is known only to the server itself */
async function serverUrl(config: LoadedConfig): Promise<string> {
  const { host, port } = parseMcpConfig((await findMcp(config)).settings);
  if (port === 0)
    throw new UsageError("The configuration takes any free port: say with --url where the server answers");
  return httpUrl(isWildcard(host) ? "127.0.0.1" : host, port);
}

async function runningTools(url: string, apiKey: string | undefined): Promise<ReadonlyMap<string, Shown>> {
  const { tools } = await read({ url, path: "/mcp/tools", ...(apiKey !== undefined && { apiKey }) });
  if (!Array.isArray(tools)) throw new RuntimeHostError(`${url} is no onex-runtime: it lists no tools`);
  return byName(tools.filter(isObject));
}

function wouldBe(gateway: Gateway): ReadonlyMap<string, Shown> {
  const { tools } = gateway.catalog.snapshot();
  const shown = tools.map((tool) => ({ ...definitionOf(tool), version: tool.version, source: tool.source }));
  // As it would come over the wire: what has no value is left out.
  return byName(JSON.parse(JSON.stringify(shown)) as Shown[]);
}

const byName = (tools: readonly Shown[]): ReadonlyMap<string, Shown> =>
  new Map(tools.map((tool) => [String(tool.name), tool]));

/** What a server says of a tool that no configuration decides. */
const ofTheMoment = new Set(["available", "endpoints", "server_name"]);

/** Pure. */
export function compare(
  present: ReadonlyMap<string, Shown>,
  future: ReadonlyMap<string, Shown>,
  reasonOf: (name: string) => string,
): Plan {
  const changed = [...future].flatMap(([name, tool]) => {
    const before = present.get(name);
    if (before === undefined) return [];
    const keys = [...new Set([...Object.keys(before), ...Object.keys(tool)])]
      .filter((key) => !ofTheMoment.has(key) && !isDeepStrictEqual(before[key], tool[key]))
      .sort();
    return keys.length === 0 ? [] : [{ name, keys }];
  });
  const added = [...future].filter(([name]) => !present.has(name));
  const removed = [...present.keys()].filter((name) => !future.has(name));
  return {
    added: added.map(([name, { source }]) => ({ name, from: String(source) })),
    removed: removed.map((name) => ({ name, reason: reasonOf(name) })),
    changed,
    unchanged: future.size - added.length - changed.length,
  };
}

function planText({ added, removed, changed, unchanged }: Plan): string {
  const rows = [
    ...added.map(({ name, from }) => [`+ ${name}`, `from ${from}`] as const),
    ...removed.map(({ name, reason }) => [`- ${name}`, reason] as const),
    ...changed.map(({ name, keys }) => [`~ ${name}`, `other ${keys.join(", ")}`] as const),
  ];
  const counts = `${added.length} to add, ${removed.length} to remove, ${changed.length} to change, ${unchanged} as they are\n`;
  return `${columns(rows)}${counts}`;
}
