/** The official conformance suite, and the runtime with the tools that it expects. One run covers one set of requirements. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, startRuntime } from "../support/runtime.ts";

const suite = join(root, "node_modules/@modelcontextprotocol/conformance/dist/index.js");
const contracts = join(import.meta.dirname, "contracts");
export const expectedFailuresFile = join(import.meta.dirname, "expected-failures.yaml");

/** A revision whose requirements the suite knows. */
export type Revision = "2025-11-25" | "2026-07-28";

export interface Check {
  readonly id: string;
  readonly status: "SUCCESS" | "FAILURE" | "WARNING" | "SKIPPED" | "INFO";
  readonly errorMessage?: string;
}

export interface Report {
  /** 0: every scored scenario passed or was expected to fail, and none of the latter passed. */
  readonly exitCode: number;
  readonly output: string;
  /** By the name of the scenario, scored or not. */
  readonly scenarios: ReadonlyMap<string, readonly Check[]>;
}

/**
 * Starts a runtime on a copy of the test tools, which change their own folder, and runs the suite against it once for
 * each revision.
 *
 * @param env settings of the runtime beside the defaults
 */
export async function runSuite(
  revisions: readonly Revision[],
  env: Readonly<Record<string, string>> = {},
): Promise<Map<Revision, Report>> {
  const folder = await mkdtemp(join(tmpdir(), "onex-conformance-"));
  try {
    const directory = join(folder, "contracts");
    await cp(contracts, directory, { recursive: true });
    await using runtime = await startRuntime({ env: { ONEX_CONTRACTS_DIR: directory, ...env } });
    const reports = new Map<Revision, Report>();
    for (const revision of revisions)
      reports.set(revision, await runOnce(runtime.mcp, revision, join(folder, revision)));
    return reports;
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function runOnce(url: URL, revision: Revision, results: string): Promise<Report> {
  await mkdir(results);
  const options = { url: url.href, requirements: revision, "expected-failures": expectedFailuresFile };
  const flags = Object.entries({ ...options, "output-dir": results }).flatMap(([name, value]) => [
    `--${name}`,
    value,
  ]);
  const child = spawn(process.execPath, [suite, "server", ...flags], { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  const [exitCode] = (await once(child, "close")) as [number];
  return { exitCode, output, scenarios: await readResults(results) };
}

/** The suite writes one folder for a scenario, named after it and the time. */
async function readResults(results: string): Promise<Map<string, readonly Check[]>> {
  const scenarios = new Map<string, readonly Check[]>();
  for (const folder of await readdir(results)) {
    const [, scenario] = /^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$/.exec(folder) ?? [];
    if (scenario === undefined) throw new Error(`A result of the suite has an unknown name: ${folder}`);
    const checks = JSON.parse(await readFile(join(results, folder, "checks.json"), "utf8")) as Check[];
    scenarios.set(scenario, checks);
  }
  return scenarios;
}
