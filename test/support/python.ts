/** The Python that has the official `mcp` package: ONEX_PYTHON, else the one under .cache/python, which CI makes. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { root } from "./runtime.ts";

const candidates = [process.env["ONEX_PYTHON"], join(root, ".cache/python/bin/python")];

function hasMcp(python: string): boolean {
  return spawnSync(python, ["-c", "import mcp.client.client"], { stdio: "ignore" }).status === 0;
}

/** Absent where none is installed: `npm run test:python` installs it. */
export const python = candidates.find(
  (candidate): candidate is string => candidate !== undefined && existsSync(candidate) && hasMcp(candidate),
);
