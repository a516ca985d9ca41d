/** The circuit breakers of a running server, as operators see and reset them. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import { ProtocolConfigurationError, type HandlerMCP } from "../../src/index.ts";
import { Catalog } from "../../src/index.ts";
import { textResult } from "../../src/tools/call.ts";
import { authority } from "../support/certificates.ts";
import { collectingLog } from "../support/log.ts";
import { makeTool, put } from "../support/tools.ts";
import { callTool, config, get, makeHandler, serve } from "./mcp.ts";

/** A service that fails until it is mended. */
async function failing(): Promise<{ origin: string; mend: () => void }> {
  let status = 500;
  const server = createServer((request, response) => {
    request.resume().on("end", () => response.writeHead(status).end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  });
  const { port } = server.address() as AddressInfo;
  return { origin: `http://127.0.0.1:${port}`, mend: () => void (status = 204) };
}

const list = async (handler: HandlerMCP): Promise<unknown> =>
  ((await (await get(handler, "/mcp/circuit-breakers")).json()) as { breakers: unknown }).breakers;

const reset = (handler: HandlerMCP, name: string): Promise<Response> =>
  fetch(new URL(`/mcp/circuit-breakers/${encodeURIComponent(name)}/reset`, handler.url), { method: "POST" });

it("one that opened is shown with its wait, and after a reset its tool is called again", async () => {
  const { origin, mend } = await failing();
  const registry = new Catalog();
  put(registry, makeTool("a", { execution: { kind: "onex", endpoints: [origin], path: "/" } }));
  const { log, lines } = collectingLog();
  const handler = await serve({}, { registry, log });
  expect(await list(handler)).toEqual([]);
  for (let call = 0; call < 5; call++) await callTool(handler, "a");
  expect(await list(handler)).toEqual([{ name: origin, state: "open", retry_after_seconds: 60 }]);
  mend();
  expect((await reset(handler, origin)).status).toBe(200);
  expect(await list(handler)).toEqual([{ name: origin, state: "closed", failures: 0 }]);
  expect(await callTool(handler, "a")).toMatchObject({ is_error: false });
  expect(lines).toContainEqual({
    level: "info",
    fields: { target: origin, by: expect.any(String) },
    message: "a circuit breaker was reset by hand",
  });
});

it("with a borrowed executor there are none, and none can be reset", async () => {
  const handler = await serve({}, { executor: { call: async () => textResult("ok") } });
  expect(await list(handler)).toEqual([]);
  expect((await reset(handler, "http://127.0.0.1:1")).status).toBe(404);
});

it("a certificate that cannot be used stops the start, with the file and the remedy", async () => {
  const { caFile, folder } = authority();
  await makeHandler().initialize(config({ service_ca: caFile }));
  const failed = makeHandler().initialize(config({ service_ca: `${folder}/none.pem` }));
  await expect(failed).rejects.toThrow(ProtocolConfigurationError);
  await expect(failed).rejects.toThrow(/service_ca': .*none\.pem cannot be read \(ENOENT\): give the path/);
});
