/**
 * `onex check`: the configuration and every contract, all problems at once. The report goes to stdout, problems once
 * more to stderr. Opens no port; it imports the modules that tools and handlers name.
 */
import type { LoadedConfig } from "../config/load.ts";
import { ConfigurationProblems } from "../config/problems.ts";
import type { LoadEntry } from "../contract/load.ts";
import type { NodeContract } from "../contract/node.ts";
import { scanNodes } from "../contract/node-scan.ts";
import { messageOf } from "../core/errors.ts";
import { loadModule } from "../execution/modules.ts";
import { httpConfigIssues } from "../handlers/http-config.ts";
import { HandlerHttp } from "../handlers/http.ts";
import { HandlerMCP } from "../handlers/mcp.ts";
import { mcpConfigIssues, parseMcpConfig } from "../handlers/mcp-config.ts";
import { discoverHandlers, failureText } from "../runtime/contracts.ts";
import { hostFileProblems, mcpFileProblems } from "./check-files.ts";
import { discoveryOptions, settingsOf } from "./compose.ts";
import { readConfig } from "./open.ts";
import { claimStdout, print } from "./stdout.ts";

interface Findings {
  readonly lines: string[];
  readonly problems: string[];
}

/** Resolves with the exit code: 1 where anything is wrong. */
export async function check(file: string | undefined): Promise<number> {
  const stdout = claimStdout();
  const findings: Findings = { lines: [], problems: [] };
  const config = await readConfig(file).catch((error: unknown) => {
    if (error instanceof ConfigurationProblems) return error;
    throw error;
  });
  if (config instanceof ConfigurationProblems) {
    findings.problems.push(config.message);
    findings.lines.push("configuration: not valid");
  } else {
    findings.lines.push(`configuration: ${config.file}`);
    findings.problems.push(...hostFileProblems(config.runtime));
  }
  const nodes = await checkHandlers(config, findings);
  await checkNodes(nodes, findings);
  await print(stdout, findings.lines.map((line) => `${line}\n`).join(""));
  for (const problem of findings.problems) process.stderr.write(`onex: ${problem}\n`);
  return findings.problems.length === 0 ? 0 : 1;
}

/** Where tools are looked for, and how: what the mcp handler would be told. */
interface NodesToCheck {
  /** Undefined: the mcp handler serves no contracts. */
  readonly directory: string | undefined;
  readonly env: LoadedConfig["env"];
  readonly exposeNodeTypes: readonly string[];
}

async function checkHandlers(
  config: LoadedConfig | ConfigurationProblems,
  { lines, problems }: Findings,
): Promise<NodesToCheck> {
  const isValid = !(config instanceof ConfigurationProblems);
  const options = isValid
    ? config
    : { ...config.known, runtime: { handlerSource: hybrid, allowedNamespaces: [] } };
  const { report, handlers, failed, skipped } = await discoverHandlers(discoveryOptions(options));
  lines.push("", `handlers: ${report.directory}`, ...report.entries.map(entryLine));
  problems.push(...entryProblems(report.entries));
  const { contractsDir, env } = options;
  const everything = { directory: contractsDir, env, exposeNodeTypes: [] };
  if (!isValid) return everything;
  for (const type of Object.keys(config.handlers)) {
    const isKnown = failed.has(type) || skipped.has(type) || handlers.some((found) => found.type === type);
    if (!isKnown)
      problems.push(`handlers.${type} is configured, but no handler contract declares proto.${type}`);
  }
  for (const http of handlers.filter(({ Class }) => Class === HandlerHttp)) {
    const issues = httpConfigIssues(settingsOf(http, handlers, config));
    problems.push(...issues.map(({ message }) => `handlers.${http.type}: ${message}`));
  }
  const mcp = handlers.find(({ Class }) => Class === HandlerMCP || Class.prototype instanceof HandlerMCP);
  if (mcp === undefined) return { ...everything, directory: undefined };
  const settings = settingsOf(mcp, handlers, config);
  const issues = mcpConfigIssues(settings);
  problems.push(...issues.map(({ message }) => `handlers.${mcp.type}: ${message}`));
  if (issues.length > 0) return everything;
  const parsed = parseMcpConfig(settings);
  problems.push(...mcpFileProblems(parsed).map((problem) => `handlers.${mcp.type}: ${problem}`));
  const { contractsDir: directory, exposeNodeTypes } = parsed;
  return { directory, env, exposeNodeTypes };
}

const hybrid = { mode: "hybrid", allowBootstrapOverride: false } as const;

async function checkNodes(
  { directory, env, exposeNodeTypes }: NodesToCheck,
  { lines, problems }: Findings,
): Promise<void> {
  if (directory === undefined) return;
  try {
    const { root, entries, contracts } = await scanNodes({ directory, env, exposeNodeTypes });
    lines.push("", `tools: ${root}`, ...entries.map(entryLine));
    problems.push(...entryProblems(entries));
    for (const contract of contracts.values()) problems.push(...(await moduleProblems(contract)));
  } catch (error) {
    problems.push(messageOf(error));
  }
}

async function moduleProblems({ toolName, path, execution }: NodeContract): Promise<string[]> {
  if (execution.kind !== "local") return [];
  try {
    const exported = (await loadModule(execution.module))[execution.export];
    if (typeof exported === "function") return [];
    return [`${path}: tool ${toolName}: ${execution.module} has no function ${execution.export}`];
  } catch (error) {
    return [`${path}: tool ${toolName}: ${messageOf(error)}`];
  }
}

function entryLine({ path, outcome, name, reason, informational }: LoadEntry): string {
  const named = name === undefined ? "" : ` (${name})`;
  const why = reason === undefined ? "" : `: ${reason}`;
  const notes =
    informational === undefined ? "" : `\n            for information: ${informational.join("; ")}`;
  return `  ${outcome.padEnd(8)}  ${path}${named}${why}${notes}`;
}

const entryProblems = (entries: readonly LoadEntry[]): string[] =>
  entries
    .filter(({ outcome }) => outcome === "failed")
    .map((entry) => `${entry.path}: ${failureText(entry)}`);
