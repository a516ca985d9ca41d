import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { folder, launcher, run, start } from "./cli.ts";

test("an MCP client lists and calls over stdin and stdout, whatever the tool prints", async () => {
  const cwd = await folder();
  await run(cwd, ["init", "my-tool"]);
  await writeFile(
    join(cwd, "contracts/nodes/my-tool/my-tool.ts"),
    'export default () => { console.log("noise"); return { greetings: ["hi"] }; };',
  );
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [launcher, "stdio"],
    cwd,
    stderr: "ignore",
  });
  const client = new Client({ name: "test", version: "1" });
  onTestFinished(() => client.close());
  await client.connect(transport);
  const { tools } = await client.listTools();
  expect(tools.map(({ name }) => name)).toEqual(["my-tool"]);
  const result = await client.callTool({ name: "my-tool", arguments: { name: "Ada" } });
  expect(result.structuredContent).toEqual({ greetings: ["hi"] });
});

test("stdio opens no port, ends with 0 when its client closes, and on a signal", async () => {
  const cwd = await folder();
  await run(cwd, ["init", "my-tool"]);
  const initialize = {
    jsonrpc: "2.0",
    id: 1,
    method: "initialize",
    params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "t", version: "1" } },
  };
  // A port that nobody may bind would fail a server at its start.
  for (const end of ["close", "signal"] as const) {
    const running = start(cwd, ["stdio"], { HANDLER_MCP_PORT: "1", ONEX_HTTP_PORT: "1" });
    running.child.stdin?.write(`${JSON.stringify(initialize)}\n`);
    await running.printed("stdout", /"protocolVersion":"2025-06-18"/);
    if (end === "close") running.child.stdin?.end();
    else running.child.kill("SIGTERM");
    expect((await running.ended).code).toBe(0);
  }
});
