import { describe, expect, it, vi } from "vitest";
import { Catalog } from "../../src/index.ts";
import { textResult, type CallTool, type ToolCall, type ToolExecutor } from "../../src/tools/call.ts";
import { makeTool, put } from "../support/tools.ts";
import {
  callTool,
  config,
  contractsOf,
  embed,
  execute,
  listOverHttp,
  makeHandler,
  request,
  serve,
  toolNames,
} from "./mcp.ts";

const namesIn = (catalog: Catalog): string[] => catalog.snapshot().tools.map(({ name }) => name);

describe("an injected registry", () => {
  it("is served from, over HTTP and by envelope, as it changes", async () => {
    const registry = new Catalog();
    put(registry, makeTool("a"));
    const handler = await serve({}, { registry });
    expect(await listOverHttp(handler)).toEqual(["a"]);
    expect(await callTool(handler, "a")).toMatchObject({ content: [{ text: "done" }] });
    put(registry, makeTool("b"));
    expect(await toolNames(handler)).toEqual(["a", "b"]);
  });

  it("survives a shutdown with its own tools; those of the handler leave it and come back with a restart", async () => {
    const folder = await contractsOf({ from_file: [] });
    const registry = new Catalog();
    put(registry, makeTool("own"));
    const handler = await serve({ contracts_dir: folder.path }, { registry });
    handler.registerTool({ name: "from_code", description: "d" }, () => 1);
    expect(namesIn(registry)).toEqual(["from_code", "from_file", "own"]);
    await handler.shutdown();
    expect(namesIn(registry)).toEqual(["own"]);
    put(registry, makeTool("own2"));
    await handler.initialize(config({ contracts_dir: folder.path }));
    expect(await listOverHttp(handler)).toEqual(["from_code", "from_file", "own", "own2"]);
  });

  it("can be shared: one handler's stop takes nothing of the other's", async () => {
    const registry = new Catalog();
    const [one, two] = await Promise.all([embed({}, { registry }), embed({}, { registry })]);
    one.registerTool({ name: "of_one", description: "d" }, () => "one");
    two.registerTool({ name: "of_two", description: "d" }, () => "two");
    expect(await toolNames(one)).toEqual(["of_one", "of_two"]);
    expect(await callTool(one, "of_two")).toMatchObject({ content: [{ text: "two" }] });
    await one.shutdown();
    expect(await toolNames(two)).toEqual(["of_two"]);
    expect(await callTool(two, "of_two")).toMatchObject({ content: [{ text: "two" }] });
  });

  it("gets no tool that is registered during a stop", async () => {
    const registry = new Catalog();
    const handler = await embed({}, { registry });
    const stopping = handler.shutdown();
    handler.registerTool({ name: "late", description: "d" }, () => 1);
    expect(namesIn(registry)).toEqual([]);
    await stopping;
    expect(namesIn(registry)).toEqual([]);
  });

  it("is given back as it was where the start fails", async () => {
    const folder = await contractsOf({ from_file: [] });
    const registry = new Catalog();
    put(registry, makeTool("own"));
    const handler = makeHandler({ registry });
    const changes = { contracts_dir: folder.path, host: "192.0.2.1", allow_unauthenticated: true };
    await expect(handler.initialize(config(changes))).rejects.toThrow("MCP server startup failed");
    expect(namesIn(registry)).toEqual(["own"]);
  });

  it("keeps no listener of a handler that has stopped", async () => {
    const registry = new Catalog();
    const heard = new Set<unknown>();
    const onChange = registry.onChange.bind(registry);
    vi.spyOn(registry, "onChange").mockImplementation((listener) => {
      const stop = onChange(listener);
      heard.add(listener);
      return () => {
        heard.delete(listener);
        stop();
      };
    });
    const handler = await serve({}, { registry });
    expect(heard.size).toBeGreaterThan(0);
    await handler.shutdown();
    expect(heard.size).toBe(0);
  });
});

describe("an injected executor", () => {
  it("executes the calls over HTTP and by envelope, and survives a shutdown", async () => {
    const calls: ToolCall[] = [];
    const call: CallTool = async (toolCall) => {
      calls.push(toolCall);
      return textResult(`executed ${toolCall.name}`);
    };
    const executor = { call };
    const registry = new Catalog();
    put(registry, makeTool("a"));
    const handler = await serve({}, { registry, executor });
    expect(await request(handler, "tools/call", { name: "a", arguments: { n: 1 } })).toMatchObject({
      content: [{ text: "executed a" }],
    });
    expect(await callTool(handler, "a", { n: 2 })).toMatchObject({
      success: true,
      content: [{ text: "executed a" }],
    });
    expect(calls.map(({ arguments: args }) => args)).toEqual([{ n: 1 }, { n: 2 }]);
    await handler.shutdown();
    await handler.initialize(config());
    expect(await callTool(handler, "a")).toMatchObject({ success: true });
  });

  it("is not asked for a tool that is not in the catalog", async () => {
    const call = vi.fn<CallTool>(async () => textResult("never"));
    const handler = await serve({}, { executor: { call } });
    await expect(callTool(handler, "nope")).rejects.toThrow("Unknown tool: nope");
    expect(await request(handler, "tools/call", { name: "nope" })).toMatchObject({ error: { code: -32602 } });
    expect(call).not.toHaveBeenCalled();
  });

  it("its calls are waited for by a graceful shutdown", async () => {
    const gate = Promise.withResolvers<string>();
    const call = vi.fn<CallTool>(async () => textResult(await gate.promise));
    const registry = new Catalog();
    put(registry, makeTool("a"));
    const handler = await embed({}, { registry, executor: { call } });
    const answer = callTool(handler, "a");
    await vi.waitFor(() => expect(call).toHaveBeenCalled());
    let stopped = false;
    const stopping = handler.shutdown().then(() => (stopped = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(stopped).toBe(false);
    gate.resolve("finished");
    expect(await answer).toMatchObject({ success: true });
    await stopping;
  });

  it("its calls are aborted by a forced shutdown, also where it ignores the signal", async () => {
    const signals: AbortSignal[] = [];
    const call: ToolExecutor["call"] = (_toolCall, signal) => {
      signals.push(signal);
      return new Promise(() => undefined);
    };
    const registry = new Catalog();
    put(registry, makeTool("a"));
    const handler = await serve({}, { registry, executor: { call } });
    handler.shutdownTimeout = 0.05;
    const overHttp = request(handler, "tools/call", { name: "a" });
    const byEnvelope = callTool(handler, "a").catch((error: unknown) => error);
    await vi.waitFor(() => expect(signals).toHaveLength(2));
    await handler.shutdown();
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]);
    expect(await overHttp).toMatchObject({ isError: true });
    expect(await byEnvelope).toMatchObject({ message: "The runtime is stopping and has aborted the call." });
  });

  it("what it throws is an error result without internals", async () => {
    const call: CallTool = () => Promise.reject(new Error("ECONNREFUSED 10.0.0.5:5432 in /srv/secret.ts"));
    const registry = new Catalog();
    put(registry, makeTool("a"));
    const handler = await serve({}, { registry, executor: { call } });
    const answers = [await callTool(handler, "a"), await request(handler, "tools/call", { name: "a" })];
    expect(answers).toMatchObject([
      { is_error: true, error_message: "The operation failed." },
      { isError: true },
    ]);
    expect(JSON.stringify(answers)).not.toMatch(/10\.0\.0\.5|secret/);
  });
});

describe("without an injected executor", () => {
  it("a call is executed or fails: it never succeeds without execution", async () => {
    const registry = new Catalog();
    let runs = 0;
    const fn = (): string => `run ${(runs += 1)}`;
    put(registry, makeTool("a", { execution: { kind: "function", fn } }));
    put(
      registry,
      makeTool("missing_module", {
        execution: { kind: "local", module: "/nonexistent/tool.mjs", export: "default" },
      }),
      makeTool("unreachable", { execution: { kind: "onex", endpoints: ["http://127.0.0.1:1/"], path: "/" } }),
      makeTool("no_endpoint", { execution: { kind: "onex", endpoints: [], path: "/" } }),
    );
    const handler = await serve({}, { registry });
    expect(await callTool(handler, "a")).toMatchObject({ success: true, content: [{ text: "run 1" }] });
    expect(await request(handler, "tools/call", { name: "a" })).toMatchObject({
      content: [{ text: "run 2" }],
    });
    for (const name of ["missing_module", "unreachable", "no_endpoint"]) {
      const byEnvelope = await callTool(handler, name).catch((error: unknown) => ({ success: false, error }));
      expect([name, byEnvelope.success]).toEqual([name, false]);
      expect(await request(handler, "tools/call", { name })).toMatchObject({ isError: true });
    }
  });

  it("a handler made without a container has a catalog and an executor of its own", async () => {
    const [one, two] = [await embed(), await embed()];
    one.registerTool({ name: "a", description: "d" }, () => "mine");
    expect(await callTool(one, "a")).toMatchObject({ content: [{ text: "mine" }] });
    expect(await execute(two, "mcp.list_tools")).toMatchObject({ tools: [] });
  });
});
