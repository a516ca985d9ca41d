import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { folder, launcher, run, start } from "./cli.ts";

const initialize = {
  jsonrpc: "2.0",
  id: 1,
  method: "initialize",
  params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "t", version: "1" } },
};

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

test("a promise that a tool leaves rejected does not end the connection; an exception ends it with 1", async () => {
  const cwd = await folder();
  await run(cwd, ["init", "wild"]);
  await writeFile(
    join(cwd, "contracts/nodes/wild/wild.ts"),
    `export default ({ name }: { name: string }) => {
      if (name === "throw") setImmediate(() => { throw new Error("nobody caught"); });
      else void Promise.reject(new Error("left behind"));
      return new Promise((resolve) => setTimeout(resolve, 20, { greetings: [] }));
    };`,
  );
  const { child, ended, printed } = start(cwd, ["stdio"]);
  const call = (id: number, name: string): void => {
    const params = { name: "wild", arguments: { name } };
    child.stdin?.write(`${JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params })}\n`);
  };
  child.stdin?.write(`${JSON.stringify(initialize)}\n`);
  await printed("stdout", /"id":1\b/);
  call(2, "reject");
  await printed("stdout", /"greetings":\[\].*"id":2\b/);
  await printed("stderr", /left behind/);
  call(3, "throw");
  expect(await ended).toMatchObject({ code: 1, stderr: expect.stringContaining("nobody caught") as string });
});
