import { describe, expect, it, vi } from "vitest";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Catalog, content, defineTool, HandlerMCP, ProtocolConfigurationError } from "onex-runtime";
import type { ToolDefinition } from "onex-runtime";
import {
  addContract,
  callTool,
  config,
  contractsOf,
  embed,
  listOverHttp,
  makeHandler,
  recordingLogger,
  request,
  serve,
  toolNames,
} from "./mcp.ts";

const tool = (name: string) => ({ name, description: `The tool ${name}.` });

describe("registerTool", () => {
  it("before initialize: the tool is served from the start on", async () => {
    const handler = makeHandler();
    expect(handler.registerTool(tool("early"), () => "here")).toBe(true);
    await handler.initialize(config());
    expect(await listOverHttp(handler)).toEqual(["early"]);
    expect(await request(handler, "tools/call", { name: "early" })).toMatchObject({
      content: [{ text: "here" }],
    });
  });

  it("after initialize: the tool is served at once, and clients are told", async () => {
    const handler = await serve();
    const client = new Client({ name: "test", version: "1.0.0" });
    let told = 0;
    client.setNotificationHandler("notifications/tools/list_changed", () => void (told += 1));
    await client.connect(new StreamableHTTPClientTransport(new URL(handler.endpoint!)));
    // The stream for notifications opens after the answer to initialize.
    await vi.waitFor(async () => {
      handler.registerTool(tool("late"), () => "here");
      expect(told).toBeGreaterThan(0);
    });
    expect((await client.listTools()).tools.map(({ name }) => name)).toEqual(["late"]);
    await client.close();
  });

  it("a second one of the same name replaces the first", async () => {
    const handler = await embed({ max_tools: 1 });
    handler.registerTool(tool("a"), () => "first");
    expect(handler.registerTool({ name: "a", description: "Another." }, () => "second")).toBe(true);
    expect(handler.gateway?.catalog.snapshot().tools.map(({ description }) => description)).toEqual([
      "Another.",
    ]);
    expect(await callTool(handler, "a")).toMatchObject({ content: [{ text: "second" }] });
  });

  it("is false when max_tools is reached, and the others stay as they are", async () => {
    const handler = await embed({ max_tools: 2 });
    expect(["m", "n", "a"].map((name) => handler.registerTool(tool(name), () => name))).toEqual([
      true,
      true,
      false,
    ]);
    expect(await toolNames(handler)).toEqual(["m", "n"]);
    handler.unregisterTool("n");
    expect(handler.registerTool(tool("a"), () => "a")).toBe(true);
    expect(await toolNames(handler)).toEqual(["a", "m"]);
  });

  it("a tool that was refused does not come back with a restart", async () => {
    const handler = await embed({ max_tools: 1 });
    handler.registerTool(tool("a"), () => 1);
    handler.registerTool(tool("b"), () => 1);
    await handler.shutdown();
    await handler.initialize({ skip_server: true });
    expect(await toolNames(handler)).toEqual(["a"]);
  });

  it("tools of contracts count for max_tools", async () => {
    const folder = await contractsOf({ a: [] });
    const handler = await embed({ contracts_dir: folder.path, max_tools: 1 });
    expect(handler.registerTool(tool("b"), () => 1)).toBe(false);
    expect(await toolNames(handler)).toEqual(["a"]);
  });

  it("what was registered before a start that has no room for it is named in the log", async () => {
    const log = recordingLogger();
    const handler = makeHandler({ log });
    for (const name of ["a", "b"]) handler.registerTool(tool(name), () => name);
    await handler.initialize({ skip_server: true, max_tools: 1 });
    expect(await toolNames(handler)).toEqual(["a"]);
    expect(log.lines).toContainEqual({
      level: "warn",
      fields: { tool: "b", max_tools: 1 },
      message: "a tool is not served: max_tools is reached",
    });
  });

  it("excluded and required tags keep a registered tool out, and the log says so", async () => {
    const log = recordingLogger();
    const handler = await embed({ required_tags: ["shop"] }, { log });
    expect(handler.registerTool({ ...tool("a"), tags: ["shop"] }, () => 1)).toBe(true);
    expect(handler.registerTool({ ...tool("b"), tags: ["shop", "internal"] }, () => 1)).toBe(true);
    expect(handler.registerTool(tool("c"), () => 1)).toBe(true);
    expect(await toolNames(handler)).toEqual(["a"]);
    expect(log.lines.filter(({ level }) => level === "warn").map(({ fields }) => fields)).toEqual([
      { tool: "b", reason: 'the tag "internal" is in excluded_tags' },
      { tool: "c", reason: 'the tag "shop" of required_tags is missing' },
    ]);
  });

  it("a contract of the same name comes first; the registered tool serves when it goes", async () => {
    const folder = await contractsOf({ a: [] });
    const handler = await embed({ contracts_dir: folder.path });
    handler.registerTool(tool("a"), () => "from code");
    expect(await callTool(handler, "a")).toMatchObject({ content: [{ text: "from a" }] });
    await folder.remove("a");
    await vi.waitFor(async () =>
      expect(await callTool(handler, "a")).toMatchObject({ content: [{ text: "from code" }] }),
    );
    await addContract(folder, "a");
    await vi.waitFor(async () =>
      expect(await callTool(handler, "a")).toMatchObject({ content: [{ text: "from a" }] }),
    );
  });

  it("during a stop it is kept for the next start", async () => {
    const handler = await serve();
    const stopping = handler.shutdown();
    expect(handler.registerTool(tool("a"), () => 1)).toBe(true);
    await stopping;
    await handler.initialize(config());
    expect(await listOverHttp(handler)).toEqual(["a"]);
  });

  it("the definition's title, annotations, icons, timeout and schemas are served", async () => {
    const handler = await serve();
    const icon = { src: "https://example.com/a.png", mimeType: "image/png", sizes: ["48x48"] };
    handler.registerTool(
      {
        ...tool("a"),
        title: "A",
        version: "2.1.0",
        inputSchema: { properties: { n: { type: "number" } } },
        outputSchema: { type: "object", properties: { n: { type: "number" } } },
        annotations: { readOnly: true, destructive: false, idempotent: true, openWorld: false },
        icons: [icon],
        timeoutSeconds: 7,
      },
      ({ n }) => ({ n }),
    );
    expect((await request(handler, "tools/list")).tools).toEqual([
      {
        ...tool("a"),
        title: "A",
        inputSchema: { type: "object", properties: { n: { type: "number" } } },
        outputSchema: { type: "object", properties: { n: { type: "number" } } },
        annotations: {
          readOnlyHint: true,
          destructiveHint: false,
          idempotentHint: true,
          openWorldHint: false,
        },
        icons: [icon],
      },
    ]);
    expect(handler.gateway?.catalog.snapshot().tools[0]).toMatchObject({
      version: "2.1.0",
      timeoutSeconds: 7,
    });
  });

  it("a definition that is changed afterwards changes nothing", async () => {
    const definition = {
      ...tool("a"),
      inputSchema: { type: "object", properties: {} as Record<string, { type: string }> },
    };
    const handler = await embed();
    handler.registerTool(definition, () => 1);
    definition.name = "b";
    definition.inputSchema.properties["n"] = { type: "number" };
    await handler.shutdown();
    await handler.initialize({ skip_server: true });
    expect(await toolNames(handler)).toEqual(["a"]);
    expect(handler.gateway?.catalog.snapshot().tools[0]?.inputSchema).toEqual({
      type: "object",
      properties: {},
    });
  });
});

describe("a definition that cannot be served is refused with the reason", () => {
  const fine = (): number => 1;
  it.each<[string, unknown, unknown, string]>([
    [
      "no name",
      { description: "d" },
      fine,
      "Tool cannot be served: name: Invalid input: expected string, received undefined",
    ],
    [
      "an empty name",
      { name: "", description: "d" },
      fine,
      "Tool '' cannot be served: a tool's name is empty",
    ],
    [
      "a name with spaces",
      { name: "a b", description: "d" },
      fine,
      `Tool 'a b' cannot be served: the name "a b" has other characters than A-Z a-z 0-9 _ . -`,
    ],
    ["a long name", { name: "n".repeat(65), description: "d" }, fine, "has 65 characters, 64 is the most"],
    [
      "an empty description",
      { name: "a", description: " " },
      fine,
      "Tool 'a' cannot be served: description is empty",
    ],
    ["no description", { name: "a" }, fine, "description: Invalid input: expected string"],
    [
      "a key of the wrong case",
      { name: "a", description: "d", input_schema: {} },
      fine,
      'Unrecognized key: "input_schema"',
    ],
    [
      "an array for a schema",
      { name: "a", description: "d", inputSchema: [] },
      fine,
      "inputSchema is not valid: expected a JSON Schema: an object",
    ],
    [
      "a schema of another type",
      { name: "a", description: "d", inputSchema: { type: "string" } },
      fine,
      `inputSchema is not valid: the root's type must be object, got "string"`,
    ],
    [
      "a bad output schema",
      { name: "a", description: "d", outputSchema: { type: "nonsense" } },
      fine,
      "outputSchema is not valid: ",
    ],
    [
      "a timeout out of range",
      { name: "a", description: "d", timeoutSeconds: 301 },
      fine,
      "timeoutSeconds: Too big: expected number to be <=300",
    ],
    [
      "tags that are no list",
      { name: "a", description: "d", tags: "x" },
      fine,
      "tags: Invalid input: expected array",
    ],
    [
      "an icon that runs code",
      { name: "a", description: "d", icons: [{ src: "javascript:alert(1)" }] },
      fine,
      "icons.0.src: expected an https: URL or data:image",
    ],
    [
      "an unknown annotation",
      { name: "a", description: "d", annotations: { readOnlyHint: true } },
      fine,
      'annotations: Unrecognized key: "readOnlyHint"',
    ],
    [
      "no function",
      { name: "a", description: "d" },
      undefined,
      "Tool 'a' cannot be served: its function is undefined",
    ],
    ["null", null, fine, "Tool cannot be served: Invalid input: expected object, received null"],
    [
      "several at once",
      { name: "a b", description: "" },
      5,
      "; description is empty; its function is number",
    ],
  ])("%s", async (_what, definition, fn, message) => {
    const handler = makeHandler();
    const register = (): boolean => handler.registerTool(definition as ToolDefinition, fn as typeof fine);
    // Before a start as after it.
    for (const step of [async () => undefined, () => handler.initialize({ skip_server: true })]) {
      await step();
      expect(register).toThrow(ProtocolConfigurationError);
      expect(register).toThrow(message);
    }
    expect(await toolNames(handler)).toEqual([]);
  });
});

describe("unregisterTool", () => {
  it("takes the tool away at once; false when there is none", async () => {
    const handler = await serve();
    handler.registerTool(tool("a"), () => 1);
    expect([handler.unregisterTool("a"), handler.unregisterTool("a"), handler.unregisterTool("b")]).toEqual([
      true,
      false,
      false,
    ]);
    expect(await listOverHttp(handler)).toEqual([]);
    await handler.shutdown();
    await handler.initialize(config());
    expect(await listOverHttp(handler)).toEqual([]);
  });

  it("before initialize the tool is not served", async () => {
    const handler = makeHandler();
    handler.registerTool(tool("a"), () => 1);
    expect(handler.unregisterTool("a")).toBe(true);
    await handler.initialize({ skip_server: true });
    expect(await toolNames(handler)).toEqual([]);
  });

  it("leaves a contract's tool alone", async () => {
    const folder = await contractsOf({ a: [] });
    const handler = await embed({ contracts_dir: folder.path });
    expect(handler.unregisterTool("a")).toBe(false);
    expect(await toolNames(handler)).toEqual(["a"]);
  });
});

describe("embedding, from the package's name", () => {
  it("defineTool types the input, in place and apart", async () => {
    const greet = defineTool<{ name: string }>(
      { name: "greet", description: "Greets." },
      ({ name }) => `Hello ${name.toUpperCase()}`,
    );
    const handler = new HandlerMCP();
    handler.registerTool(greet.definition, greet.fn);
    handler.registerTool<{ n: number }>({ name: "double", description: "Doubles." }, ({ n }) => ({
      n: n * 2,
    }));
    handler.registerTool({ name: "raw", description: "Echoes." }, (input, { signal }) => {
      // @ts-expect-error -- without a type the members are unknown
      const text: string = input["text"];
      return content([{ type: "text", text }], { structuredContent: { aborted: signal.aborted } });
    });
    // @ts-expect-error -- a definition needs a description
    expect(() => handler.registerTool({ name: "x" }, () => 1)).toThrow("description");
    await handler.initialize({ skip_server: true });
    try {
      expect(await callTool(handler, "greet", { name: "Ada" })).toMatchObject({
        content: [{ text: "Hello ADA" }],
      });
      expect(await callTool(handler, "double", { n: 4 })).toMatchObject({ structured_content: { n: 8 } });
      expect(await callTool(handler, "raw", { text: "t" })).toMatchObject({
        content: [{ text: "t" }],
        structured_content: { aborted: false },
      });
    } finally {
      await handler.shutdown();
    }
  });

  it("a catalog of one's own can be handed in", async () => {
    const registry = new Catalog({ maxTools: 1 });
    const handler = await embed({}, { registry });
    expect(handler.registerTool(tool("a"), () => 1)).toBe(true);
    expect(handler.registerTool(tool("b"), () => 1)).toBe(false);
    expect(registry.snapshot().tools.map(({ name }) => name)).toEqual(["a"]);
  });
});
