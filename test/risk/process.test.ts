import { execFile } from "node:child_process";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { once } from "node:events";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { afterEach, beforeEach, expect, it } from "vitest";
import { launcher, root, startRuntime } from "../support/runtime.ts";
import { riskContracts, type RiskContracts } from "./contracts.ts";
import { callTool } from "./rpc.ts";

let contracts: RiskContracts;

beforeEach(async () => {
  contracts = await riskContracts(60);
});

afterEach(() => contracts[Symbol.asyncDispose]());

/** Starts a call and resolves once the tool runs. */
async function startCall(url: URL, name: string, args: object = {}) {
  const client = new Client({ name: "t", version: "1" });
  await client.connect(new StreamableHTTPClientTransport(url));
  const { promise: running, resolve } = Promise.withResolvers<undefined>();
  const result = client.callTool({ name, arguments: { ...args } }, undefined, {
    onprogress: () => resolve(undefined),
  });
  result.catch(() => undefined);
  await running;
  return { client, result };
}

it("a taken port ends the start with exit 1, naming host and port", async () => {
  const holder = createServer().listen(0, "127.0.0.1");
  await once(holder, "listening");
  const port = String((holder.address() as AddressInfo).port);
  const env = { ...process.env, ...contracts.env, ONEX_MCP_PORT: port, ONEX_HTTP_PORT: "0" };
  const { code, stderr } = await new Promise<{ code: unknown; stderr: string }>((resolve) => {
    execFile(process.execPath, [launcher, "serve"], { cwd: root, env }, (error, _, text) =>
      resolve({ code: error?.code, stderr: text }),
    );
  });
  holder.close();
  expect(code).toBe(1);
  expect(stderr).toContain(`127.0.0.1`);
  expect(stderr).toContain(port);
});

it("SIGTERM with calls in flight: they finish, new ones are refused, exit 0", async () => {
  const runtime = await startRuntime({ env: contracts.env });
  const { client, result } = await startCall(runtime.mcp, "busy", { milliseconds: 1500 });
  runtime.process.kill("SIGTERM");
  const refused = async (): Promise<boolean> => {
    try {
      const { status, body } = await callTool(runtime.mcp, "echo");
      return status === 503 || body?.result?.isError === true;
    } catch {
      return true;
    }
  };
  await expect.poll(refused).toBe(true);
  expect(await result).toMatchObject({ content: [{ type: "text", text: "finished" }] });
  await client.close();
  expect(await runtime.exit).toEqual({ code: 0, signal: null });
});

it("SIGTERM with a call that never ends: it is aborted and the process ends by itself", async () => {
  const runtime = await startRuntime({ env: contracts.env });
  const { client } = await startCall(runtime.mcp, "busy", { milliseconds: 3_600_000 });
  runtime.process.kill("SIGTERM");
  const { code } = await runtime.exit;
  expect(code).toBe(0);
  await client.close();
});

it("a second SIGTERM ends the process at once with a code that is not 0", async () => {
  const runtime = await startRuntime({ env: contracts.env });
  const { client } = await startCall(runtime.mcp, "busy", { milliseconds: 3_600_000 });
  runtime.process.kill("SIGTERM");
  await expect
    .poll(async () =>
      fetch(new URL("/health", runtime.mcp)).then(
        (r) => r.status,
        () => 0,
      ),
    )
    .not.toBe(200);
  runtime.process.kill("SIGTERM");
  const { code, signal } = await runtime.exit;
  expect(code !== 0 || signal !== null).toBe(true);
  await client.close();
});
