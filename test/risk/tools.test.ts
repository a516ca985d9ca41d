import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startRuntime, type Runtime } from "../support/runtime.ts";
import { riskContracts, type RiskContracts } from "./contracts.ts";
import { callTool } from "./rpc.ts";

let contracts: RiskContracts;
let runtime: Runtime;

beforeAll(async () => {
  contracts = await riskContracts();
  runtime = await startRuntime({ env: contracts.env });
});

afterAll(async () => {
  await runtime.stop();
  await contracts[Symbol.asyncDispose]();
});

/** The text of an error result. */
async function failing(name: string): Promise<string> {
  const { status, body } = await callTool(runtime.mcp, name);
  expect(status).toBe(200);
  expect(body.result.isError).toBe(true);
  return body.result.content[0].text;
}

describe("a tool that misbehaves is an error result, and the runtime goes on", () => {
  it("a tool that never returns ends at its deadline", async () => {
    expect(await failing("never")).toMatch(/1 s/);
  });

  it("a tool that throws shows its message, without a path or a stack", async () => {
    const text = await failing("throws");
    expect(text).toContain("is full");
    expect(text).not.toMatch(/\/srv\/secret|tool\.mjs|\n\s*at /);
  });

  it("a tool that throws null is an error with a text", async () => {
    expect(await failing("throws_null")).not.toBe("");
  });

  it("a tool that returns a cycle is told so", async () => {
    expect(await failing("cycle")).toMatch(/cycle/);
  });

  it("a tool that returns a BigInt is told so", async () => {
    expect(await failing("bigint")).toMatch(/BigInt/);
  });

  it("a tool that returns 50 MB is told the limit, and nothing is cut off silently", async () => {
    expect(await failing("huge")).toMatch(/10 MiB/);
  });

  it("afterwards the others answer as before", async () => {
    const { body } = await callTool(runtime.mcp, "echo", { a: 1 });
    expect(body.result.structuredContent).toEqual({ a: 1 });
  });
});
