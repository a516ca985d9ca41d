import { createHash } from "node:crypto";
import { expect, describe, test, vi } from "vitest";
import type { BreakerReading } from "../../src/admin/breakers.ts";
import { gatewayRoutes, hostRoutes, type GatewayReads, type HostReads } from "../../src/admin/routes.ts";
import { Metrics } from "../../src/core/metrics.ts";
import { silentLogger } from "../../src/core/log.ts";
import { createAuthenticator, type ApiKey } from "../../src/http/auth.ts";
import { createGuard } from "../../src/http/guard.ts";
import { httpParts } from "../../src/http/parts.ts";
import { readinessProof, waitUntilReady } from "../../src/http/readiness.ts";
import type { HttpServer } from "../../src/http/server.ts";
import { Catalog } from "../../src/tools/catalog.ts";
import type { SourceStatus } from "../../src/tools/source.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { gate, rawClient, serve } from "../http/sockets.ts";

const keys: readonly ApiKey[] = [
  { name: "reader", role: "user", key: "user-key" },
  { name: "ops", role: "admin", sha256: createHash("sha256").update("admin-key").digest("hex") },
];
const asUser = { headers: { "x-api-key": "user-key" } };
const asAdmin = { headers: { "x-api-key": "admin-key" } };

const parts = (apiKeys: readonly ApiKey[]): ReturnType<typeof httpParts> =>
  httpParts(
    createGuard({ host: "127.0.0.1" }),
    createAuthenticator({ apiKeys, loopbackIsAdmin: true, log: silentLogger }),
  );

const tool = (name: string, more: Partial<Tool> = {}): Tool => ({
  name,
  description: `does ${name}`,
  version: "1.0.0",
  inputSchema: { type: "object" },
  annotations: {},
  tags: [],
  execution: { kind: "onex", endpoints: [`http://user:pw@10.0.0.7:9000/${name}?token=s3cret`], path: "/" },
  source: "contract",
  owner: `/contracts/${name}`,
  revision: "1",
  ...more,
});

interface GatewayState {
  readonly breakers: Map<string, BreakerReading>;
  readonly resets: string[];
  readonly catalog: Catalog;
  initialized: boolean;
  draining: boolean;
  available: boolean;
  sources: SourceStatus[];
}

async function gateway(
  apiKeys: readonly ApiKey[] = [],
): Promise<{ server: HttpServer; state: GatewayState }> {
  const state: GatewayState = {
    catalog: new Catalog(),
    breakers: new Map(),
    resets: [],
    initialized: true,
    draining: false,
    available: true,
    sources: [{ name: "contracts", kind: "contract", state: "ready", ageSeconds: 0 }],
  };
  state.catalog.apply("contracts", { put: [{ key: "echo", tool: tool("echo") }], remove: [] });
  const reads: GatewayReads = {
    snapshot: () => state.catalog.snapshot(),
    sources: () => state.sources,
    report: () => ({
      directory: "/srv/contracts",
      entries: [{ path: "a/contract.yaml", outcome: "skipped" }],
    }),
    initialized: () => state.initialized,
    draining: () => state.draining,
    definition: ({ name, description, inputSchema }) => ({ name, description, inputSchema }),
    available: () => state.available,
    explain: (name) => state.catalog.explain(name),
    metrics: new Metrics(),
    breakers: () => state.breakers,
    resetBreaker: (name, by) => state.breakers.has(name) && state.resets.push(`${name} by ${by.name}`) > 0,
    now: () => 1000,
    readinessProof: (nonce) => readinessProof("secret of this start", nonce),
  };
  return { server: await serve({ fetch: gatewayRoutes(reads, parts(apiKeys)).fetch }), state };
}

describe("the gateway's routes", () => {
  test("/health tells status, tool count and whether it is initialized, to anyone", async () => {
    const { server, state } = await gateway(keys);
    const answer = await fetch(`${server.url}/health`);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expect(await answer.json()).toEqual({ status: "healthy", tool_count: 1, initialized: true });
    state.initialized = false;
    expect(await (await fetch(`${server.url}/health`)).json()).toMatchObject({ status: "unhealthy" });
  });

  test("/health proves itself to a readiness probe and says nothing to other values", async () => {
    const { server } = await gateway();
    await waitUntilReady(server, { token: "secret of this start", timeoutMs: 5_000 });
    const answer = await fetch(`${server.url}/health`, { headers: { "x-onex-readiness": "tell me" } });
    expect(answer.headers.has("x-onex-readiness")).toBe(false);
  });

  test("/ready is 503 with reasons until it is initialized, while it drains and while a source starts", async () => {
    const { server, state } = await gateway();
    const ready = async (): Promise<unknown[]> => {
      const answer = await fetch(`${server.url}/ready`);
      const { ready, reasons } = (await answer.json()) as { ready: boolean; reasons: string[] };
      return [answer.status, ready, ...reasons];
    };
    expect(await ready()).toEqual([200, true]);
    state.initialized = false;
    expect(await ready()).toEqual([503, false, "not_initialized"]);
    state.initialized = true;
    state.draining = true;
    expect(await ready()).toEqual([503, false, "draining"]);
    state.draining = false;
    state.sources = [{ name: "contracts", kind: "contract", state: "starting", ageSeconds: 0 }];
    expect(await ready()).toEqual([503, false, "source contracts is starting"]);
  });

  test("a degraded source shows its age, keeps the gateway ready, and its error is for admins", async () => {
    const { server, state } = await gateway(keys);
    state.sources = [
      { name: "contracts", kind: "contract", state: "degraded", ageSeconds: 7, lastError: "EACCES /srv/x" },
    ];
    const source = { name: "contracts", kind: "contract", state: "degraded", age_seconds: 7 };
    for (const init of [{}, asUser]) {
      const answer = await fetch(`${server.url}/ready`, init);
      expect([answer.status, await answer.json()]).toEqual([
        200,
        { ready: true, reasons: [], sources: [source] },
      ]);
    }
    expect(await (await fetch(`${server.url}/ready`, asAdmin)).json()).toMatchObject({
      sources: [{ ...source, last_error: "EACCES /srv/x" }],
      load_report: { entries: [{ path: "a/contract.yaml", outcome: "skipped" }] },
    });
    expect(await (await fetch(`${server.url}/health`)).json()).toMatchObject({ status: "degraded" });
  });

  test("/mcp/tools lists every tool with where it comes from", async () => {
    const { server } = await gateway(keys);
    const answer = await fetch(`${server.url}/mcp/tools`, asUser);
    expect(answer.headers.get("cache-control")).toBe("private, no-cache");
    expect(await answer.json()).toEqual({
      tools: [
        {
          name: "echo",
          description: "does echo",
          inputSchema: { type: "object" },
          version: "1.0.0",
          source: "contract",
          server_name: null,
          available: true,
        },
      ],
      generation: 1,
    });
  });

  test("endpoints are shown to admins only, without user, password and query", async () => {
    const { server, state } = await gateway(keys);
    state.catalog.apply("contracts", {
      put: [
        {
          key: "rest",
          tool: tool("rest", {
            execution: { kind: "rest", method: "GET", url: "https://k:v@api.example.com/{id}/x?key={k}" },
          }),
        },
        {
          key: "service",
          tool: tool("service", {
            execution: { kind: "rest", method: "GET", url: "/x" },
            endpoints: [
              { id: "a", url: "http://10.0.0.8:9000/base", weight: 1 },
              { id: "b", url: "http://user:pw@10.0.0.9:9000", weight: 2 },
            ],
          }),
        },
        {
          key: "local",
          tool: tool("local", { execution: { kind: "local", module: "/srv/x.ts", export: "x" } }),
        },
      ],
      remove: [],
    });
    const body = (await (await fetch(`${server.url}/mcp/tools`, asAdmin)).json()) as {
      tools: { name: string; endpoints: string[] }[];
    };
    expect(Object.fromEntries(body.tools.map(({ name, endpoints }) => [name, endpoints]))).toEqual({
      echo: ["http://10.0.0.7:9000/echo"],
      local: [],
      rest: ["https://api.example.com/{id}/x"],
      service: ["http://10.0.0.8:9000/base", "http://10.0.0.9:9000"],
    });
    expect(await (await fetch(`${server.url}/mcp/tools`, asUser)).text()).not.toMatch(
      /endpoints|10\.0\.0\.7/,
    );
  });

  test("/mcp/tools needs a key where keys are configured", async () => {
    const { server } = await gateway(keys);
    const answer = await fetch(`${server.url}/mcp/tools`);
    expect(answer.status).toBe(401);
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
  });

  test("an unchanged list is 304, a changed one is not", async () => {
    const { server, state } = await gateway();
    const list = (etag: string): Promise<Response> =>
      fetch(`${server.url}/mcp/tools`, { headers: { "if-none-match": etag } });
    const etag = (await fetch(`${server.url}/mcp/tools`)).headers.get("etag")!;
    expect(etag).toMatch(/^"[^"]+"$/);
    for (const value of [etag, `W/${etag}`, `"other", ${etag}`, "*"]) {
      const same = await list(value);
      expect([same.status, same.headers.get("etag"), await same.text()]).toEqual([304, etag, ""]);
    }
    expect((await list('"other"')).status).toBe(200);
    state.available = false;
    expect((await list(etag)).status).toBe(200);
    state.available = true;
    state.catalog.apply("contracts", { put: [{ key: "b", tool: tool("b") }], remove: [] });
    expect((await list(etag)).status).toBe(200);
  });

  test("an admin's list never answers for a user's", async () => {
    const { server } = await gateway(keys);
    const admins = (await fetch(`${server.url}/mcp/tools`, asAdmin)).headers.get("etag")!;
    const answer = await fetch(`${server.url}/mcp/tools`, {
      headers: { ...asUser.headers, "if-none-match": admins },
    });
    expect(answer.status).toBe(200);
    expect(answer.headers.get("vary")).toMatch(/x-api-key/i);
  });

  test("a wrong method is 405 with Allow, an unknown path 404, both as problems", async () => {
    const { server } = await gateway();
    for (const path of ["/health", "/ready", "/mcp/tools"]) {
      for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]) {
        const answer = await fetch(server.url + path, { method });
        expect([path, method, answer.status, answer.headers.get("allow")]).toEqual([
          path,
          method,
          405,
          "GET, HEAD",
        ]);
        expect(answer.headers.get("content-type")).toBe("application/problem+json");
      }
    }
    const unknown = await fetch(`${server.url}/mcp/tool`);
    expect([unknown.status, await unknown.json()]).toMatchObject([404, { status: 404, title: "Not Found" }]);
  });

  test("HEAD is answered as GET without the body", async () => {
    const { server } = await gateway();
    for (const path of ["/health", "/ready", "/mcp/tools"]) {
      const answer = await fetch(server.url + path, { method: "HEAD" });
      expect([answer.status, await answer.text()]).toEqual([200, ""]);
      expect(answer.headers.get("content-type")).toBe("application/json");
    }
  });

  test("the guard stands before every route, and before those added later", async () => {
    const { server } = await gateway();
    for (const path of ["/health", "/ready", "/mcp/tools", "/unknown"]) {
      const answer = await fetch(server.url + path, { headers: { origin: "https://evil.example" } });
      expect([path, answer.status]).toEqual([path, 403]);
    }
  });
});

describe("the circuit breakers' routes", () => {
  const breakers = "/mcp/circuit-breakers";
  const origin = "http://[::1]:9000";
  const resetOf = (name: string): string => `${breakers}/${encodeURIComponent(name)}/reset`;

  test("list every breaker by name, with what belongs to its state", async () => {
    const { server, state } = await gateway();
    state.breakers.set("http://c:1", { kind: "half-open", trials: 1, successes: 0 });
    state.breakers.set("http://b:1", { kind: "open", until: 31_500 });
    state.breakers.set("http://a:1", { kind: "closed", failures: 2 });
    const answer = await fetch(server.url + breakers);
    expect([answer.status, answer.headers.get("cache-control"), await answer.json()]).toEqual([
      200,
      "no-store",
      {
        breakers: [
          { name: "http://a:1", state: "closed", failures: 2 },
          { name: "http://b:1", state: "open", retry_after_seconds: 31 },
          { name: "http://c:1", state: "half-open", trials: 1, successes: 0 },
        ],
      },
    ]);
  });

  test("reset the breaker that the encoded name names, and answer with its new state", async () => {
    const { server, state } = await gateway(keys);
    state.breakers.set(origin, { kind: "open", until: 9000 });
    const answer = await fetch(server.url + resetOf(origin), { method: "POST", ...asAdmin });
    expect([answer.status, await answer.json()]).toEqual([
      200,
      { name: origin, state: "closed", failures: 0 },
    ]);
    expect(state.resets).toEqual([`${origin} by ops`]);
  });

  test.each(["http://unknown:1", "%", "..", "a/b", "%25"])("know no breaker %j", async (name) => {
    const { server, state } = await gateway();
    state.breakers.set(origin, { kind: "closed", failures: 0 });
    const answer = await fetch(server.url + resetOf(name), { method: "POST" });
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
    expect(answer.status).toBe(404);
    expect(state.resets).toEqual([]);
  });

  test("are for admins: names are addresses", async () => {
    const { server, state } = await gateway(keys);
    state.breakers.set(origin, { kind: "closed", failures: 0 });
    for (const [caller, status] of [
      [{}, 401],
      [asUser, 403],
      [asAdmin, 200],
    ] as const) {
      expect((await fetch(server.url + breakers, caller)).status).toBe(status);
      const reset = await fetch(server.url + resetOf(origin), { method: "POST", ...caller });
      expect(reset.status).toBe(status);
    }
    expect(state.resets).toHaveLength(1);
  });

  test("take no other method, and no page of another origin", async () => {
    const { server, state } = await gateway();
    state.breakers.set(origin, { kind: "closed", failures: 0 });
    for (const method of ["GET", "PUT", "DELETE", "PATCH"]) {
      const answer = await fetch(server.url + resetOf(origin), { method });
      expect([method, answer.status, answer.headers.get("allow")]).toEqual([method, 405, "POST"]);
    }
    expect((await fetch(server.url + breakers, { method: "POST" })).headers.get("allow")).toBe("GET, HEAD");
    const foreign = { method: "POST", headers: { origin: "https://evil.example" } };
    expect((await fetch(server.url + resetOf(origin), foreign)).status).toBe(403);
    expect(state.resets).toEqual([]);
  });
});

const answerOf = (more: object = {}): Awaited<ReturnType<HostReads["handle"]>> => ({
  success: true,
  handler_id: "proto.echo",
  ...more,
});

async function host(
  more: Partial<HostReads> = {},
  apiKeys: readonly ApiKey[] = [],
  onError: (error: Error) => void = () => undefined,
): Promise<{
  server: HttpServer;
  post: (body: string | Buffer, headers?: Record<string, string>) => Promise<Response>;
}> {
  const status = { status: "healthy" as const, version: "1.2.3", details: { handlers: 1 } };
  const reads: HostReads = {
    health: () => status,
    readiness: () => ({ ...status, ready: true }),
    handle: async () => answerOf(),
    ...more,
  };
  const server = await serve({ fetch: hostRoutes(reads, parts(apiKeys)).fetch, onError });
  return {
    server,
    post: (body, headers = {}) =>
      fetch(`${server.url}/envelopes`, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: Buffer.from(body),
      }),
  };
}

describe("the host's operator port", () => {
  test("/health and /ready tell status, version and details; not ready is 503", async () => {
    const down = { status: "unhealthy" as const, version: "1.2.3", details: {}, ready: false };
    const { server } = await host({ readiness: async () => down });
    const health = await fetch(`${server.url}/health`);
    expect([health.status, await health.json()]).toEqual([
      200,
      { status: "healthy", version: "1.2.3", details: { handlers: 1 } },
    ]);
    const ready = await fetch(`${server.url}/ready`);
    expect([ready.status, await ready.json()]).toEqual([
      503,
      { status: "unhealthy", version: "1.2.3", details: {} },
    ]);
    expect((await fetch(`${server.url}/health`, { method: "HEAD" })).status).toBe(200);
  });

  test("where keys are configured, only admins are told more than status and version", async () => {
    const details = { load_report: { directory: "/srv/contracts" } };
    const status = { status: "degraded" as const, version: "1.2.3", details };
    const readiness = () => ({ ...status, ready: true, reasons: ["handler mcp: connect 10.0.0.7:9000"] });
    const { server } = await host({ health: () => status, readiness }, keys);
    for (const path of ["/health", "/ready"]) {
      for (const caller of [{}, asUser]) {
        const answer = await fetch(`${server.url}${path}`, caller);
        expect([answer.status, await answer.json()]).toEqual([
          200,
          { status: "degraded", version: "1.2.3", details: {} },
        ]);
      }
      expect(await (await fetch(`${server.url}${path}`, asAdmin)).json()).toMatchObject({ details });
    }
  });

  test("a health check that throws is reported, and answered without its text", async () => {
    const onError = vi.fn();
    const { server } = await host({ readiness: () => Promise.reject(new Error("secret")) }, [], onError);
    const answer = await fetch(`${server.url}/ready`);
    expect(answer.status).toBe(500);
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
    expect(await answer.text()).not.toContain("secret");
    expect(onError).toHaveBeenCalledWith(expect.objectContaining({ message: "secret" }));
  });

  test("an envelope's bytes reach the host as they came and its answer comes back", async () => {
    const handle = vi.fn<HostReads["handle"]>(async () => answerOf({ operation: "echo.say" }));
    const { post } = await host({ handle });
    const bytes = Buffer.from([0x7b, 0xff, 0x00, 0x7d]);
    const answer = await post(bytes);
    expect([answer.status, await answer.json()]).toEqual([200, answerOf({ operation: "echo.say" })]);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expect(Buffer.from(handle.mock.calls[0]![0])).toEqual(bytes);
  });

  test("an operation that failed is 200 with its error answer, a refused envelope is 400 with it", async () => {
    const invalid = { code: "ONEX_CORE_007_INVALID_INPUT" };
    const answers = [
      answerOf({ success: false, error: invalid }),
      answerOf({ success: false, handler_id: null, error: { code: "ONEX_CORE_205_SERVICE_UNAVAILABLE" } }),
      answerOf({ success: false, handler_id: null, error: invalid }),
    ];
    const { post } = await host({ handle: async () => answers.shift()! });
    expect((await post("{}")).status).toBe(200);
    expect((await post("{}")).status).toBe(200);
    const refused = await post("[]");
    expect([refused.status, await refused.json()]).toMatchObject([400, { success: false, error: invalid }]);
  });

  test("envelopes are for admins: 401 without a key, 403 for a user", async () => {
    const handle = vi.fn<HostReads["handle"]>(async () => answerOf());
    const { post } = await host({ handle }, keys);
    expect((await post("{}")).status).toBe(401);
    expect((await post("{}", asUser.headers)).status).toBe(403);
    expect(handle).not.toHaveBeenCalled();
    expect((await post("{}", asAdmin.headers)).status).toBe(200);
  });

  test("another content type is 415, more than 4 MiB is 413, another method 405", async () => {
    const handle = vi.fn<HostReads["handle"]>(async () => answerOf());
    const { server, post } = await host({ handle });
    expect((await post("{}", { "content-type": "text/plain" })).status).toBe(415);
    expect((await post("x".repeat(4 * 1024 * 1024 + 1))).status).toBe(413);
    expect(handle).not.toHaveBeenCalled();
    expect((await post("x".repeat(4 * 1024 * 1024))).status).toBe(200);
    const wrong = await fetch(`${server.url}/envelopes`);
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "POST"]);
  });

  test("a client that leaves aborts the envelope's signal", async () => {
    const started = gate();
    const aborted = gate();
    const { server } = await host({
      handle: async (_bytes, signal) => {
        signal.addEventListener("abort", () => aborted.resolve());
        started.resolve();
        await aborted.promise;
        return answerOf();
      },
    });
    const client = await rawClient(server);
    client.socket.write(
      "POST /envelopes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    );
    await started.promise;
    client.socket.destroy();
    await aborted.promise;
  });
});
