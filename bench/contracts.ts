/**
 * What the runtime under measurement serves: its configuration, and contracts of tools that echo a text. As shipped but
 * for what is said here: keys of callers, since authentication belongs to what is measured, a free port, and a limit of tools
 * that fits.
 */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

/** What every client sends. Known to nobody else: it opens a runtime on loopback for the time of one run. */
export const apiKey = "the-key-of-the-benchmark";

/** JSON is YAML. */
async function write(path: string, content: object): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, JSON.stringify(content));
}

export async function writeConfig(folder: string): Promise<void> {
  await write(join(folder, "runtime/runtime_config.yaml"), {
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
        max_tools: 100_000,
        api_keys: [
          { name: "others", key: "a-key-that-nobody-uses", role: "admin" },
          { name: "bench", key: apiKey },
        ],
      },
    },
  });
}

const fileOf = (folder: string, name: string): string => join(folder, "nodes", name, "contract.yaml");

/** A tool that takes `text`, and says that it only reads. */
export function writeTool(folder: string, name: string, execution: object): Promise<void> {
  return write(fileOf(folder, name), {
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

export const removeTool = (folder: string, name: string): Promise<void> =>
  rm(dirname(fileOf(folder, name)), { recursive: true });

/** At the service of `backend.ts`. */
export const restEcho = (service: string): object => ({
  kind: "rest",
  method: "POST",
  url: `${service}/rest`,
});
export const onexEcho = (...services: string[]): object => ({
  kind: "onex",
  endpoints: services,
  path: "/onex",
});

/** Files written at once. */
const writers = 32;

/** `echo_rest`, `echo_onex`, and as many others as are missing. */
export async function writeEchoTools(folder: string, service: string, tools: number): Promise<void> {
  const names = Array.from(
    { length: tools - 2 },
    (_, at) => `tool_${String(at + 2).padStart(5, "0")}`,
  ).values();
  await writeTool(folder, "echo_rest", restEcho(service));
  await writeTool(folder, "echo_onex", onexEcho(service));
  const writeAll = async (): Promise<void> => {
    for (const name of names) await writeTool(folder, name, restEcho(service));
  };
  await Promise.all(Array.from({ length: writers }, writeAll));
}
