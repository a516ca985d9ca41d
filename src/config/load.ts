/**
 * Finding, reading and checking the configuration. Owns: which file it is, `.env`, what the environment lays over the
 * file, and the list of every problem. The only file that reads `process.env`. Does not own: the keys (`schema.ts`).
 *
 * 1. Every problem of the whole configuration is reported at once.
 * 2. A value is read as the type its key wants, where it came from a variable (`document.ts`, 1).
 * 3. The environment wins over `.env`, and both win over the file where a key has a variable of its own.
 */
import { readFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { parse as parseDotenv } from "dotenv";
import { pathText, valueAt, wrongType, type ConfigIssue, type ConfigPath } from "../core/config-issues.ts";
import { messageOf, ProtocolConfigurationError } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { redact, redactText } from "../core/redact.ts";
import type { Environment } from "../runtime/settings.ts";
import { pathKey, readDocument, type ConfigDocument, type Position } from "./document.ts";
import { environmentOverrides, withOverrides, withValue, type Override } from "./environment.ts";
import { ConfigurationProblems, type ConfigProblem } from "./problems.ts";
import {
  handlerSection,
  resolveRuntimeConfig,
  runtimeConfigIssues,
  type HandlerSection,
  type RuntimeConfig,
} from "./schema.ts";

export interface LoadOptions {
  /** Of the configuration; wins over `ONEX_CONFIG`. */
  readonly file?: string;
  /** What relative paths start from, and where `.env` is looked for. */
  readonly cwd: string;
  readonly env: Environment;
}

export interface LoadedConfig {
  /** Absolute. */
  readonly file: string;
  /** Absolute. The folder that is scanned for handler contracts. */
  readonly contractsDir: string;
  readonly runtime: RuntimeConfig;
  /** By type, in the file's order; with what the environment lays over them. */
  readonly handlers: Readonly<Record<string, HandlerSection>>;
  /** The environment over `.env`. */
  readonly env: Environment;
  /** Values that must not be shown, whatever their key. */
  readonly secrets: ReadonlySet<string>;
}

/** The process's environment as it is now. */
export const processEnv = (): Environment => ({ ...process.env });

/**
 * The configuration, checked.
 *
 * @throws ConfigurationProblems with every problem of the file's content
 * @throws ProtocolConfigurationError where there is no file; it names where it was looked for and the remedy
 */
export async function loadConfig(options: LoadOptions): Promise<LoadedConfig> {
  const env = await environment(options.cwd, options.env);
  const { file, contractsDir } = await findConfig(options, env);
  const text = await readConfigFile(file);
  // The file can say `${ONEX_CONTRACTS_DIR}` wherever it lies and whatever the variable's own form is.
  const document = readDocument(text, {
    env: { ...env, ONEX_CONTRACTS_DIR: contractsDir },
    readSecretFile: (path) => readFileSync(resolve(options.cwd, path), "utf8"),
  });
  const types = Object.keys(objectAt(document.value, ["handlers"]));
  const overrides = environmentOverrides(env, types);
  const judged = judge(document, overrides);
  const problems = problemsOf({ file, document, overrides, ...judged });
  if (problems.length > 0) throw new ConfigurationProblems(problems, { cwd: options.cwd, contractsDir, env });
  return loaded({
    file,
    contractsDir,
    env,
    value: judged.value,
    secrets: document.secrets,
    cwd: options.cwd,
  });
}

/** `env` over the `.env` file in `cwd`. */
export async function environment(cwd: string, env: Environment): Promise<Environment> {
  return { ...(await readDotenv(cwd)), ...env };
}

async function readDotenv(cwd: string): Promise<Record<string, string>> {
  const path = join(cwd, ".env");
  try {
    return parseDotenv(await readFile(path));
  } catch (error) {
    if (hasCode(error, "ENOENT")) return {};
    throw new ProtocolConfigurationError(`${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** Where `runtime_config.yaml` lies in a contracts directory. */
export const configPath = join("runtime", "runtime_config.yaml");

async function findConfig(
  { file, cwd }: LoadOptions,
  env: Environment,
): Promise<{ file: string; contractsDir: string }> {
  const named = file ?? given(env.ONEX_CONFIG);
  const directory = given(env.ONEX_CONTRACTS_DIR);
  if (named !== undefined) {
    const path = resolve(cwd, named);
    const kind = await kindOf(path);
    if (kind !== "file") {
      const from = file === undefined ? "ONEX_CONFIG" : "--config";
      const problem =
        kind === "none"
          ? `There is no configuration file ${path}`
          : `${path} is a folder, not a configuration file`;
      throw new ProtocolConfigurationError(`${problem} (given by ${from}).`);
    }
    return { file: path, contractsDir: resolve(cwd, directory ?? contractsDirOf(path)) };
  }
  const contractsDir = resolve(cwd, directory ?? "contracts");
  const path = join(contractsDir, configPath);
  if ((await kindOf(path)) === "file") return { file: path, contractsDir };
  throw new ProtocolConfigurationError(
    (await kindOf(contractsDir)) === "directory"
      ? `The contracts directory ${contractsDir} has no ${configPath}. Run \`onex init\` to write one, or name another file with --config.`
      : `There is no contracts directory ${contractsDir}. Run \`onex init\` to make one with a working tool, or name a configuration file with --config.`,
  );
}

/** A file in `<directory>/runtime` belongs to that directory; any other to `./contracts`. */
const contractsDirOf = (file: string): string =>
  basename(dirname(file)) === "runtime" ? dirname(dirname(file)) : "contracts";

const given = (value: string | undefined): string | undefined => (value === "" ? undefined : value);

async function kindOf(path: string): Promise<"file" | "directory" | "none"> {
  try {
    return (await stat(path)).isDirectory() ? "directory" : "file";
  } catch (error) {
    // What is there but cannot be reached counts as a file: reading it says why.
    return hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR") ? "none" : "file";
  }
}

const hasCode = (error: unknown, code: string): boolean =>
  error instanceof Error && "code" in error && error.code === code;

async function readConfigFile(file: string): Promise<string> {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(file));
  } catch (error) {
    throw new ProtocolConfigurationError(
      `The configuration file ${file} cannot be read: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
}

interface Judged {
  readonly value: unknown;
  readonly issues: readonly ConfigIssue[];
}

/** The document with overrides and the issues that remain once every value is read in the way that fits. (2) */
function judge(document: ConfigDocument, overrides: readonly Override[]): Judged {
  if (document.issues.length > 0 && document.value === undefined) return { value: undefined, issues: [] };
  const root = document.value ?? {};
  if (!isObject(root)) return { value: root, issues: [wrongType([], "object", root)] };
  const others = new Map(document.alternatives);
  for (const { path, readings } of overrides) others.set(pathKey(path), readings.slice(1));
  let value = withOverrides(root, overrides);
  let issues = runtimeConfigIssues(value);
  for (const { path } of issues) {
    const key = pathKey(path);
    for (const reading of others.get(key) ?? []) {
      const candidate = withValue(value, path, reading);
      const remaining = runtimeConfigIssues(candidate);
      if (remaining.some((issue) => pathKey(issue.path) === key)) continue;
      value = candidate;
      issues = remaining;
      break;
    }
  }
  return { value, issues };
}

interface Findings extends Judged {
  readonly file: string;
  readonly document: ConfigDocument;
  readonly overrides: readonly Override[];
}

function problemsOf(findings: Findings): ConfigProblem[] {
  const { file, document, overrides, value, issues } = findings;
  const secrets = [...document.secrets];
  const place = (path: ConfigPath): { file: string } & Partial<Position> => {
    const override = overrides.find((candidate) =>
      candidate.path.every((part, index) => part === path[index]),
    );
    if (override !== undefined) return { file: `environment variable ${override.name}` };
    return { file, ...document.position(path) };
  };
  const toProblem = (issue: ConfigIssue, where: { file: string } & Partial<Position>): ConfigProblem => {
    const found = redact(valueAt(value, issue.path), secrets, issue.path);
    return {
      ...where,
      path: pathText(issue.path),
      ...(found === undefined || found === null || isObject(found) ? {} : { value: JSON.stringify(found) }),
      message: redactText(issue.message, secrets),
      ...(issue.nearest === undefined ? {} : { nearest: issue.nearest }),
    };
  };
  // What follows from a value that could not be read is no problem of its own.
  const unread = document.issues.map((issue) => issue.path);
  const follows = ({ path }: ConfigIssue): boolean =>
    unread.some((other) => path.length > 0 && path.every((part, index) => part === other[index]));
  const fromContent = [
    ...document.issues.map((issue) => toProblem(issue, { ...place(issue.path), ...issue.position })),
    ...issues.filter((issue) => !follows(issue)).map((issue) => toProblem(issue, place(issue.path))),
  ];
  return fromContent.sort((a, b) => (a.line ?? Infinity) - (b.line ?? Infinity));
}

function loaded(found: {
  readonly file: string;
  readonly contractsDir: string;
  readonly env: Environment;
  readonly value: unknown;
  readonly secrets: ReadonlySet<string>;
  readonly cwd: string;
}): LoadedConfig {
  const own = valueAt(found.value, ["contracts_dir"]);
  const sections = Object.entries(objectAt(found.value, ["handlers"])).map(
    ([type, section]) => [type, handlerSection(section)] as const,
  );
  return Object.freeze({
    file: found.file,
    contractsDir: typeof own === "string" ? resolve(found.cwd, own) : found.contractsDir,
    runtime: resolveRuntimeConfig(found.value),
    handlers: Object.freeze(Object.fromEntries(sections)),
    env: Object.freeze(found.env),
    secrets: found.secrets,
  });
}

const objectAt = (value: unknown, path: ConfigPath): Record<string, unknown> => {
  const found = valueAt(value, path);
  return isObject(found) ? found : {};
};
