/** Runs the real command line in folders of its own. Everything it starts ends with the test. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";

export const root = join(import.meta.dirname, "../..");
export const launcher = join(root, "bin/onex.js");

/** A folder with these files, removed after the test. */
export async function folder(files: Readonly<Record<string, string>> = {}): Promise<string> {
  const path = await realpath(await mkdtemp(join(tmpdir(), "onex-cli-")));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(path, name)), { recursive: true });
    await writeFile(join(path, name), text);
  }
  return path;
}

/** Ports that cannot collide, and nothing of the developer's own settings. */
const settings = { ONEX_HTTP_PORT: "0", ONEX_MCP_PORT: "0", NO_COLOR: "1" };

function environment(extra: Readonly<Record<string, string>>): Record<string, string> {
  const { PATH = "", HOME = "" } = process.env;
  return { PATH, HOME, ...settings, ...extra };
}

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Outcome>;
  /** Resolves with the match once what was printed so far matches; rejects if the process ends first. */
  readonly printed: (stream: "stdout" | "stderr", pattern: RegExp) => Promise<RegExpExecArray>;
}

/** Starts `onex` with these arguments; killed after the test if it still runs. */
export function start(
  cwd: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  launch: readonly string[] = [launcher],
): Running {
  const child = spawn(process.execPath, [...launch, ...args], { cwd, env: environment(env), stdio: "pipe" });
  const text = { stdout: "", stderr: "" };
  const watchers = new Set<() => void>();
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (chunk: string) => {
      text[name] += chunk;
      for (const look of watchers) look();
    });
  }
  const ended = new Promise<Outcome>((resolve) => {
    child.once("close", (code) => resolve({ code, ...text }));
  });
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  return {
    child,
    ended,
    printed: (stream, pattern) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const match = pattern.exec(text[stream]);
          if (match === null) return;
          watchers.delete(look);
          resolve(match);
        };
        watchers.add(look);
        look();
        void ended.then(() => reject(new Error(`it ended first:\n${text.stdout}\n${text.stderr}`)));
      }),
  };
}

/** Runs `onex` to its end. */
export const run = (
  cwd: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Outcome> => start(cwd, args, env).ended;

/** Starts `onex serve` and waits until it is ready. */
export async function serve(
  cwd: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Running & { readonly operators: string; readonly mcp: string }> {
  const running = start(cwd, ["serve"], env);
  const [line] = await running.printed("stderr", /^.*onex-runtime is ready.*$/m);
  const { operators, mcp } = JSON.parse(line) as { operators: string; mcp: string };
  return { ...running, operators, mcp };
}
