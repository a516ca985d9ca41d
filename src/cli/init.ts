/**
 * `onex init`: a tool or a handler that works at once, and the configuration where there is none. Owns: that nothing that
 * exists is changed. Does not own: the texts (`templates.ts`).
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { configPath, environment, processEnv } from "../config/load.ts";
import { RuntimeHostError } from "../core/errors.ts";
import { handlerTemplate, toolTemplate } from "./templates.ts";
import { UsageError } from "./usage.ts";

const packageRoot = fileURLToPath(new URL("../..", import.meta.url));
/** Types of the package's own handlers, whose sections of the configuration are theirs; and what they do. */
const shipped: Readonly<Record<string, string>> = { mcp: "serves the tools", http: "sends HTTP requests" };
const namePattern = /^[A-Za-z][A-Za-z0-9_-]{0,63}$/;

/** Resolves with the exit code. @throws RuntimeHostError where a file is there already; then nothing is written */
export async function init(name: string, isHandler: boolean): Promise<number> {
  if (!namePattern.test(name)) {
    throw new UsageError(
      `"${name}" is no name: 1 to 64 of a-z, A-Z, 0-9, '_' and '-', beginning with a letter`,
    );
  }
  if (isHandler && Object.hasOwn(shipped, name))
    throw new UsageError(`"${name}" is the handler that ${shipped[name] ?? ""}: choose another name`);
  const cwd = process.cwd();
  const env = await environment(cwd, processEnv());
  const contracts = resolve(cwd, env.ONEX_CONTRACTS_DIR || "contracts");
  const template = isHandler ? handlerTemplate(name) : toolTemplate(name);
  const folder = join(contracts, isHandler ? "handlers" : "nodes", name);
  const files = Object.entries(template.files).map(([file, text]) => [join(folder, file), text] as const);
  const existing = files.filter(([path]) => existsSync(path)).map(([path]) => shown(cwd, path));
  if (existing.length > 0) {
    throw new RuntimeHostError(
      `${existing.join(" and ")} ${existing.length > 1 ? "are" : "is"} there already; nothing was written. Choose another name.`,
    );
  }
  const config = join(contracts, configPath);
  if (!existsSync(config)) files.unshift([config, await shippedConfig()]);
  for (const [path, text] of files) {
    await makeFolder(dirname(path));
    // A file that came into being in the meantime is not changed either.
    await writeFile(path, withSchemaLine(text, path, cwd), { flag: "wx" });
  }
  const onex = command(env);
  const next = template.next.map((line) => `  ${onex} ${line}`);
  process.stdout.write(
    ["Wrote", ...files.map(([path]) => `  ${shown(cwd, path)}`), "", "Try it", ...next, ""].join("\n"),
  );
  return 0;
}

/** The folder and those above it. Node's own `recursive` never ends where a folder takes none, as /proc. */
async function makeFolder(path: string): Promise<void> {
  if (existsSync(path)) return;
  await makeFolder(dirname(path));
  await mkdir(path);
}

const shippedConfig = (): Promise<string> => readFile(join(packageRoot, "contracts", configPath), "utf8");

const shown = (cwd: string, path: string): string =>
  path.startsWith(cwd + sep) ? relative(cwd, path) : path;

const schemaLine = /^# yaml-language-server: \$schema=.*\/([\w.]+)\n/;

/** The editor's schema, where the package lies below the folder; a path elsewhere would be this machine's own. */
function withSchemaLine(text: string, path: string, cwd: string): string {
  const [, schema] = schemaLine.exec(text) ?? [];
  if (schema === undefined) return text;
  const installed = [
    join(packageRoot, "schemas", schema),
    join(cwd, "node_modules/onex-runtime/schemas", schema),
  ];
  const found = installed.find((candidate) => candidate.startsWith(cwd + sep) && existsSync(candidate));
  if (found === undefined) return text.replace(schemaLine, "");
  const target = relative(dirname(path), found).split(sep).join("/");
  return text.replace(schemaLine, `# yaml-language-server: $schema=${target}\n`);
}

/** How the person at the keyboard started this. */
function command(env: Readonly<Record<string, string | undefined>>): string {
  return env.npm_command === "exec" || env.npm_command === "run-script" ? "npx onex" : "onex";
}
