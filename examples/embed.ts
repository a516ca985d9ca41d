/**
 * A tool server inside a program of your own: HandlerMCP without the runtime around it. In a checkout:
 *
 *   npx node --conditions=onex-source examples/embed.ts
 */
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { defineTool, HandlerMCP } from "onex-runtime";

// The type says what the function gets, the schema makes sure of it: arguments are checked before the function runs.
const convert = defineTool<{ celsius: number }>(
  {
    name: "to_fahrenheit",
    description: "Converts a temperature from degrees Celsius to degrees Fahrenheit.",
    inputSchema: { type: "object", properties: { celsius: { type: "number" } }, required: ["celsius"] },
    annotations: { readOnly: true, idempotent: true },
  },
  ({ celsius }) => ({ fahrenheit: celsius * 1.8 + 32 }),
);

const server = new HandlerMCP();
server.registerTool(convert.definition, convert.fn);
await server.initialize({
  port: 0, // A free one. Leave it out for 8090.
  // Four keys are always asked for, so that nothing is contacted by accident. With dev_mode nothing is.
  dev_mode: true,
  consul_host: "localhost",
  consul_port: 8500,
  kafka_enabled: false,
});
console.log(`Serving ${String(server.describe().tool_count)} tool at ${server.endpoint}`);

// From here on any MCP client can call it. This one stands for them all.
const client = new Client({ name: "embed", version: "1.0.0" });
await client.connect(new StreamableHTTPClientTransport(new URL(server.endpoint!)));
const { structuredContent } = await client.callTool({ name: "to_fahrenheit", arguments: { celsius: 25 } });
console.log("25 °C is", structuredContent);

// Tools may come and go while the server runs; clients are told.
server.unregisterTool("to_fahrenheit");
console.log("Tools left:", (await client.listTools()).tools.length);
await client.close();

// Lets calls under way finish, then closes. A server that is to stay up does this on SIGTERM.
await server.shutdown();
console.log("Stopped");
