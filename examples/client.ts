/**
 * An MCP client in a few lines, with the official SDK (npm package @modelcontextprotocol/client). Start a runtime in one
 * terminal, then run this in another; it takes the URL that the runtime prints:
 *
 *   npm start
 *   npx node examples/client.ts http://127.0.0.1:8090/mcp
 */
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const url = new URL(process.argv[2] ?? "http://127.0.0.1:8090/mcp");
const client = new Client({ name: "example-client", version: "1.0.0" });
await client.connect(new StreamableHTTPClientTransport(url)).catch(() => {
  console.error(
    `Nothing answers at ${url.href}. Start a runtime (npm start) and pass the URL that it prints.`,
  );
  process.exit(1);
});
console.log(`Connected to ${client.getServerVersion()?.name ?? "a server"} at ${url.href}`);

// What is there? The list comes from the contracts, and it changes when they do.
const { tools } = await client.listTools();
for (const { name, description } of tools) console.log(`  ${name}: ${description ?? ""}`);

// A tool with an output schema answers with structured content: data, rather than text about data.
const { structuredContent } = await client.callTool({
  name: "text_statistics",
  arguments: { text: "One call. Two sentences." },
});
console.log("text_statistics:", structuredContent);

// A slow tool reports its progress to a client that asks for it.
const waited = await client.callTool(
  { name: "wait", arguments: { seconds: 0.5, reason: "trying progress" } },
  { onprogress: ({ progress, total, message }) => console.log(`  ${progress}/${total} ${message}`) },
);
console.log("wait:", waited.content);

// A call that fails is an answer too: isError, with a text that a model can act on.
const refused = await client.callTool({ name: "wait", arguments: { seconds: "a while" } });
console.log("refused:", refused.isError, refused.content);

await client.close();
