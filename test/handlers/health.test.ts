import { describe, expect, it, vi } from "vitest";
import { HandlerMCP, version } from "../../src/index.ts";
import {
  config,
  contractsOf,
  embed,
  execute,
  gatedTool,
  get,
  httpServerOn,
  isFree,
  listOverHttp,
  makeHandler,
  portOf,
  recordingLogger,
  request,
  serve,
} from "./mcp.ts";

describe("healthCheck", () => {
  it("of a running handler is healthy and shows its tools, sources and age", async () => {
    const folder = await contractsOf({ a: [], b: [] });
    const time = { now: 5_000 };
    const handler = await serve({ contracts_dir: folder.path }, { clock: { now: () => time.now } });
    time.now += 1_500;
    const health = await handler.healthCheck();
    expect(health).toEqual({
      healthy: true,
      transport_type: "mcp",
      initialized: true,
      server_running: true,
      lifecycle_running: true,
      tool_count: 2,
      uptime_seconds: 1.5,
      sources: [{ name: "contracts", kind: "contract", state: "ready", age_seconds: 0, last_error: null }],
      load_report: {
        directory: folder.path,
        entries: [
          expect.objectContaining({ outcome: "loaded" }),
          expect.objectContaining({ outcome: "loaded" }),
        ],
      },
    });
    expect(JSON.parse(JSON.stringify(health))).toEqual(health);
  });

  it("shows the last error of a source, cut to 200 characters", async () => {
    const folder = await contractsOf({ a: [] });
    await folder.write(`${"deep/".repeat(40)}contract.yaml`, "name: [unclosed");
    const handler = await embed({ contracts_dir: folder.path });
    const { healthy, sources } = (await handler.healthCheck()) as any;
    expect(healthy).toBe(true);
    expect(sources[0].last_error).toMatch(/^deep\/deep\//);
    expect(sources[0].last_error).toHaveLength(200);
  });

  it("with skip_server is healthy and says skip_server", async () => {
    expect(await (await embed()).healthCheck()).toMatchObject({
      healthy: true,
      skip_server: true,
      initialized: true,
      server_running: false,
      lifecycle_running: true,
    });
  });

  it("not_initialized: before the first start and after a stop", async () => {
    const handler = makeHandler();
    const idle = {
      healthy: false,
      reason: "not_initialized",
      transport_type: "mcp",
      initialized: false,
      server_running: false,
      lifecycle_running: false,
      tool_count: 0,
      uptime_seconds: 0,
      sources: [],
    };
    expect(await handler.healthCheck()).toEqual(idle);
    await handler.initialize(config());
    await handler.shutdown();
    expect(await handler.healthCheck()).toEqual(idle);
  });

  it("server_task_missing: while the server is not yet proved ready", async () => {
    const handler = makeHandler();
    const start = handler.initialize(config());
    expect(await handler.healthCheck()).toMatchObject({
      healthy: false,
      reason: "server_task_missing",
      initialized: false,
      lifecycle_running: false,
    });
    await start;
    expect(await handler.healthCheck()).toMatchObject({ healthy: true });
  });

  it("draining: while calls finish", async () => {
    const handler = await serve();
    const { state, open, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const answer = request(handler, "tools/call", { name: "gated" });
    await vi.waitFor(() => expect(state.begun).toBe(1));
    const stopping = handler.shutdown();
    expect(await handler.healthCheck()).toMatchObject({
      healthy: false,
      reason: "draining",
      initialized: true,
      server_running: false,
      lifecycle_running: false,
      tool_count: 1,
    });
    open("done");
    await Promise.all([answer, stopping]);
  });

  it("server_cancelled: after a forced stop, until the next start", async () => {
    const handler = await serve();
    handler.shutdownTimeout = 0.05;
    const { state, definition, fn } = gatedTool();
    handler.registerTool(definition, fn);
    const answer = request(handler, "tools/call", { name: "gated" });
    await vi.waitFor(() => expect(state.begun).toBe(1));
    await handler.shutdown();
    await answer;
    expect(await handler.healthCheck()).toMatchObject({
      healthy: false,
      reason: "server_cancelled",
      initialized: false,
    });
    await handler.initialize(config());
    expect(await handler.healthCheck()).toMatchObject({ healthy: true });
  });

  it("server_crashed: the server's own error, its text cut to 200 characters", async () => {
    const log = recordingLogger();
    const handler = await serve({}, { log });
    const port = portOf(handler);
    httpServerOn(port).emit("error", new Error("e".repeat(500)));
    expect(await handler.healthCheck()).toMatchObject({
      healthy: false,
      reason: "server_crashed",
      error: "e".repeat(200),
      initialized: true,
      server_running: false,
      lifecycle_running: true,
    });
    expect(log.lines.find(({ level }) => level === "error")?.message).toMatch(/^MCP server: eee/);
    await handler.shutdown();
    expect(await isFree("127.0.0.1", port)).toBe(true);
    await handler.initialize(config());
    expect(await handler.healthCheck()).toMatchObject({ healthy: true });
  });

  it("server_exited: something else closed the server", async () => {
    const handler = await serve();
    httpServerOn(portOf(handler)).close();
    expect(await handler.healthCheck()).toMatchObject({
      healthy: false,
      reason: "server_exited",
      server_running: false,
    });
    expect(await handler.healthCheck()).not.toHaveProperty("error");
    await handler.shutdown();
    expect(await handler.healthCheck()).toMatchObject({ reason: "not_initialized" });
  });

  it("after a crash the envelope operations still work", async () => {
    const handler = await serve();
    httpServerOn(portOf(handler)).emit("error", new Error("boom"));
    expect(await execute(handler, "mcp.list_tools")).toMatchObject({ tools: [] });
  });
});

describe("GET /health of the server", () => {
  it("says status, tool_count and initialized", async () => {
    const handler = await serve();
    handler.registerTool({ name: "a", description: "d" }, () => 1);
    expect(await (await get(handler, "/health")).json()).toEqual({
      status: "healthy",
      tool_count: 1,
      initialized: true,
    });
  });
});

describe("describe", () => {
  it("says what the handler is, what it supports and how it runs", async () => {
    const handler = await serve();
    handler.registerTool({ name: "a", description: "d" }, () => 1);
    expect(handler.describe()).toMatchObject({
      handler_type: "infra_handler",
      handler_category: "effect",
      transport_type: "mcp",
      supported_operations: ["mcp.list_tools", "mcp.call_tool", "mcp.describe"],
      tool_count: 1,
      initialized: true,
      server_running: true,
      lifecycle_running: true,
      url: handler.url,
      version,
    });
  });

  it("of a handler that is not initialized has no config", () => {
    expect(new HandlerMCP().describe()).toMatchObject({
      config: {},
      url: null,
      initialized: false,
      server_running: false,
      lifecycle_running: false,
      tool_count: 0,
    });
  });

  it("shows the configuration under its own key names", async () => {
    const handler = await serve({ max_tools: 7 });
    expect(handler.describe()["config"]).toMatchObject({
      kafka_enabled: false,
      dev_mode: true,
      port: 0,
      path: "/mcp",
      max_tools: 7,
      timeout_seconds: 30,
      skip_server: false,
      excluded_tags: ["internal", "deprecated", "unsafe"],
      register: { enabled: false, ttl_seconds: 15, deregister_after_seconds: 3600 },
    });
  });

  it("shows no secret, and neither do health, the log and the operation mcp.describe", async () => {
    const log = recordingLogger();
    const secrets = ["an-api-key-in-clear", "a-session-secret-in-clear", "b".repeat(64)];
    const [key, session_secret, sha256] = secrets;
    const api_keys = [
      { name: "one", key },
      { name: "two", sha256 },
    ];
    const handler = await serve({ api_keys, session_secret }, { log });
    await get(handler, "/mcp/tools", { "x-api-key": "a-wrong-key-in-clear" });
    const shown = JSON.stringify([
      handler.describe(),
      await handler.healthCheck(),
      await execute(handler, "mcp.describe"),
      log.lines,
    ]);
    expect(shown).toContain("one");
    expect(shown).toContain("[redacted]");
    for (const secret of [...secrets, "a-wrong-key-in-clear"]) expect(shown).not.toContain(secret);
    const { createHash } = await import("node:crypto");
    expect(shown).not.toContain(createHash("sha256").update(key!).digest("hex"));
  });
});

it("the server takes no signals", async () => {
  const counts = (): number[] =>
    ["SIGTERM", "SIGINT", "SIGHUP", "uncaughtException", "unhandledRejection", "exit"].map((name) =>
      process.listenerCount(name),
    );
  const before = counts();
  const handler = await serve();
  expect(await listOverHttp(handler)).toEqual([]);
  expect(counts()).toEqual(before);
});
