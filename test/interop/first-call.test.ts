import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { expect, it } from "vitest";
import { startRuntime } from "../support/runtime.ts";

it("npm start serves the sample contracts: an SDK client lists the tools and calls one", async () => {
  await using runtime = await startRuntime();
  const client = new Client({ name: "test", version: "1.0.0" });
  await client.connect(new StreamableHTTPClientTransport(runtime.mcp));
  const { tools } = await client.listTools();
  expect(tools.map((tool) => tool.name)).toEqual([
    "get_order",
    "greet",
    "quote_shipping",
    "text_statistics",
    "wait",
  ]);
  const result = await client.callTool({ name: "text_statistics", arguments: { text: "One two. Three!" } });
  expect(result.structuredContent).toMatchObject({ words: 3, sentences: 2 });
  await client.close();
  expect(await runtime.stop()).toBe(0);
});

it("an envelope reaches the sample handler over HTTP", async () => {
  await using runtime = await startRuntime();
  const response = await fetch(new URL("/envelopes", runtime.operators), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ operation: "greeting.hello", payload: { name: "Ada" }, correlation_id: "c-1" }),
  });
  expect(await response.json()).toMatchObject({
    success: true,
    operation: "greeting.hello",
    payload: { greeting: "Hello, Ada!" },
    correlation_id: "c-1",
  });
});
