/** A runtime started as a user starts it: `onex serve`, on free ports, as a process of its own. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../../", import.meta.url));
export const launcher = `${root}bin/onex.js`;

export interface Runtime extends AsyncDisposable {
  readonly process: ChildProcess;
  /** The MCP endpoint. */
  readonly mcp: URL;
  /** The host's operator port. */
  readonly operators: URL;
  /** Log lines so far. */
  readonly log: readonly Record<string, unknown>[];
  /** Resolves with the exit code and signal. */
  readonly exit: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  /** SIGTERM, then waits for the exit. */
  stop(): Promise<number | null>;
}

export interface StartOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly args?: readonly string[];
}

/** Starts `onex serve`; resolves once it says that it is ready, rejects with its output when it exits first. */
export async function startRuntime(options: StartOptions = {}): Promise<Runtime> {
  const child = spawn(process.execPath, [launcher, "serve", ...(options.args ?? [])], {
    cwd: options.cwd ?? root,
    env: { ...process.env, ONEX_MCP_PORT: "0", ONEX_HTTP_PORT: "0", ONEX_LOG_FORMAT: "json", ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exit = once(child, "exit").then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as NodeJS.Signals | null,
  }));
  const log: Record<string, unknown>[] = [];
  const text: string[] = [];
  const ready = new Promise<Record<string, unknown>>((resolve, reject) => {
    createInterface({ input: child.stderr }).on("line", (line) => {
      text.push(line);
      if (!line.startsWith("{")) return;
      const entry = JSON.parse(line) as Record<string, unknown>;
      log.push(entry);
      if (entry["msg"] === "onex-runtime is ready") resolve(entry);
    });
    exit.then(({ code }) => reject(new Error(`exit ${code}\n${text.join("\n")}`)), reject);
  });
  child.stdout.resume();
  const entry = await ready;
  const stop = async (): Promise<number | null> => {
    if (child.exitCode === null) child.kill("SIGTERM");
    return (await exit).code;
  };
  return {
    process: child,
    mcp: new URL(String(entry["mcp"])),
    operators: new URL(String(entry["operators"])),
    log,
    exit,
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop();
    },
  };
}
