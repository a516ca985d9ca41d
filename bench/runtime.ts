/** The runtime under measurement: `onex serve` on a folder of its own. Does not own: what is in the folder. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeConfig, writeEchoTools } from "./contracts.ts";
import { Child, type Place } from "./processes.ts";

/** Of the checkout: it runs the sources. */
export const sourceLauncher = fileURLToPath(new URL("../bin/onex.js", import.meta.url));

export interface Runtime extends AsyncDisposable {
  readonly child: Child;
  /** The MCP endpoint. */
  readonly url: string;
  /** Tools that it served when it was ready. */
  readonly tools: number;
  /** From the start of the process until it said that it was ready. */
  readonly readyMs: number;
}

export interface ServeOptions {
  /** Called as soon as there is a process. */
  readonly onStart?: (child: Child) => void;
  /** Without what a benchmark loads into its processes: nothing can be asked of it. Default false. */
  readonly bare?: boolean;
  /** Default: the checkout's. */
  readonly launcher?: string;
}

/** @param tools how many it serves: the two that are called, and others */
export async function startRuntime(
  service: string,
  tools: number,
  options: ServeOptions = {},
): Promise<Runtime> {
  const write = async (folder: string): Promise<void> => {
    await writeConfig(folder);
    await writeEchoTools(folder, service, tools);
  };
  const runtime = await serve("gateway", write, options);
  if (runtime.tools === tools) return runtime;
  await runtime[Symbol.asyncDispose]();
  throw new Error(`the runtime serves ${runtime.tools} tools, not ${tools}`);
}

/** @param write puts the configuration, and contracts where there are any, into the folder */
export async function serve(
  place: Place,
  write: (folder: string) => Promise<void>,
  { onStart, bare = false, launcher = sourceLauncher }: ServeOptions = {},
): Promise<Runtime> {
  const folder = await mkdtemp(join(tmpdir(), "onex-bench-"));
  await write(folder);
  const startedAt = performance.now();
  const child = new Child(place, [launcher, "serve"], { env: { ONEX_CONTRACTS_DIR: folder }, bare });
  onStart?.(child);
  const dispose = async (): Promise<void> => {
    await child[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  };
  try {
    const { url, tools } = await child.line((line) => {
      if (!line.startsWith("{")) return undefined;
      const { msg, mcp, tools } = JSON.parse(line) as { msg: string; mcp: string; tools: number };
      return msg === "onex-runtime is ready" ? { url: mcp, tools } : undefined;
    });
    return { child, url, tools, readyMs: performance.now() - startedAt, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}
