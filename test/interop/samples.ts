/** A copy of the sample contracts, the sample service, and a runtime that serves them: what interop tests share. */
import { randomUUID } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startSampleService } from "../../examples/sample-service.mjs";
import { launcher, root, startRuntime, type Runtime } from "../support/runtime.ts";
import type { Target } from "./clients.ts";

/** A tool that never returns, and notes in the file it is given when it starts and when its signal aborts. */
const hang = `import { appendFile } from "node:fs/promises";
export default async ({ file }, { signal, progress }) => {
  const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
  await appendFile(file, "started ");
  progress(1);
  await aborted;
  await appendFile(file, "aborted ");
  return new Promise(() => {});
};
`;

const hangContract = {
  name: "hang",
  node_type: "ORCHESTRATOR",
  mcp: {
    expose: true,
    description: "Never returns.",
    timeout_seconds: 300,
    execution: { kind: "local", module: "./hang.mjs" },
  },
};

export interface Samples extends AsyncDisposable {
  readonly runtime: Runtime;
  /** The contract of the tool `wait`, to edit. */
  readonly contract: string;
  readonly targets: Record<Target["kind"], Target>;
  /** A file for the tool `hang` to write to, and what it has written. */
  readonly notes: () => { readonly file: string; readonly read: () => Promise<string> };
}

/** Pages of three tools, free ports, a folder of its own. */
export async function serveSamples(): Promise<Samples> {
  const folder = await mkdtemp(join(tmpdir(), "onex-interop-"));
  const contracts = join(folder, "contracts");
  await cp(join(root, "contracts"), contracts, { recursive: true });
  await mkdir(join(contracts, "nodes/hang"));
  await writeFile(join(contracts, "nodes/hang/hang.mjs"), hang);
  await writeFile(join(contracts, "nodes/hang/contract.yaml"), JSON.stringify(hangContract));
  const service = await startSampleService();
  const env = {
    ONEX_CONTRACTS_DIR: contracts,
    HANDLER_MCP_PAGE_SIZE: "3",
    SAMPLE_SERVICE_ADDRESS: `127.0.0.1:${(service.address() as AddressInfo).port}`,
  };
  const runtime = await startRuntime({ env });
  return {
    runtime,
    contract: join(contracts, "nodes/wait/contract.yaml"),
    notes: () => {
      const file = join(folder, randomUUID());
      return { file, read: () => readFile(file, "utf8").catch(() => "") };
    },
    targets: {
      http: { kind: "http", url: runtime.mcp },
      stdio: {
        kind: "stdio",
        command: process.execPath,
        args: [launcher, "stdio"],
        env: { ...(process.env as Record<string, string>), ...env },
      },
    },
    [Symbol.asyncDispose]: async () => {
      await runtime.stop();
      service.close();
      await rm(folder, { recursive: true });
    },
  };
}
