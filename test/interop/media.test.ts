/** What services send by their content types, as clients nobody here wrote receive it. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import { Catalog } from "../../src/index.ts";
import { serve } from "../handlers/mcp.ts";
import { makeTool, put } from "../support/tools.ts";
import { sdk1, sdk2 } from "./clients.ts";

const bytes = Buffer.from([0, 1, 2, 0xfe, 0xff]);

/** Answers with the type that the path names. */
async function typed(): Promise<string> {
  const server = createServer((request, response) => {
    const type = (request.url ?? "").slice(1);
    response.setHeader("content-type", type);
    response.end(type.endsWith("json") ? '{\n  "a": 1\n}' : type.startsWith("text") ? "plain" : bytes);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

it.each([
  ["SDK 1.x", sdk1],
  ["SDK 2.x, 2025-11-25", sdk2("legacy")],
  ["SDK 2.x, 2026-07-28", sdk2("modern")],
])("%s receives images, sounds, files, text and JSON", async (_client, connect) => {
  const origin = await typed();
  const registry = new Catalog();
  const tool = (name: string, type: string): void => {
    put(registry, makeTool(name, { execution: { kind: "rest", method: "GET", url: `${origin}/${type}` } }));
  };
  tool("image", "image/png");
  tool("sound", "audio/mpeg");
  tool("file", "application/pdf");
  tool("text", "text/plain");
  tool("json", "application/json");
  const handler = await serve({}, { registry });
  const client = await connect({ kind: "http", url: new URL(handler.endpoint!) });
  onTestFinished(() => client.close());
  const data = bytes.toString("base64");
  expect((await client.call("image", {})).content).toEqual([{ type: "image", data, mimeType: "image/png" }]);
  expect((await client.call("sound", {})).content).toEqual([{ type: "audio", data, mimeType: "audio/mpeg" }]);
  expect((await client.call("file", {})).content).toEqual([
    {
      type: "resource",
      resource: { uri: "onex-runtime:///tools/file/result", mimeType: "application/pdf", blob: data },
    },
  ]);
  expect((await client.call("text", {})).content).toEqual([{ type: "text", text: "plain" }]);
  // Written over several lines, as services do.
  const json = await client.call("json", {});
  expect(json.structuredContent).toEqual({ a: 1 });
  expect(JSON.parse((json.content as [{ text: string }])[0].text)).toEqual({ a: 1 });
});
