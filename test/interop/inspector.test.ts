import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { root } from "../support/runtime.ts";
import { serveSamples, type Samples } from "./samples.ts";

let samples: Samples;
let home: string;

beforeAll(async () => {
  samples = await serveSamples();
  home = await mkdtemp(join(tmpdir(), "onex-inspector-"));
});

afterAll(async () => {
  await samples[Symbol.asyncDispose]();
  await rm(home, { recursive: true });
});

/** The inspector's command line, with a home of its own: it writes settings there. */
async function inspect(...args: string[]): Promise<any> {
  const { stdout } = await promisify(execFile)(
    join(root, "node_modules/.bin/mcp-inspector"),
    ["--cli", samples.runtime.mcp.href, "--transport", "http", ...args],
    { env: { ...process.env, HOME: home } },
  );
  return JSON.parse(stdout);
}

it("the official inspector lists the tools", async () => {
  const { tools } = await inspect("--method", "tools/list");
  expect(tools.map((tool: { name: string }) => tool.name)).toEqual([
    "get_order",
    "greet",
    "hang",
    "quote_shipping",
    "text_statistics",
    "wait",
  ]);
});

it("the official inspector calls a tool", async () => {
  const result = await inspect(
    "--method",
    "tools/call",
    "--tool-name",
    "text_statistics",
    "--tool-arg",
    "text=One. Two.",
  );
  expect(result).toMatchObject({ structuredContent: { words: 2, sentences: 2 } });
});
