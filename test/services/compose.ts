/** The services of docker-compose.yml as containers of this run, on free ports, gone when this process is. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { freePorts } from "./ports.ts";
import type { Progress } from "./programs.ts";

const file = fileURLToPath(new URL("../../docker-compose.yml", import.meta.url));

/** The variables by which docker-compose.yml lets its published ports be chosen. */
const portVariables = { consul: "CONSUL_PUBLISHED_PORT", kafka: "KAFKA_PUBLISHED_PORT" } as const;

/** Starts one service and waits until its health check passes; the first time its image is pulled. */
export async function composeService(
  service: keyof typeof portVariables,
  progress: Progress,
): Promise<{ readonly address: string; readonly stop: () => Promise<void> }> {
  const [port] = (await freePorts(1)) as [number];
  const env = { ...process.env, [portVariables[service]]: String(port) };
  const project = ["compose", "--project-name", `onex-test-${service}-${process.pid}`, "--file", file];
  // Its stdin ends with this process, however that ends; a group of its own keeps Ctrl-C from it.
  const down = spawn(
    "/bin/sh",
    ["-c", 'cat >/dev/null; exec docker "$@"', "down", ...project, "down", "--volumes", "--timeout", "1"],
    { detached: true, stdio: ["pipe", "ignore", "ignore"], env },
  );
  const stop = async (): Promise<void> => {
    const gone = once(down, "exit");
    down.stdin.end();
    await gone;
  };
  progress("docker compose up --wait; the first time its image is pulled");
  try {
    await promisify(execFile)("docker", [...project, "up", "--detach", "--wait", service], { env });
  } catch (error) {
    await stop();
    throw error;
  }
  return { address: `127.0.0.1:${port}`, stop };
}
