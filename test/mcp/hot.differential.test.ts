import { Agent, request as httpRequest, type IncomingHttpHeaders } from "node:http";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { monotonicClock } from "../../src/core/clock.ts";
import { silentLogger } from "../../src/core/log.ts";
import { Gateway } from "../../src/gateway.ts";
import { listen, type HttpServer, type RawListener } from "../../src/http/server.ts";
import { Catalog } from "../../src/tools/catalog.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { makeTool, put } from "../support/tools.ts";
import { gatewayOptions } from "./gateway-options.ts";
import { httpCases, type HttpCase } from "./hot-cases.ts";
import { startService, type TestService } from "./hot-service.ts";

const textSchema = {
  type: "object",
  properties: { text: { type: "string", maxLength: 1000 } },
  required: ["text"],
} as const;

function toolsOf(url: string): Tool[] {
  const rest = (path: string) => ({ kind: "rest", method: "POST", url: `${url}${path}` }) as const;
  return [
    makeTool("echo_rest", { inputSchema: textSchema, execution: rest("/echo") }),
    makeTool("echo_onex", { execution: { kind: "onex", endpoints: [url], path: "/onex" } }),
    makeTool("with_schema", { inputSchema: textSchema, outputSchema: textSchema, execution: rest("/echo") }),
    makeTool("array", { execution: rest("/array") }),
    makeTool("number", { outputSchema: { type: "number" }, execution: rest("/number") }),
    makeTool("nothing", { execution: rest("/nothing") }),
    makeTool("text", { execution: rest("/text") }),
    makeTool("refused", { execution: rest("/refused") }),
    makeTool("failing", { execution: rest("/failing") }),
    makeTool("in_code", { execution: { kind: "function", fn: () => ({ a: [1] }) } }),
    makeTool("reports", {
      execution: {
        kind: "function",
        fn: (_input: never, { log, progress }) => {
          log("info", "working");
          progress(1, 2);
          return "done";
        },
      },
    }),
    makeTool("marked", {
      inputSchema: { type: "object", properties: { text: { type: "string", "x-mcp-header": "Text" } } },
      execution: rest("/echo"),
    }),
  ];
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Of the headers: those that a client acts upon. */
const compared = [
  "content-type",
  "cache-control",
  "mcp-session-id",
  "allow",
  "www-authenticate",
  "retry-after",
  "vary",
  "access-control-allow-origin",
] as const;

/** What a client understands: every message of the answer, parsed. */
function meaningOf({ status, headers, body }: Answer): unknown {
  const isStream = headers["content-type"]?.startsWith("text/event-stream") === true;
  const texts = isStream
    ? body
        .split("\n")
        .filter((line) => line.startsWith("data: "))
        .map((line) => line.slice("data: ".length))
    : [body];
  const messages = texts.map((text) => {
    try {
      return JSON.parse(text) as unknown;
    } catch {
      return text;
    }
  });
  return { status, headers: Object.fromEntries(compared.map((name) => [name, headers[name]])), messages };
}

const agent = new Agent({ keepAlive: true });

function ask(
  server: HttpServer,
  { method, path, headers, body }: HttpCase,
  session: string,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(
      {
        host: server.host,
        port: server.port,
        method,
        path,
        agent,
        headers: [
          ...(headers.some(([name]) => name === "host") ? [] : ["host", `127.0.0.1:${server.port}`]),
          ...headers.flatMap(([name, value]) => [name, value.replace("SESSION", session)]),
          ...(method === "POST" ? ["content-length", String(body.length)] : []),
        ],
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
        incoming.once("end", () =>
          resolve({
            status: incoming.statusCode ?? 0,
            headers: incoming.headers,
            body: Buffer.concat(chunks).toString(),
          }),
        );
        incoming.once("error", reject);
      },
    );
    outgoing.once("error", reject);
    outgoing.end(body);
  });
}

const opening: HttpCase = {
  method: "POST",
  path: "/mcp",
  headers: [
    ["content-type", "application/json"],
    ["accept", "application/json, text/event-stream"],
  ],
  body: Buffer.from(
    JSON.stringify({
      jsonrpc: "2.0",
      id: 0,
      method: "initialize",
      params: {
        protocolVersion: "2025-11-25",
        capabilities: {},
        clientInfo: { name: "t", version: "1" },
      },
    }),
  ),
};

describe.each([
  { title: "with sessions", changes: {}, least: 0.15 },
  { title: "stateless", changes: { stateless: true }, least: 0.15 },
  { title: "with streams always", changes: { jsonResponse: false }, least: 0 },
])("the fast door and the SDK's, $title", ({ changes, least }) => {
  let service: TestService;
  let gateway: Gateway;
  let fast: HttpServer;
  let whole: HttpServer;
  let session: string;
  let taken = 0;
  let asked = 0;

  beforeAll(async () => {
    service = await startService();
    const registry = new Catalog({ maxTools: 100 });
    put(registry, ...toolsOf(service.url));
    gateway = new Gateway(
      { ...gatewayOptions, pageSize: 5, ...changes },
      { registry, env: {}, log: silentLogger, clock: monotonicClock },
    );
    const surface = gateway.surface("token", { initialized: () => true, draining: () => false });
    const raw: RawListener = (req, res, next) => {
      asked += 1;
      const isTaken =
        surface.raw?.(req, res, (failure) => {
          taken -= 1;
          next(failure);
        }) ?? false;
      if (isTaken) taken += 1;
      return isTaken;
    };
    fast = await listen({ host: "127.0.0.1", port: 0, fetch: surface.fetch, raw });
    whole = await listen({ host: "127.0.0.1", port: 0, fetch: surface.fetch });
    const opened = await ask(whole, opening, "");
    session = String(opened.headers["mcp-session-id"] ?? "none");
  });

  afterAll(async () => {
    agent.destroy();
    await fast.destroy(new Error("over"));
    await whole.destroy(new Error("over"));
    await gateway.destroy(new Error("over"));
    await service.close();
  });

  it("answer every request alike: valid, odd and invalid, of every revision", async () => {
    await fc.assert(
      fc.asyncProperty(httpCases, async (request) => {
        const [answer, expected] = [await ask(fast, request, session), await ask(whole, request, session)];
        // Every session has an id of its own.
        const isOpening = request.body.includes('"initialize"');
        const [a, b] = [answer, expected].map((each) =>
          isOpening
            ? meaningOf({ ...each, headers: { ...each.headers, "mcp-session-id": "" } })
            : meaningOf(each),
        );
        expect(a).toEqual(b);
      }),
      { numRuns: 4000 },
    );
    // Both of them have something to do.
    expect(taken / asked).toBeGreaterThanOrEqual(least);
    expect(taken / asked).toBeLessThan(0.9);
  }, 240_000);
});
