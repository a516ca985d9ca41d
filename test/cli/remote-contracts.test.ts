/** Handler contracts of a real Consul's key-value store, by the client that the runtime reads them with. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { consulContracts } from "../../src/cli/remote-contracts.ts";
import { openConsul, type ConsulClient } from "../../src/discovery/consul-client.ts";
import { defineHandler } from "../../src/runtime/define.ts";
import { Contracts, startedHost, type TestHost } from "../runtime/support.ts";
import { folder as contractsFolder, run, serve } from "./cli.ts";
import { describeWithOwnConsul, startConsul, type Consul } from "../services/index.ts";

const prefix = "onex/contracts/handlers/";
const shippedClass = "onex-runtime#Orders";
const Orders = defineHandler({
  handlerType: "orders",
  operations: { "orders.get": ({ id }) => ({ id }), "bills.get": () => "a bill" },
});

const contract = (type: string, more: Record<string, unknown> = {}): string =>
  stringify({
    handler_id: `effect.${type}.handler`,
    name: type,
    handler_class: shippedClass,
    descriptor: { node_archetype: "effect" },
    ...more,
  });

describeWithOwnConsul("handler contracts in Consul", () => {
  let consul: Consul;
  let client: ConsulClient;

  beforeAll(async () => {
    consul = await startConsul();
    client = await openConsul({ host: consul.host, port: consul.port, scheme: "http" });
    await client.putKey(`${prefix}orders`, contract("orders"));
    await client.putKey(`${prefix}billing/bills.yaml`, contract("bills"));
    await client.putKey(`${prefix}billing/`, "");
    await client.putKey(`${prefix}path`, contract("path", { handler_class: "./path.mjs#Path" }));
    await client.putKey(`${prefix}broken`, "name: [");
    await client.putKey("onex/contracts/nodes/other", "name: other");
  }, 600_000);

  afterAll(async () => {
    client.close();
    await consul.stop();
  });

  async function hostOn(contracts: Contracts, folder: Contracts): Promise<TestHost> {
    const contractFile = await folder.write("orders/handler_contract.yaml", contract("shipped"));
    return await startedHost(contracts, {
      bootstrap: [{ handlerClass: shippedClass, contractFile, load: async () => Orders }],
      remote: consulContracts({ host: consul.host, port: consul.port, scheme: "http" }),
    });
  }

  test("are handlers that answer; each key is in the report with its outcome, folders are none", async () => {
    await using contracts = await Contracts.make();
    await using folder = await Contracts.make();
    await contracts.handler("local", { execute: () => "here" });
    await using host = await hostOn(contracts, folder);
    const answer = await host.host.handle({ operation: "orders.get", payload: { id: 7 } });
    expect(answer).toMatchObject({ payload: { id: 7 }, handler_id: "effect.orders.handler" });
    expect((await host.host.handle({ operation: "bills.get" })).payload).toBe("a bill");
    const { details, status } = await host.host.ready();
    expect(status).toBe("degraded");
    const entries = details.load_report?.entries ?? [];
    expect(entries.map(({ path, outcome, code }) => [path, outcome, code])).toEqual([
      [`bootstrap:${shippedClass}`, "loaded", undefined],
      [`consul:${prefix}billing/bills.yaml`, "loaded", undefined],
      [`consul:${prefix}broken`, "failed", "HANDLER_LOADER_002"],
      [`consul:${prefix}orders`, "loaded", undefined],
      [`consul:${prefix}path`, "failed", "HANDLER_LOADER_013"],
      ["local/handler_contract.yaml", "loaded", undefined],
    ]);
  });

  test("are checked by onex check, and served by a runtime whose configuration has a consul block", async () => {
    const cwd = await contractsFolder({
      "contracts/runtime/runtime_config.yaml": stringify({
        consul: { host: consul.host, port: consul.port },
        handlers: {
          web: { allowed_hosts: ["127.0.0.1"] },
          mcp: { consul_host: "x", consul_port: 1, kafka_enabled: false, dev_mode: true, port: 0 },
        },
        health: { port: 0 },
      }),
    });
    await client.putKey(`${prefix}web`, contract("web", { handler_class: "onex-runtime#HandlerHttp" }));
    const { code, stdout, stderr } = await run(cwd, ["check"]);
    expect(stdout).toMatch(/^ {2}loaded +consul:onex\/contracts\/handlers\/web \(web\)$/m);
    expect(stderr).toMatch(/^onex: consul:onex\/contracts\/handlers\/path: HANDLER_LOADER_013: /m);
    expect(stderr).not.toMatch(/handlers\.web is configured, but/);
    expect(code).toBe(1);
    const runtime = await serve(cwd);
    const health = `${runtime.operators}/health`;
    const sent = await run(cwd, [
      ...["send", "web.get", "--url", runtime.operators],
      ...["--payload", JSON.stringify({ url: health })],
    ]);
    expect(JSON.parse(sent.stdout)).toMatchObject({
      handler_id: "effect.web.handler",
      payload: { status_code: 200, body: { status: "degraded" } },
    });
    runtime.child.kill("SIGTERM");
    expect((await runtime.ended).code).toBe(0);
    await client.deleteKey(`${prefix}web`);
  });

  test("are missing while Consul is away: the rest runs, the host is degraded and says why", async () => {
    await using contracts = await Contracts.make();
    await using folder = await Contracts.make();
    await contracts.handler("local", { execute: () => "here" });
    await consul.kill();
    {
      await using host = await hostOn(contracts, folder);
      expect((await host.host.handle({ operation: "local.x" })).payload).toBe("here");
      const { details, status } = await host.host.ready();
      expect([status, Object.keys(details.failed_handlers)]).toEqual(["degraded", ["consul"]]);
      expect(details.failed_handlers.consul).toMatch(/Consul/);
    }
    await consul.restart();
    await using host = await hostOn(contracts, folder);
    expect((await host.host.handle({ operation: "bills.get" })).payload).toBe("a bill");
  });
});
