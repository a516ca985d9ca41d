/** The sample tools, called for real: over HTTP, by an SDK client, against the sample service. */
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { startSampleService } from "../../examples/sample-service.mjs";
import type { Logger } from "../../src/core/log.ts";
import { HandlerMCP } from "../../src/handlers/mcp.ts";
import { sdk1, sdk2, type InteropClient } from "../interop/clients.ts";
import { root } from "../support/runtime.ts";

const contractsDir = join(root, "contracts");
let service: Server;
let handler: HandlerMCP;
let client: InteropClient;

/** The runtime's MCP handler on the shipped contracts, on a free port. What it logs is added to `lines`. */
async function serve(env: Record<string, string>, lines: string[] = []): Promise<HandlerMCP> {
  const write = (fields: object, message: string): void =>
    void lines.push(`${JSON.stringify(fields)} ${message}`);
  const log: Logger = { debug: write, info: write, warn: write, error: write, child: () => log };
  const serving = new HandlerMCP({ env, log });
  await serving.initialize({
    port: 0,
    contracts_dir: contractsDir,
    dev_mode: true,
    consul_host: "localhost",
    consul_port: 8500,
    kafka_enabled: false,
  });
  return serving;
}

const target = (serving: HandlerMCP) => ({ kind: "http" as const, url: new URL(serving.endpoint ?? "") });
const text = (words: string) => [{ type: "text", text: words }];

beforeAll(async () => {
  service = await startSampleService();
  const { port } = service.address() as AddressInfo;
  handler = await serve({ SAMPLE_SERVICE_ADDRESS: `127.0.0.1:${port}` });
  client = await sdk1(target(handler));
});

afterAll(async () => {
  await client.close();
  await handler.shutdown();
  service.close();
});

describe("wait", () => {
  it("reports progress in ten steps, with its reason, and says that it has waited", async () => {
    const seen: object[] = [];
    const onprogress = (progress: object): void => void seen.push(progress);
    const result = await client.call("wait", { seconds: 0.1, reason: "tea" }, { onprogress });
    expect(seen).toEqual(
      Array.from({ length: 10 }, (_, step) => ({ progress: step + 1, total: 10, message: "tea" })),
    );
    expect(result).toEqual({ content: text("Waited 0.1 s.") });
  });

  it("needs no client that asks for progress", async () => {
    expect(await client.call("wait", { seconds: 0.01 })).toEqual({ content: text("Waited 0.01 s.") });
  });

  it.each([
    ["an older client", sdk1],
    ["a client of 2026-07-28", sdk2("modern")],
  ])("is cancelled at once by %s, and keeps nobody from stopping", async (_, connect) => {
    const lines: string[] = [];
    const serving = await serve({}, lines);
    const waiting = await connect(target(serving));
    const abort = new AbortController();
    const onprogress = (): void => abort.abort("enough");
    // The first step takes a second; what is left is more than a stop lets calls under way have.
    const call = waiting.call("wait", { seconds: 10 }, { signal: abort.signal, onprogress });
    await expect(call).rejects.toThrow("enough");
    await vi.waitFor(() => expect(lines).toContainEqual(expect.stringMatching(/wait.*cancel/)));
    await serving.shutdown();
    // A call still under way would have had to be cut off.
    expect(await serving.healthCheck()).toMatchObject({ reason: "not_initialized" });
    await waiting.close();
  });

  it("ends its function at the signal, not only the call", async () => {
    const { default: wait } = await import(pathToFileURL(join(contractsDir, "nodes/wait/wait.mjs")).href);
    const abort = new AbortController();
    const waiting = wait({ seconds: 100 }, { signal: abort.signal, progress: () => undefined });
    abort.abort();
    await expect(waiting).rejects.toThrow(/aborted/);
  });
});

describe("text_statistics", () => {
  it("answers with structured content of its output schema, in a language's own rules", async () => {
    const english = await client.call("text_statistics", { text: "One café. Two?\n\nThree words here!" });
    expect(english["structuredContent"]).toEqual({
      characters: 33,
      words: 6,
      sentences: 3,
      paragraphs: 2,
      reading_minutes: 0,
    });
    const japanese = await client.call("text_statistics", { text: "私は学生です。", language: "ja" });
    expect(japanese["structuredContent"]).toMatchObject({ characters: 7, words: 4, sentences: 1 });
  });

  it("counts an empty text, and says which language it does not know", async () => {
    const empty = await client.call("text_statistics", { text: "" });
    expect(empty["structuredContent"]).toMatchObject({ characters: 0, words: 0, paragraphs: 0 });
    expect(await client.call("text_statistics", { text: "a", language: "not a tag" })).toEqual({
      isError: true,
      content: text('"not a tag" is not a language tag such as en or pt-BR.'),
    });
  });
});

describe("get_order", () => {
  it("is answered by the service, with the part of the answer that is the result", async () => {
    const result = await client.call("get_order", { order_id: "A-1001" });
    expect(result["structuredContent"]).toEqual({
      order_id: "A-1001",
      state: "shipped",
      total: 59.9,
      currency: "EUR",
      items: [{ sku: "lamp", quantity: 1 }],
    });
  });

  it("sends its other argument in the query", async () => {
    const result = await client.call("get_order", { order_id: "B-2001", currency: "USD" });
    expect(result["structuredContent"]).toMatchObject({ total: 264, currency: "USD" });
  });

  it("passes on what the service says of an unknown order", async () => {
    expect(await client.call("get_order", { order_id: "Z-9999" })).toEqual({
      isError: true,
      content: text("The service answered 404 Not Found: There is no order Z-9999."),
    });
  });

  it("does not bother the service with a number that cannot be one", async () => {
    const result = await client.call("get_order", { order_id: "../admin" });
    expect(result["isError"]).toBe(true);
    expect(JSON.stringify(result["content"])).toContain("/order_id");
  });
});

describe("quote_shipping", () => {
  it("is answered by a service that takes the runtime's envelope", async () => {
    const slow = await client.call("quote_shipping", { weight_kg: 2.5, country: "DE" });
    expect(slow["structuredContent"]).toEqual({ price: 7, currency: "EUR", days: 4 });
    const fast = await client.call("quote_shipping", { weight_kg: 2.5, country: "DE", express: true });
    expect(fast["structuredContent"]).toEqual({ price: 14, currency: "EUR", days: 1 });
  });

  it("passes on what the service says of a country it does not ship to", async () => {
    expect(await client.call("quote_shipping", { weight_kg: 1, country: "XX" })).toEqual({
      isError: true,
      content: text("We do not ship to XX."),
    });
  });
});

it("without the sample service its tools are errors that say so, and the others work", async () => {
  // A port that was free a moment ago.
  const gone = await startSampleService();
  const { port } = gone.address() as AddressInfo;
  await new Promise((resolve) => gone.close(resolve));
  const serving = await serve({ SAMPLE_SERVICE_ADDRESS: `127.0.0.1:${port}` });
  const alone = await sdk1(target(serving));
  expect(await alone.call("get_order", { order_id: "A-1001" })).toEqual({
    _meta: { "onex-runtime/attempts": 4 },
    isError: true,
    content: text('The service behind "get_order" could not be reached.'),
  });
  expect(await alone.call("text_statistics", { text: "Still here." })).toHaveProperty("structuredContent");
  await alone.close();
  await serving.shutdown();
});
