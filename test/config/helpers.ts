import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { loadConfig, type LoadedConfig } from "../../src/config/load.ts";
import { ConfigurationProblems } from "../../src/config/problems.ts";

export const configFile = "contracts/runtime/runtime_config.yaml";

/** The four keys that mcp must be given. */
export const mcpKeys = `
    consul_host: localhost
    consul_port: 8500
    kafka_enabled: false
    dev_mode: true`;

/** A folder with these files, removed after the test. */
export async function folder(files: Readonly<Record<string, string>> = {}): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "onex-config-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(path, name)), { recursive: true });
    await writeFile(join(path, name), text);
  }
  return path;
}

/** Loads the text as the folder's configuration. */
export async function load(
  text: string,
  env: Readonly<Record<string, string>> = {},
  files: Readonly<Record<string, string>> = {},
): Promise<LoadedConfig> {
  return loadConfig({ cwd: await folder({ [configFile]: text, ...files }), env });
}

/** The problems of the text, and the error's message. */
export async function problemsOf(
  text: string,
  env: Readonly<Record<string, string>> = {},
  files: Readonly<Record<string, string>> = {},
): Promise<ConfigurationProblems> {
  const outcome = await load(text, env, files).catch((error: unknown) => error);
  if (outcome instanceof ConfigurationProblems) return outcome;
  throw new Error("the configuration was accepted, or failed otherwise", { cause: outcome });
}
