/** The sample handler, loaded by class from its contract by a running host, and called by envelopes. */
import { afterAll, beforeAll, expect, it } from "vitest";
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

it("a host on the shipped contracts is ready, with nothing failed, skipped or degraded", async () => {
  const response = await fetch(new URL("/ready", runtime.operators));
  expect(response.status).toBe(200);
  const { status, details }: any = await response.json();
  expect(status).toBe("healthy");
  expect(details).toMatchObject({ failed_handlers: {}, skipped_handlers: {} });
  expect(details.load_report.entries.filter((entry: any) => entry.outcome === "failed")).toEqual([]);
  expect(Object.keys(details.handlers).sort()).toEqual(["greeting", "mcp"]);
});
