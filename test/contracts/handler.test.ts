/** The sample handler, loaded by class from its contract by a running host, and called by envelopes. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { sdk1 } from "../interop/clients.ts";
import { startRuntime, type Runtime } from "../support/runtime.ts";

let runtime: Runtime;

beforeAll(async () => {
  runtime = await startRuntime();
});

afterAll(async () => {
  await runtime.stop();
});

async function send(envelope: object): Promise<unknown> {
  const response = await fetch(new URL("/envelopes", runtime.operators), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(envelope),
  });
  return response.json();
}

it("the sample handler answers an envelope", async () => {
  expect(
    await send({ operation: "greeting.hello", payload: { name: " Ada " }, correlation_id: "c-1" }),
  ).toMatchObject({
    success: true,
    payload: { greeting: "Hello, Ada!" },
    correlation_id: "c-1",
  });
});

it("the sample handler's refusal is an error answer that says what is wanted", async () => {
  for (const payload of [{}, { name: 7 }, { name: " " }]) {
    expect(await send({ operation: "greeting.hello", payload })).toMatchObject({
      success: false,
      status: "error",
      error: {
        message: expect.stringContaining("payload.name must be a non-empty string"),
        retryable: false,
      },
    });
  }
});

it("an operation that the sample handler does not have is an error answer that names those it has", async () => {
  expect(await send({ operation: "greeting.goodbye", payload: {} })).toMatchObject({
    success: false,
    error: { message: expect.stringContaining("greeting.hello") },
  });
});

it("the sample handler is a tool of MCP clients, by its contract", async () => {
  const client = await sdk1({ kind: "http", url: runtime.mcp });
  try {
    const answer = await client.call("greet", { name: "Ada" });
    expect(answer["structuredContent"]).toEqual({ greeting: "Hello, Ada!" });
    expect(await client.call("greet", { name: " " })).toEqual({
      isError: true,
      content: [{ type: "text", text: "payload.name must be a non-empty string" }],
    });
    expect(JSON.stringify(await client.call("greet", { name: 7 }))).toMatch(/\/name/);
  } finally {
    await client.close();
  }
});

it("the shipped http handler is there without being configured, and answers an envelope", async () => {
  const url = new URL("/health", runtime.operators).href;
  expect(await send({ operation: "http.get", payload: { url } })).toMatchObject({
    success: true,
    handler_id: "effect.http.handler",
    payload: { status_code: 200, body: { status: "healthy" } },
  });
  expect(await send({ operation: "http.get", payload: { url: "http://169.254.169.254/" } })).toMatchObject({
    success: false,
    error: { message: expect.stringContaining("may not be called"), retryable: false },
  });
});

it("a host on the shipped contracts is ready, with nothing failed, skipped or degraded", async () => {
  const response = await fetch(new URL("/ready", runtime.operators));
  expect(response.status).toBe(200);
  const { status, details }: any = await response.json();
  expect(status).toBe("healthy");
  expect(details).toMatchObject({ failed_handlers: {}, skipped_handlers: {} });
  expect(details.load_report.entries.filter((entry: any) => entry.outcome === "failed")).toEqual([]);
  expect(Object.keys(details.handlers).sort()).toEqual(["greeting", "http", "mcp"]);
});
