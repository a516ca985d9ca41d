import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { python } from "../support/python.ts";
import { describeWith } from "../support/required.ts";
import type { Target } from "./clients.ts";
import { serveSamples, type Samples } from "./samples.ts";

const script = fileURLToPath(new URL("python_client.py", import.meta.url));
const remedy =
  "a Python with the package mcp: python3 -m venv .cache/python && .cache/python/bin/pip install -r test/interop/requirements.txt";

describeWith("Python client", python, remedy, (interpreter) => {
  let samples: Samples;

  beforeAll(async () => {
    samples = await serveSamples();
  });

  afterAll(async () => {
    await samples[Symbol.asyncDispose]();
  });

  const run = async (mode: "legacy" | "auto", target: Target): Promise<unknown> => {
    const server = target.kind === "http" ? [target.url.href] : ["--", target.command, ...target.args];
    const env = target.kind === "stdio" ? target.env : process.env;
    const { stdout } = await promisify(execFile)(
      interpreter,
      [script, mode, samples.contract, samples.notes().file, ...server],
      {
        env,
      },
    );
    return JSON.parse(stdout);
  };

  it.each([
    ["legacy", "http", "2025-11-25"],
    ["auto", "http", "2026-07-28"],
    ["legacy", "stdio", "2025-11-25"],
    ["auto", "stdio", "2026-07-28"],
  ] as const)(
    "the Python client, %s over %s: lists pages, calls each sample, sees errors, progress, cancel and list_changed",
    async (mode, transport, protocol) => {
      expect(await run(mode, samples.targets[transport])).toMatchObject({
        protocol,
        pages: [
          ["get_order", "greet", "hang"],
          ["quote_shipping", "text_statistics", "wait"],
        ],
        text_statistics: { words: 3, sentences: 2 },
        get_order: { order_id: "A-1001", state: "shipped" },
        quote_shipping: { price: 6.4, days: 4 },
        bad_arguments: [true, expect.stringMatching(/weight_kg.*number/)],
        unknown_tool: -32602,
        progress: expect.arrayContaining([1, 2, 3, 4, 5, 6, 7, 8, 9]),
        cancelled: true,
        after_cancel: "Waited 0.01 s.",
        after_edit: ["get_order", "greet", "hang", "pause", "quote_shipping", "text_statistics"],
      });
    },
    60_000,
  );
});
