/** The `mcp` block of a handler contract. */
import { describe, expect, test } from "vitest";
import { parseHandlerContract, type HandlerContract } from "../../src/contract/handler.ts";

const short = { name: "handler-orders", handler_class: "./o.mjs#O", handler_type: "effect" };
const rich = {
  handler_id: "effect.orders.handler",
  name: "Orders",
  description: "Everything about orders.",
  descriptor: { node_archetype: "effect" },
  handler_class: "./o.mjs#O",
};

function contractOf(data: unknown): HandlerContract {
  const result = parseHandlerContract(data);
  if (!result.ok) throw new Error(`${result.code}: ${result.problems.join("; ")}`);
  return result.contract;
}
function problemsOf(data: unknown): { code: string; text: string } {
  const result = parseHandlerContract(data);
  if (result.ok) throw new Error("expected problems");
  return { code: result.code, text: result.problems.join("; ") };
}

describe.each([
  ["the short form", short],
  ["the rich form", rich],
])("mcp in %s", (_form, contract) => {
  test("one tool, its keys beside expose", () => {
    const mcp = {
      expose: true,
      operation: "get",
      tool_name: "get_order",
      title: "Order",
      description: "Gives an order.",
      input_schema: { type: "object", properties: { id: { type: "string" } }, required: ["id"] },
      output_schema: { type: "object" },
      annotations: { read_only: true, destructive: false, idempotent: true, open_world: false },
      tags: ["shop"],
      timeout_seconds: 5,
    };
    const { tools, informational } = contractOf({ ...contract, mcp });
    expect(tools).toEqual([
      {
        operation: "orders.get",
        name: "get_order",
        title: "Order",
        description: "Gives an order.",
        inputSchema: expect.objectContaining({ type: "object", required: ["id"] }),
        outputSchema: expect.objectContaining({ type: "object" }),
        annotations: { readOnly: true, destructive: false, idempotent: true, openWorld: false },
        tags: ["shop"],
        timeoutSeconds: 5,
      },
    ]);
    expect(informational).toEqual([]);
  });

  test("several tools; the operation may name the type, and a tool's name comes of it", () => {
    const tools = [{ operation: "get" }, { operation: "orders.items.list", description: "Items." }];
    const contract_ = contractOf({ ...contract, mcp: { expose: true, tools } });
    expect(contract_.tools.map(({ operation, name }) => [operation, name])).toEqual([
      ["orders.get", "orders_get"],
      ["orders.items.list", "orders_items.list"],
    ]);
  });

  test("without an operation the tool calls execute", () => {
    const [tool] = contractOf({ ...contract, mcp: { expose: true } }).tools;
    expect(tool).toMatchObject({ operation: "orders.execute", name: "orders_execute" });
  });

  test.each([undefined, null, {}, { expose: false }, { expose: null, operation: "get" }])(
    "nothing is a tool where it says %j",
    (mcp) => {
      const { tools, informational } = contractOf({ ...contract, mcp });
      expect({ tools, informational }).toEqual({ tools: [], informational: [] });
    },
  );

  test("keys without effect are told by their path", () => {
    const tools = [{ operation: "get", description: "x", colour: "red", annotations: { shy: true } }];
    expect(contractOf({ ...contract, mcp: { expose: true, tools, price: 3 } }).informational).toEqual([
      "mcp.tools[0].colour",
      "mcp.tools[0].annotations.shy",
      "mcp.price",
      "mcp.tools[0].input_schema: no schema of the arguments: any object is accepted",
    ]);
  });

  test.each([
    [
      "another handler's operation",
      { operation: "prices.get" },
      /mcp\.operation: .*orders\.<verb>.*"prices\.get"/,
    ],
    ["no verb", { operation: "orders." }, /mcp\.operation/],
    ["a time out of range", { timeout_seconds: 301 }, /mcp\.timeout_seconds: .*got 301/],
    ["a schema that is none", { input_schema: { type: "strange" } }, /mcp\.input_schema: /],
    ["a schema in a file", { output_schema: { $ref: "./o.json" } }, /mcp\.output_schema: /],
    ["no list of tools", { tools: {} }, /mcp\.tools: /],
    ["an empty list of tools", { tools: [] }, /mcp\.tools: /],
    ["a text for expose", { expose: "yes" }, /mcp\.expose: .*got "yes"/],
  ])("%s is error 003 and names the key", (_what, mcp, message) => {
    const { code, text } = problemsOf({ ...contract, mcp: { expose: true, ...mcp } });
    expect(code).toBe("HANDLER_LOADER_003");
    expect(text).toMatch(message);
  });

  test("a tool of several without an operation is error 004", () => {
    const { code, text } = problemsOf({ ...contract, mcp: { expose: true, tools: [{ tool_name: "x" }] } });
    expect(code).toBe("HANDLER_LOADER_004");
    expect(text).toBe("mcp.tools.0.operation is missing");
  });

  test("keys of one tool beside a list, or one name twice, are ambiguous: error 040", () => {
    const beside = problemsOf({
      ...contract,
      mcp: { expose: true, title: "x", tools: [{ operation: "get" }] },
    });
    expect(beside).toEqual({ code: "HANDLER_LOADER_040", text: expect.stringContaining("title beside it") });
    const twice = [{ operation: "get" }, { operation: "put", tool_name: "orders_get" }];
    expect(problemsOf({ ...contract, mcp: { expose: true, tools: twice } })).toEqual({
      code: "HANDLER_LOADER_040",
      text: expect.stringContaining("two tools are named orders_get"),
    });
  });
});

test("what a tool does not say comes from the contract: its description, and its deadline within 1..300 s", () => {
  const toolOf = (timeout_ms: number) =>
    contractOf({ ...rich, descriptor: { ...rich.descriptor, timeout_ms }, mcp: { expose: true } }).tools[0];
  expect(toolOf(45_000)).toMatchObject({ description: "Everything about orders.", timeoutSeconds: 45 });
  expect(toolOf(10)?.timeoutSeconds).toBe(1);
  expect(toolOf(3_600_000)?.timeoutSeconds).toBe(300);
  expect(contractOf({ ...rich, mcp: { expose: true } }).tools[0]).not.toHaveProperty("timeoutSeconds");
});

test("a name that clients would refuse is mended and told", () => {
  const { tools, informational } = contractOf({
    ...rich,
    mcp: { expose: true, tool_name: "get an order", input_schema: { type: "object" } },
  });
  expect(tools[0]?.name).toBe("get_an_order");
  expect(informational).toEqual(['mcp: the name "get an order" is served as get_an_order']);
});
