/** The runtime under measurement: `onex serve` on a folder of its own, with the tools that the benchmark calls. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Child } from "./processes.ts";

const launcher = fileURLToPath(new URL("../bin/onex.js", import.meta.url));

export interface Runtime extends AsyncDisposable {
  readonly child: Child;
  /** The MCP endpoint. */
  readonly url: string;
  /** Tools that it served when it was ready. */
  readonly tools: number;
  /** From the start of the process until it said that it was ready. */
  readonly readyMs: number;
}

/** @param tools how many it serves: the two that are called, and others to fill the list */
export async function startRuntime(service: string, tools: number): Promise<Runtime> {
  return serve("gateway", (folder) => writeContracts(folder, service, tools));
}

/**
 * @param write puts the configuration, and contracts where there are any, into the folder
 * @param onStart called as soon as there is a process
 */
export async function serve(
  place: "gateway" | "anywhere",
  write: (folder: string) => Promise<void>,
  onStart?: (child: Child) => void,
): Promise<Runtime> {
  const folder = await mkdtemp(join(tmpdir(), "onex-bench-"));
  await write(folder);
  const startedAt = performance.now();
  const child = new Child(place, [launcher, "serve"], { ONEX_CONTRACTS_DIR: folder });
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

async function writeContracts(folder: string, service: string, tools: number): Promise<void> {
  const write = async (path: string, content: object): Promise<void> => {
    await mkdir(join(folder, path, ".."), { recursive: true });
    // JSON is YAML.
    await writeFile(join(folder, path), JSON.stringify(content));
  };
  await write("runtime/runtime_config.yaml", {
    name: "bench",
    logging: { level: "info", format: "json" },
    health: { port: false },
    handlers: {
      mcp: {
        consul_host: "localhost",
        consul_port: 8500,
        kafka_enabled: false,
        dev_mode: true,
        port: 0,
        contracts_dir: folder,
        // The whole list on one page.
        page_size: 1000,
        max_tools: 1000,
      },
    },
  });
  const executions: Record<string, object> = {
    echo_rest: { kind: "rest", method: "POST", url: `${service}/rest` },
    echo_onex: { kind: "onex", endpoints: [service], path: "/onex" },
  };
  for (let index = 2; index < tools; index++)
    executions[`tool_${String(index).padStart(4, "0")}`] = executions["echo_rest"] ?? {};
  for (const [name, execution] of Object.entries(executions)) {
    await write(`nodes/${name}/contract.yaml`, {
      name,
      node_type: "ORCHESTRATOR",
      description: "Echoes a text.",
      mcp: {
        expose: true,
        annotations: { read_only: true },
        input_schema: {
          type: "object",
          properties: { text: { type: "string", maxLength: 1000 } },
          required: ["text"],
          additionalProperties: false,
        },
        execution,
      },
    });
  }
}
