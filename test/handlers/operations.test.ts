import { describe, expect, it } from "vitest";
import {
  content,
  InfraUnavailableError,
  ProtocolConfigurationError,
  RuntimeHostError,
  ToolNotFoundError,
} from "../../src/index.ts";
import { MemoryBus } from "../../src/bus/memory.ts";
import { silentLogger } from "../../src/core/log.ts";
import { HandlerMCP } from "../../src/handlers/mcp.ts";
import { RuntimeHost } from "../../src/runtime/host.ts";
import { root } from "../support/runtime.ts";
import {
  callTool,
  config,
  contractsOf,
  embed,
  execute,
  get,
  isFree,
  makeHandler,
  request,
  serve,
} from "./mcp.ts";

const failure = async (work: Promise<unknown>): Promise<any> =>
  work.then(
    () => expect.fail("it did not fail"),
    (error: unknown) => error,
  );

const tool = (name: string) => ({ name, description: `The tool ${name}.` });

describe("mcp.list_tools", () => {
  it("lists what tools/list and /mcp/tools list, while tools come and go", async () => {
    const folder = await contractsOf({ from_file: [] });
    const handler = await serve({ contracts_dir: folder.path });
    const agree = async (): Promise<string[]> => {
      const { tools } = await execute(handler, "mcp.list_tools");
      expect((await request(handler, "tools/list")).tools).toEqual(tools);
      const page = (await (await get(handler, "/mcp/tools")).json()) as { tools: { name: string }[] };
      expect(page.tools.map(({ name }) => name)).toEqual(tools.map(({ name }: { name: string }) => name));
      return page.tools.map(({ name }) => name);
    };
    expect(await agree()).toEqual(["from_file"]);
    const inputSchema = { type: "object", properties: { n: { type: "number" } } };
    handler.registerTool({ ...tool("b"), title: "B", inputSchema, annotations: { readOnly: true } }, () => 1);
    expect(await agree()).toEqual(["b", "from_file"]);
    handler.unregisterTool("b");
    expect(await agree()).toEqual(["from_file"]);
  });

  it("gives name, description and inputSchema of each, and handler_id", async () => {
    const handler = await embed();
    handler.registerTool(tool("a"), () => 1);
    expect(await execute(handler, "mcp.list_tools")).toEqual({
      tools: [{ name: "a", description: "The tool a.", inputSchema: { type: "object" } }],
      handler_id: "mcp-handler",
    });
  });
});

describe("mcp.call_tool", () => {
  it("answers with the result, its correlation_id and how long it took", async () => {
    const time = { now: 100 };
    const handler = await embed({}, { clock: { now: () => time.now } });
    handler.registerTool({ ...tool("add"), outputSchema: { type: "object" } }, ({ a, b }) => {
      time.now += 25;
      return { sum: Number(a) + Number(b) };
    });
    expect(await callTool(handler, "add", { a: 1, b: 2 })).toEqual({
      success: true,
      content: [{ type: "text", text: '{"sum":3}' }],
      is_error: false,
      error_message: null,
      structured_content: { sum: 3 },
      correlation_id: "c-1",
      execution_time_ms: 25,
      handler_id: "mcp-handler",
    });
  });

  it("hands the correlation_id to the tool", async () => {
    const handler = await embed();
    handler.registerTool(tool("a"), (_input, { correlationId }) => correlationId);
    expect(await callTool(handler, "a")).toMatchObject({ content: [{ text: "c-1" }] });
  });

  it("answers as tools/call does over HTTP", async () => {
    const handler = await serve();
    handler.registerTool(tool("a"), () =>
      content(
        [
          { type: "text", text: "one" },
          { type: "image", data: "AAAA", mimeType: "image/png" },
        ],
        {
          structuredContent: { n: 1 },
        },
      ),
    );
    const answer = await callTool(handler, "a");
    const overHttp = await request(handler, "tools/call", { name: "a" });
    expect(overHttp).toMatchObject({ content: answer.content, structuredContent: answer.structured_content });
    expect(answer.content).toHaveLength(2);
  });

  it("a tool's own failure is a result with is_error and its message, not an error", async () => {
    const handler = await embed();
    handler.registerTool(tool("thrower"), () => {
      throw new Error("no such order");
    });
    handler.registerTool(tool("refuser"), () =>
      content(
        [
          { type: "text", text: "one" },
          { type: "text", text: "two" },
        ],
        { isError: true },
      ),
    );
    expect(await callTool(handler, "thrower")).toMatchObject({
      success: false,
      is_error: true,
      error_message: "no such order",
      structured_content: null,
    });
    expect(await callTool(handler, "refuser")).toMatchObject({ is_error: true, error_message: "one\ntwo" });
  });

  it("arguments that the schema refuses are a result with is_error", async () => {
    const handler = await embed();
    const inputSchema = { type: "object", properties: { n: { type: "number" } }, required: ["n"] };
    handler.registerTool({ ...tool("a"), inputSchema }, () => expect.fail("it ran"));
    const answer = await callTool(handler, "a", { n: "x" });
    expect(answer).toMatchObject({ success: false, is_error: true });
    expect(answer.error_message).toMatch(/\bn\b.*number/s);
  });

  it("without arguments the tool gets an empty object", async () => {
    const handler = await embed();
    handler.registerTool(tool("a"), (input) => input);
    expect(await execute(handler, "mcp.call_tool", { tool_name: "a" })).toMatchObject({
      structured_content: {},
    });
  });

  it("an unknown tool is an InfraUnavailableError that cannot be retried", async () => {
    const error = await failure(callTool(await embed(), "nope"));
    expect(error).toBeInstanceOf(InfraUnavailableError);
    expect(error).toBeInstanceOf(ToolNotFoundError);
    expect(error).toMatchObject({
      message: "Unknown tool: nope",
      code: "ONEX_CORE_205_SERVICE_UNAVAILABLE",
      retryable: false,
    });
  });

  it("an open breaker is an InfraUnavailableError that can be retried", async () => {
    const folder = await contractsOf({});
    // A port that was held a moment ago and is free now: nobody answers there.
    const port = await freePort();
    await folder.write(
      "r/contract.yaml",
      `name: r\nnode_type: ORCHESTRATOR\nnode_version: 1.0.0\nmcp:\n  expose: true\n  description: d\n  execution: { kind: rest, method: GET, url: 'http://127.0.0.1:${port}/' }\n`,
    );
    const handler = await serve({ contracts_dir: folder.path });
    // Four attempts of the first call and one of the second.
    for (let count = 0; count < 2; count++)
      expect(await callTool(handler, "r")).toMatchObject({ is_error: true, success: false });
    const error = await failure(callTool(handler, "r"));
    expect(error).toBeInstanceOf(InfraUnavailableError);
    expect(error).not.toBeInstanceOf(ToolNotFoundError);
    expect(error).toMatchObject({ retryable: true, code: "ONEX_CORE_205_SERVICE_UNAVAILABLE" });
    expect(await request(handler, "tools/call", { name: "r" })).toMatchObject({ isError: true });
  });

  async function freePort(): Promise<number> {
    const handler = await serve();
    const { port } = new URL(handler.url!);
    await handler.shutdown();
    expect(await isFree("127.0.0.1", Number(port))).toBe(true);
    return Number(port);
  }

  it.each([[{}], [{ tool_name: "" }], [{ tool_name: 5 }], [{ tool_name: null }]])(
    "%j lacks a tool_name",
    async (payload) => {
      const error = await failure(execute(await embed(), "mcp.call_tool", payload));
      expect(error).toBeInstanceOf(ProtocolConfigurationError);
      expect(error.message).toMatch(
        /^Missing 'tool_name' in the payload of mcp\.call_tool: expected a non-empty string, got /,
      );
    },
  );

  it.each([[[1]], ["text"], [5]])("arguments %j are refused: they must be an object", async (args) => {
    const error = await failure(execute(await embed(), "mcp.call_tool", { tool_name: "a", arguments: args }));
    expect(error).toBeInstanceOf(ProtocolConfigurationError);
    expect(error.message).toMatch(/^'arguments' in the payload of mcp\.call_tool: expected an object, got /);
  });

  it("ends with the caller's signal", async () => {
    const handler = await embed();
    const begun = Promise.withResolvers<AbortSignal>();
    handler.registerTool(tool("a"), (_input, { signal }) => {
      begun.resolve(signal);
      return new Promise(() => undefined);
    });
    const caller = new AbortController();
    const answer = handler.execute(
      { operation: "mcp.call_tool", payload: { tool_name: "a" } },
      { signal: caller.signal },
    );
    const signal = await begun.promise;
    caller.abort();
    expect(await answer).toMatchObject({ is_error: true });
    expect(signal.aborted).toBe(true);
  });
});

describe("mcp.describe", () => {
  it("answers with the description and handler_id", async () => {
    const handler = await embed();
    expect(await execute(handler, "mcp.describe")).toEqual({
      ...handler.describe(),
      handler_id: "mcp-handler",
    });
  });
});

describe("execute", () => {
  it("on a handler that is not initialized is a RuntimeHostError", async () => {
    const handler = makeHandler();
    const error = await failure(execute(handler, "mcp.list_tools"));
    expect(error).toBeInstanceOf(RuntimeHostError);
    expect(error).toMatchObject({
      code: "ONEX_CORE_081_OPERATION_FAILED",
      message: "HandlerMCP is not initialized; call initialize() first",
    });
    await handler.initialize(config());
    await handler.shutdown();
    expect(await failure(execute(handler, "mcp.list_tools"))).toBeInstanceOf(RuntimeHostError);
  });

  it("an unknown operation is refused with the supported ones", async () => {
    const error = await failure(execute(await embed(), "mcp.drop_tools"));
    expect(error).toBeInstanceOf(ProtocolConfigurationError);
    expect(error.message).toBe(
      "Unknown operation 'mcp.drop_tools'. Supported: mcp.list_tools, mcp.call_tool, mcp.describe",
    );
  });

  it("a missing operation is refused with the supported ones", async () => {
    const handler = await embed();
    for (const envelope of [{}, { operation: "" }]) {
      const error = await failure(handler.execute(envelope));
      expect(error).toBeInstanceOf(ProtocolConfigurationError);
      expect(error.message).toBe("Missing operation. Supported: mcp.list_tools, mcp.call_tool, mcp.describe");
    }
  });

  it("needs no more of an envelope than the operation and its payload", async () => {
    const handler = await embed();
    handler.registerTool(tool("a"), () => 1);
    const answer = await handler.execute({ operation: "mcp.call_tool", payload: { tool_name: "a" } });
    expect(answer).toMatchObject({ success: true, correlation_id: expect.stringMatching(/^[0-9a-f-]{36}$/) });
  });

  it("through a runtime host, answers carry handler_id mcp-handler", async () => {
    const bus = new MemoryBus();
    const host = new RuntimeHost({
      name: "test",
      version: "1",
      inputTopic: "requests",
      outputTopic: "responses",
      consumerGroup: "test",
      bus,
      handlers: { mcp: { config: { skip_server: true } } },
      handlerSource: { mode: "bootstrap", allowBootstrapOverride: false },
      bootstrap: [
        {
          handlerClass: "onex-runtime#HandlerMCP",
          contractFile: `${root}contracts/handlers/mcp/handler_contract.yaml`,
          load: async () => HandlerMCP,
        },
      ],
      allowedNamespaces: [],
      shutdown: { drainTimeoutSeconds: 1, handlerTimeoutSeconds: 1, gracePeriodSeconds: 5 },
      maxConcurrency: 4,
      healthCheckTimeoutSeconds: 5,
      env: {},
      log: silentLogger,
    });
    await host.start();
    try {
      const good = await host.handle({ operation: "mcp.list_tools", payload: {} });
      expect(good).toMatchObject({ success: true, handler_id: "mcp-handler", payload: { tools: [] } });
      const bad = await host.handle({ operation: "mcp.call_tool", payload: { tool_name: "nope" } });
      expect(bad).toMatchObject({
        success: false,
        handler_id: "mcp-handler",
        error: { code: "ONEX_CORE_205_SERVICE_UNAVAILABLE", retryable: false },
      });
    } finally {
      await host.stop();
    }
  });
});
