/** The server registers itself when it is ready and takes itself out when it stops, on a real Consul. */
import { expect, onTestFinished, test } from "vitest";
import { Agent, serviceContracts } from "../discovery/own-registration.ts";
import { uniqueName } from "../discovery/consul-agent.ts";
import { consulAddress, describeWithConsul } from "../services/index.ts";
import { config, get, makeHandler, occupy, portOf } from "./mcp.ts";
import { HandlerMCP } from "../../src/handlers/mcp.ts";

const patience = { timeout: 20_000, interval: 20 };

function settings(register: object, more: object = {}) {
  const { host, port } = consulAddress();
  return config({ consul_host: host, consul_port: port, dev_mode: false, register, ...more });
}

const registrationOf = async (handler: HandlerMCP): Promise<any> =>
  (await handler.healthCheck()).registration;

describeWithConsul("a server that is configured to register itself", () => {
  test("is in Consul with its real port and passes its check, and is gone when it has stopped", async () => {
    const agent = new Agent(consulAddress());
    const tool = uniqueName("tool");
    const folder = await serviceContracts({ [tool]: "http://127.0.0.1:1" });
    const handler = new HandlerMCP();
    onTestFinished(() => handler.shutdown());
    const register = { enabled: true, name: uniqueName("server"), interval_seconds: 1 };
    await handler.initialize(settings(register, { contracts_dir: folder.path }));
    const ids = [`${register.name}-127.0.0.1-${portOf(handler)}`, `${tool}-127.0.0.1-1`];
    await agent.until(ids, ids);
    await expect
      .poll(() => registrationOf(handler), patience)
      .toEqual({
        state: "registered",
        service_id: ids[0],
        tools: 1,
        last_error: null,
      });
    expect(await agent.check(ids[0]!)).toMatchObject({ Type: "http", Status: "passing" });
    // Consul has asked for itself by now.
    const output = async (): Promise<unknown> => (await agent.check(ids[0]!))?.Output;
    await expect.poll(output, patience).toMatch(/\/ready: 200/);
    const listed: any = await (await get(handler, "/mcp/tools")).json();
    expect(listed.tools).toEqual([expect.objectContaining({ name: tool, source: "contract" })]);
    await handler.shutdown();
    expect(await agent.present(...ids)).toEqual([]);
  });

  test("is registered again after a restart of the handler", async () => {
    const agent = new Agent(consulAddress());
    const handler = new HandlerMCP();
    onTestFinished(() => handler.shutdown());
    const register = { enabled: true, name: uniqueName("server"), id: uniqueName("id"), check: "ttl" };
    for (let round = 0; round < 2; round += 1) {
      await handler.initialize(settings(register));
      await agent.until([register.id], [register.id]);
      await handler.shutdown();
      expect(await agent.present(register.id)).toEqual([]);
    }
  });

  test("registers nothing where it is not to, where its start fails, and in dev_mode", async () => {
    const agent = new Agent(consulAddress());
    const id = uniqueName("id");
    const taken = await occupy("127.0.0.1");
    await expect(makeHandler().initialize(settings({ enabled: true, id }, { port: taken }))).rejects.toThrow(
      "port is taken",
    );
    for (const changes of [
      settings({ id }),
      settings({ enabled: true, id }, { dev_mode: true }),
      settings({ enabled: true, id }, { skip_server: true }),
    ]) {
      const handler = makeHandler();
      await handler.initialize(changes);
      expect(await registrationOf(handler)).toBeUndefined();
    }
    expect(await agent.present(id)).toEqual([]);
  });

  test("starts and stops in time where Consul cannot be reached", async () => {
    const handler = makeHandler();
    await handler.initialize(settings({ enabled: true }, { consul_port: 1 }));
    await expect.poll(async () => (await registrationOf(handler)).state, patience).toBe("degraded");
    expect((await registrationOf(handler)).last_error).toContain("cannot be reached");
    await handler.shutdown();
  });
});
