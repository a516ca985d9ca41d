/** A contracts folder of misbehaving tools, made in a temp folder. */
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../support/runtime.ts";

const tools: Record<string, string> = {
  echo: "export default (input) => input;",
  never: "export default () => new Promise(() => {});",
  throws: 'export default () => { throw new Error("the disk at /srv/secret/disk0 is full"); };',
  throws_null: "export default () => { throw null; };",
  cycle: "export default () => { const a = {}; a.a = a; return a; };",
  bigint: "export default () => ({ n: 10n });",
  huge: 'export default () => "x".repeat(50 * 1024 * 1024);',
  busy: `import { setTimeout as sleep } from "node:timers/promises";
export default async ({ milliseconds = 0 }, { progress }) => {
  progress(1);
  await sleep(milliseconds);
  return "finished";
};`,
};

export interface RiskContracts extends AsyncDisposable {
  readonly env: Record<string, string>;
}

/** @param timeoutSeconds deadline of the tool `never` */
export async function riskContracts(timeoutSeconds = 1): Promise<RiskContracts> {
  const folder = await mkdtemp(join(tmpdir(), "onex-risk-"));
  await mkdir(join(folder, "runtime"));
  await cp(join(root, "contracts/runtime/runtime_config.yaml"), join(folder, "runtime/runtime_config.yaml"));
  for (const [name, module] of Object.entries(tools)) {
    await mkdir(join(folder, name));
    await writeFile(join(folder, name, "tool.mjs"), module);
    const contract = {
      name,
      node_type: "ORCHESTRATOR",
      mcp: {
        expose: true,
        description: `A tool that is called ${name}.`,
        timeout_seconds: name === "never" ? timeoutSeconds : 60,
        execution: { kind: "local", module: "./tool.mjs" },
      },
    };
    // JSON is YAML.
    await writeFile(join(folder, name, "contract.yaml"), JSON.stringify(contract));
  }
  return {
    env: { ONEX_CONTRACTS_DIR: folder },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  };
}
