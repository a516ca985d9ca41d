import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
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

const methods = [
  "initialize",
  "ping",
  "tools/list",
  "tools/call",
  "server/discover",
  "subscriptions/listen",
  "logging/setLevel",
  "notifications/initialized",
  "notifications/cancelled",
  "x",
];
const revisions = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28", "2099-01-01", ""];
const id = fc.oneof(
  fc.string(),
  fc.integer(),
  fc.double(),
  fc.constant(null),
  fc.boolean(),
  fc.array(fc.integer(), { maxLength: 2 }),
);

const meta = fc.record(
  {
    "io.modelcontextprotocol/protocolVersion": fc.oneof(fc.constantFrom(...revisions), fc.jsonValue()),
    "io.modelcontextprotocol/clientCapabilities": fc.oneof(fc.constant({}), fc.jsonValue()),
    progressToken: fc.oneof(fc.string(), fc.integer(), fc.jsonValue()),
  },
  { requiredKeys: [] },
);

const params = fc.oneof(
  fc.jsonValue(),
  fc.record(
    {
      name: fc.oneof(fc.constantFrom("echo", "cycle", "nope", "__proto__"), fc.jsonValue()),
      arguments: fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.jsonValue()),
      cursor: fc.jsonValue(),
      level: fc.jsonValue(),
      protocolVersion: fc.oneof(fc.constantFrom(...revisions), fc.jsonValue()),
      capabilities: fc.jsonValue(),
      clientInfo: fc.oneof(fc.constant({ name: "f", version: "1" }), fc.jsonValue()),
      notifications: fc.jsonValue(),
      _meta: fc.oneof(meta, fc.jsonValue()),
    },
    { requiredKeys: [] },
  ),
);

const message = fc.record(
  {
    jsonrpc: fc.oneof({ weight: 8, arbitrary: fc.constant("2.0") }, fc.jsonValue()),
    id,
    method: fc.oneof(fc.constantFrom(...methods), fc.string()),
    params,
    result: fc.jsonValue(),
    error: fc.jsonValue(),
  },
  { requiredKeys: [] },
);

const body = fc.oneof(
  { weight: 6, arbitrary: message.map((value) => JSON.stringify(value)) },
  { weight: 1, arbitrary: fc.array(message, { maxLength: 4 }).map((value) => JSON.stringify(value)) },
  { weight: 1, arbitrary: fc.json() },
  { weight: 1, arbitrary: fc.string() },
  { weight: 1, arbitrary: message.map((value) => JSON.stringify(value).slice(0, -2)) },
);

const headers = fc.record(
  {
    "mcp-protocol-version": fc.constantFrom(...revisions.slice(0, -1)),
    "mcp-session-id": fc.constantFrom("x", "a.b", "eyJ9.eyJ9"),
    "mcp-method": fc.constantFrom(...methods),
    "mcp-name": fc.constantFrom("echo", "=?base64?!?="),
  },
  { requiredKeys: [] },
);

/** Ids of requests in the body, and null for what has no readable id. */
function idsOf(text: string): unknown[] {
  try {
    const value: unknown = JSON.parse(text);
    return (Array.isArray(value) ? value : [value]).map((item: any) => item?.id ?? null);
  } catch {
    return [null];
  }
}

/** Every JSON-RPC message of an answer, whether JSON or a stream. */
async function messagesOf(response: Response): Promise<any[]> {
  if (response.headers.get("content-type")?.startsWith("text/event-stream") !== true) {
    const text = await response.text();
    if (text === "") return [];
    const value = JSON.parse(text);
    return Array.isArray(value) ? value : [value];
  }
  // A subscription stays open: the first event is enough.
  const reader = response.body!.getReader();
  const first = new TextDecoder().decode((await reader.read()).value);
  await reader.cancel();
  return first
    .split("\n")
    .filter((line) => line.startsWith("data: "))
    .map((line) => JSON.parse(line.slice("data: ".length)));
}

it("a body that is not UTF-8 is a parse error", async () => {
  const message = Buffer.from('{"jsonrpc":"2.0","id":"caf\u00e9","method":"ping"}', "latin1");
  const response = await fetch(runtime.mcp, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: message,
  });
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({ id: null, error: { code: -32700 } });
});

it("10,000 malformed and random JSON-RPC bodies: never a crash, never a 5xx, never an answer without the right id", async () => {
  await fc.assert(
    fc.asyncProperty(body, headers, async (text, extra) => {
      const response = await fetch(runtime.mcp, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          accept: "application/json, text/event-stream",
          ...extra,
        },
        body: text,
      });
      expect(response.status, text).toBeLessThan(500);
      const ids = idsOf(text);
      for (const answer of await messagesOf(response)) {
        if (answer.jsonrpc !== "2.0") {
          // A problem of the HTTP layer, before any message was read.
          expect(response.headers.get("content-type")).toBe("application/problem+json");
        } else if (!("method" in answer)) {
          expect([...ids, null], text).toContainEqual(answer.id);
          if (response.status === 200) expect(ids, text).toContainEqual(answer.id);
        }
      }
    }),
    { numRuns: 10_000 },
  );
  const { body: answer } = await callTool(runtime.mcp, "echo", { still: "there" });
  expect(answer.result.structuredContent).toEqual({ still: "there" });
}, 240_000);
