/**
 * Testing a tool as it will be served, schemas and error texts included, but with no port and no network: skip_server.
 * Plain assertions here; the same lines go into any test runner. In a checkout:
 *
 *   npx node --conditions=onex-source examples/test-a-tool.ts
 */
import assert from "node:assert/strict";
import { defineTool, HandlerMCP } from "onex-runtime";

// The tool under test.
const divide = defineTool<{ a: number; b: number }>(
  {
    name: "divide",
    description: "Divides a by b.",
    inputSchema: {
      type: "object",
      properties: { a: { type: "number" }, b: { type: "number" } },
      required: ["a", "b"],
      additionalProperties: false,
    },
    outputSchema: { type: "object", properties: { quotient: { type: "number" } }, required: ["quotient"] },
  },
  ({ a, b }) => {
    if (b === 0) throw new Error("b must not be 0.");
    return { quotient: a / b };
  },
);

const handler = new HandlerMCP();
handler.registerTool(divide.definition, divide.fn);
// With contracts_dir here the tools of a contracts folder are tested in the same way.
await handler.initialize({ skip_server: true });

/** What a client would get: handlers are called by envelopes, in short an operation and its payload. */
const call = (name: string, args: object): Promise<any> =>
  handler.execute({ operation: "mcp.call_tool", payload: { tool_name: name, arguments: args } });

const good = await call("divide", { a: 1, b: 4 });
assert.equal(good.success, true);
assert.deepEqual(good.structured_content, { quotient: 0.25 });

const failed = await call("divide", { a: 1, b: 0 });
assert.equal(failed.is_error, true);
assert.equal(failed.error_message, "b must not be 0.");

const refused = await call("divide", { a: "one", b: 4 });
assert.match(String(refused.error_message), /\ba\b.*number/s);

await handler.shutdown();
console.log("3 calls, all as expected");
