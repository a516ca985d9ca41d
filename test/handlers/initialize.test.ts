import { Server } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { ProtocolConfigurationError, RuntimeHostError } from "../../src/index.ts";
import { MemoryBus } from "../../src/bus/memory.ts";
import type { EventBus } from "../../src/bus/bus.ts";
import type { HandlerConfig } from "../../src/runtime/handler.ts";
import { hasIPv6 } from "../http/sockets.ts";
import {
  callTool,
  config,
  contractsOf,
  embed,
  get,
  heldBefore,
  heldMore,
  isFree,
  listOverHttp,
  makeHandler,
  occupy,
  openSession,
  openStream,
  portOf,
  post,
  recordingLogger,
  request,
  required,
  serve,
  toolNames,
} from "./mcp.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

const tool = (name: string) => ({ name, description: `The tool ${name}.` });
const failure = async (work: Promise<unknown>): Promise<ProtocolConfigurationError> =>
  work.then(
    () => expect.fail("it did not fail"),
    (error: unknown) => error as ProtocolConfigurationError,
  );

describe("required configuration", () => {
  it.each(Object.keys(required))("%s is required: a start without it names it", async (key) => {
    const { [key]: _, ...rest } = { ...required } as Record<string, unknown>;
    const error = await failure(makeHandler().initialize({ ...rest, port: 0 }));
    expect(error).toBeInstanceOf(ProtocolConfigurationError);
    expect(error.code).toBe("ONEX_CORE_041_INVALID_CONFIGURATION");
    expect(error.message).toBe(
      `Missing required config: '${key}'. Must be set in .env or the runtime config.`,
    );
  });

  it.each([
    ["consul_host", 5, "expected string, got number"],
    ["consul_port", "8500", "expected integer, got string"],
    ["kafka_enabled", "false", "expected boolean, got string"],
    ["dev_mode", 1, "expected boolean, got number"],
    ["skip_server", "true", "expected boolean, got string"],
  ])("%s of the wrong type is an error that says so", async (key, value, expected) => {
    const error = await failure(makeHandler().initialize(config({ [key]: value })));
    expect(error).toBeInstanceOf(ProtocolConfigurationError);
    expect(error.message).toBe(`Invalid config type for '${key}': ${expected}`);
  });

  it("a value out of its range is an error", async () => {
    await expect(makeHandler().initialize(config({ timeout_seconds: 301 }))).rejects.toThrow(
      "Invalid config value for 'timeout_seconds': expected at most 300, got 301",
    );
  });

  it("a refused configuration opens nothing and leaves the handler as it was", async () => {
    const before = await heldBefore();
    const handler = makeHandler();
    await failure(handler.initialize({}));
    expect(await heldMore(before)).toEqual({});
    expect(await handler.healthCheck()).toMatchObject({ healthy: false, reason: "not_initialized" });
    await handler.initialize(config());
  });
});

describe("kafka_enabled", () => {
  const kafka: EventBus = new Proxy({ follow: undefined } as unknown as EventBus, {
    get: (_target, name) => {
      if (name === "health") return () => ({ healthy: true, type: "kafka" });
      throw new Error(`the bus was used: ${String(name)}`);
    },
  });

  it("is an error where the host's bus is not Kafka", async () => {
    const error = await failure(
      makeHandler({ bus: new MemoryBus() }).initialize(config({ kafka_enabled: true })),
    );
    expect(error).toBeInstanceOf(ProtocolConfigurationError);
    expect(error.message).toBe(
      "Config key 'kafka_enabled' is true, but the host's event bus is inmemory: set kafka_enabled: false, or run the host on Kafka.",
    );
  });

  it("is an error where there is no bus", async () => {
    await expect(makeHandler().initialize(config({ kafka_enabled: true }))).rejects.toThrow(
      "the host's event bus is absent",
    );
  });

  it("with dev_mode a Kafka bus is accepted and not contacted", async () => {
    await serve({ kafka_enabled: true }, { bus: kafka });
  });

  it("asks for no bus with skip_server", async () => {
    await embed({ ...required, kafka_enabled: true });
  });
});

describe("skip_server", () => {
  it.each(["true", 1, null, {}])("%j is no boolean and is refused", async (value) => {
    await expect(makeHandler().initialize({ ...required, skip_server: value })).rejects.toThrow(
      /^Invalid config type for 'skip_server': expected boolean, got /,
    );
  });

  it("opens no port", async () => {
    const listen = vi.spyOn(Server.prototype, "listen");
    // Until the sockets of earlier tests are gone.
    await heldBefore();
    const folder = await contractsOf({ a: [] });
    const handler = await embed({ contracts_dir: folder.path });
    expect(await toolNames(handler)).toEqual(["a"]);
    expect(listen).not.toHaveBeenCalled();
    expect(process.getActiveResourcesInfo().filter((kind) => kind.startsWith("TCP"))).toEqual([]);
    expect([handler.url, handler.endpoint]).toEqual([undefined, undefined]);
  });

  it("the four required keys may be absent, and are still checked for their type", async () => {
    await embed();
    await expect(embed({ consul_port: "x" })).rejects.toThrow("Invalid config type for 'consul_port'");
  });

  it("contracts and registered tools are listed and called through execute", async () => {
    const folder = await contractsOf({ from_file: [] });
    const handler = await embed({ contracts_dir: folder.path });
    handler.registerTool(tool("from_code"), () => "from code");
    expect(await toolNames(handler)).toEqual(["from_code", "from_file"]);
    expect(await callTool(handler, "from_file")).toMatchObject({
      success: true,
      content: [{ type: "text", text: "from from_file" }],
    });
    expect(await callTool(handler, "from_code")).toMatchObject({
      success: true,
      content: [{ type: "text", text: "from code" }],
    });
  });
});

describe("the configuration takes effect", () => {
  it("host is 127.0.0.1, path /mcp", async () => {
    const handler = await serve();
    expect(handler.endpoint).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/mcp$/);
    expect(await listOverHttp(handler)).toEqual([]);
  });

  it("port 0 picks a free one, which is reported and logged", async () => {
    const log = recordingLogger();
    const handler = await serve({}, { log });
    expect(portOf(handler)).toBeGreaterThan(0);
    expect(handler.describe()).toMatchObject({ url: handler.url });
    expect(log.lines).toContainEqual(
      expect.objectContaining({
        message: "MCP server is running",
        fields: expect.objectContaining({ url: handler.url }),
      }),
    );
  });

  it("a path of one's own is the endpoint, and /mcp is none then", async () => {
    const handler = await serve({ path: "/tools/v1" });
    expect(new URL(handler.endpoint!).pathname).toBe("/tools/v1");
    expect(await listOverHttp(handler)).toEqual([]);
    expect((await get(handler, "/mcp")).status).toBe(404);
  });

  it("sessions are on by default; stateless has no session ids and no GET stream", async () => {
    expect(await openSession(await serve())).not.toBe("");
    const stateless = await serve({ stateless: true });
    expect(await openSession(stateless)).toBe("");
    const stream = await fetch(stateless.endpoint!, { headers: { accept: "text/event-stream" } });
    expect([stream.status, stream.headers.get("allow")]).toEqual([405, "POST"]);
    expect(await listOverHttp(stateless)).toEqual([]);
  });

  it("json_response is on by default; off, every answer is a stream", async () => {
    const kindOf = async (changes: HandlerConfig): Promise<string | null> => {
      const response = await post(await serve(changes), "tools/list");
      await response.text();
      return response.headers.get("content-type");
    };
    expect(await kindOf({})).toBe("application/json");
    expect(await kindOf({ json_response: false })).toBe("text/event-stream");
  });

  it("an answer preceded by a notification is a stream", async () => {
    const handler = await serve();
    handler.registerTool(tool("a"), (_input, { progress }) => progress(1, 2));
    const response = await post(handler, "tools/call", { name: "a", _meta: { progressToken: "t" } });
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(await response.text()).toContain("notifications/progress");
  });

  it("max_sessions limits the sessions in use", async () => {
    const handler = await serve({ max_sessions: 1 });
    const stream = await openStream(handler, await openSession(handler));
    expect(stream.status).toBe(200);
    expect(
      (
        await post(handler, "initialize", {
          protocolVersion: "2025-11-25",
          capabilities: {},
          clientInfo: { name: "t", version: "1" },
        })
      ).status,
    ).toBe(503);
    await stream.body?.cancel();
  });

  it("session_secret lets another server with the same one take a session over", async () => {
    const [one, two, other] = await Promise.all([
      serve({ session_secret: "0123456789abcdef" }),
      serve({ session_secret: "0123456789abcdef" }),
      serve(),
    ]);
    const session = { "mcp-session-id": await openSession(one) };
    expect((await post(two, "tools/list", {}, session)).status).toBe(200);
    expect((await post(other, "tools/list", {}, session)).status).toBe(404);
  });

  it("session_ttl_seconds ends a session without traffic", async () => {
    const time = { now: 0 };
    const handler = await serve({ session_ttl_seconds: 60 }, { clock: { now: () => time.now } });
    const session = { "mcp-session-id": await openSession(handler) };
    expect((await post(handler, "tools/list", {}, session)).status).toBe(200);
    time.now = 61_000;
    await vi.waitFor(() => expect(handler.gateway?.sessionCount).toBe(0), 5_000);
    expect((await post(handler, "tools/list", {}, session)).status).toBe(404);
  });

  it("page_size cuts the list into pages", async () => {
    const handler = await serve({ page_size: 1 });
    for (const name of ["a", "b"]) handler.registerTool(tool(name), () => name);
    const first = await request(handler, "tools/list");
    expect(first.tools).toHaveLength(1);
    const second = await request(handler, "tools/list", { cursor: first.nextCursor });
    expect([second.tools[0].name, second.nextCursor]).toEqual(["b", undefined]);
  });

  it("timeout_seconds ends a call whose tool names no limit", async () => {
    const handler = await embed({ timeout_seconds: 1 });
    handler.registerTool(tool("a"), () => new Promise(() => undefined));
    const result = await callTool(handler, "a");
    expect(result).toMatchObject({ success: false, error_message: 'The tool "a" took longer than 1 s.' });
  });

  it("max_tools, required_tags and excluded_tags choose among the tools of contracts", async () => {
    const folder = await contractsOf({ a: ["x"], b: ["x", "y"], c: ["x"], d: [], e: ["x", "internal"] });
    const contracts_dir = folder.path;
    expect(await toolNames(await embed({ contracts_dir }))).toEqual(["a", "b", "c", "d"]);
    expect(await toolNames(await embed({ contracts_dir, max_tools: 2 }))).toEqual(["a", "b"]);
    expect(await toolNames(await embed({ contracts_dir, required_tags: ["x"] }))).toEqual(["a", "b", "c"]);
    expect(await toolNames(await embed({ contracts_dir, excluded_tags: ["x"] }))).toEqual(["d"]);
  });

  it("contracts_dir is served in dev_mode, and an edit takes effect", async () => {
    const folder = await contractsOf({ a: [] });
    const handler = await serve({ contracts_dir: folder.path });
    expect(await listOverHttp(handler)).toEqual(["a"]);
    await folder.remove("a");
    await vi.waitFor(async () => expect(await listOverHttp(handler)).toEqual([]), 5_000);
  });

  it("api_keys are asked for, and only an admin's shows endpoints", async () => {
    const api_keys = [
      { name: "u", role: "user", key: "user-key-1" },
      { name: "a", role: "admin", key: "admin-key-1" },
    ];
    const handler = await serve({ api_keys });
    handler.registerTool(tool("a"), () => 1);
    const tools = async (headers: Record<string, string>): Promise<any> =>
      get(handler, "/mcp/tools", headers);
    expect((await tools({})).status).toBe(401);
    expect((await post(handler, "tools/list")).status).toBe(401);
    expect((await post(handler, "tools/list", {}, { "x-api-key": "user-key-1" })).status).toBe(200);
    expect((await (await tools({ "x-api-key": "user-key-1" })).json()).tools[0]).not.toHaveProperty(
      "endpoints",
    );
    expect((await (await tools({ "x-api-key": "admin-key-1" })).json()).tools[0]).toHaveProperty("endpoints");
  });

  it("allowed_networks keeps a tool's endpoint out of reach", async () => {
    const folder = await contractsOf({});
    await folder.write(
      "r/contract.yaml",
      "name: r\nnode_type: ORCHESTRATOR\nnode_version: 1.0.0\nmcp:\n  expose: true\n  description: d\n  execution: { kind: rest, method: GET, url: 'http://127.0.0.1:9/' }\n",
    );
    const handler = await embed({ contracts_dir: folder.path, allowed_networks: ["10.0.0.0/8"] });
    const result = await callTool(handler, "r");
    expect(result).toMatchObject({ success: false });
    expect(result.error_message).not.toContain("127.0.0.1");
  });
});

describe("addresses", () => {
  it.each(["0.0.0.0", "::"])("%s without authentication is refused", async (host) => {
    await expect(makeHandler().initialize(config({ host }))).rejects.toThrow("allow_unauthenticated: true");
  });

  it("0.0.0.0 is proved ready on 127.0.0.1, and there nobody without a key is an admin", async () => {
    const handler = await serve({ host: "0.0.0.0", allow_unauthenticated: true });
    expect(handler.url).toMatch(/^http:\/\/127\.0\.0\.1:/);
    handler.registerTool(tool("a"), () => 1);
    expect(await listOverHttp(handler)).toEqual(["a"]);
    const { tools } = (await (await get(handler, "/mcp/tools")).json()) as { tools: object[] };
    expect(tools[0]).not.toHaveProperty("endpoints");
  });

  it.runIf(hasIPv6)(":: is proved ready on ::1", async () => {
    const handler = await serve({ host: "::", allow_unauthenticated: true });
    expect(handler.url).toMatch(/^http:\/\/\[::1\]:/);
    expect(await listOverHttp(handler)).toEqual([]);
  });

  it.runIf(hasIPv6)("::1 is loopback and needs no key", async () => {
    const handler = await serve({ host: "::1" });
    expect(handler.url).toMatch(/^http:\/\/\[::1\]:/);
    expect(await listOverHttp(handler)).toEqual([]);
  });

  it("localhost is bound by name", async () => {
    expect(await listOverHttp(await serve({ host: "localhost" }))).toEqual([]);
  });
});

describe("a start that fails", () => {
  it("on a taken port names host and port, and the process goes on", async () => {
    const port = await occupy("127.0.0.1");
    const error = await failure(makeHandler().initialize(config({ port })));
    expect(error).toBeInstanceOf(ProtocolConfigurationError);
    expect(error.message).toBe(
      `MCP server startup failed: cannot listen on 127.0.0.1 port ${port}: the port is taken; stop the program that holds it, or set another port (0 picks a free one)`,
    );
    expect(error.cause).toBeInstanceOf(ProtocolConfigurationError);
    expect(((error.cause as Error).cause as NodeJS.ErrnoException).code).toBe("EADDRINUSE");
  });

  it("on an address that is not this machine's says so", async () => {
    const error = await failure(
      makeHandler().initialize(config({ host: "192.0.2.1", allow_unauthenticated: true })),
    );
    expect(error.message).toMatch(
      /^MCP server startup failed: cannot listen on 192\.0\.2\.1 port 0: the host is no address of this machine/,
    );
  });

  it("on a contracts directory that is not there names it", async () => {
    const error = await failure(
      makeHandler().initialize(config({ contracts_dir: "/nonexistent/contracts" })),
    );
    expect(error.message).toMatch(/^MCP server startup failed: .*\/nonexistent\/contracts/);
    expect(error.cause).toBeInstanceOf(Error);
  });
});

describe("initialize", () => {
  it("a second one without shutdown is refused, and the first server goes on", async () => {
    const handler = await serve();
    const error = await failure(handler.initialize(config()));
    expect(error).toBeInstanceOf(RuntimeHostError);
    expect(error.message).toBe(
      "HandlerMCP is already initialized; initialize it again once shutdown() has resolved",
    );
    expect(await listOverHttp(handler)).toEqual([]);
  });

  it("a second one during the first is refused, and the first goes on", async () => {
    const handler = makeHandler();
    const first = handler.initialize(config());
    await expect(handler.initialize(config())).rejects.toThrow("HandlerMCP is starting");
    await first;
    expect(await listOverHttp(handler)).toEqual([]);
  });

  it("two handlers serve side by side in one process", async () => {
    const [one, two] = await Promise.all([serve(), serve()]);
    one.registerTool(tool("a"), () => 1);
    expect(await listOverHttp(one)).toEqual(["a"]);
    expect(await listOverHttp(two)).toEqual([]);
    await one.shutdown();
    expect(await listOverHttp(two)).toEqual([]);
    expect(await isFree("127.0.0.1", portOf(two))).toBe(false);
  });
});
