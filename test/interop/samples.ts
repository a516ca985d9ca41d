/** A copy of the sample contracts, the sample service, and a runtime that serves them: what interop tests share. */
import { cp, mkdtemp, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startSampleService } from "../../examples/sample-service.mjs";
import { launcher, root, startRuntime, type Runtime } from "../support/runtime.ts";
import type { Target } from "./clients.ts";

export interface Samples extends AsyncDisposable {
  readonly runtime: Runtime;
  /** The contract of the tool `wait`, to edit. */
  readonly contract: string;
  readonly targets: Record<Target["kind"], Target>;
}

/** Pages of three tools, free ports, a folder of its own. */
export async function serveSamples(): Promise<Samples> {
  const folder = await mkdtemp(join(tmpdir(), "onex-interop-"));
  const contracts = join(folder, "contracts");
  await cp(join(root, "contracts"), contracts, { recursive: true });
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
