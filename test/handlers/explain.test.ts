/** Why a name is served or not, over HTTP, with the sources that a configuration has. */
import { expect, it } from "vitest";
import { Operator, toolTags, uniqueName } from "../discovery/consul-agent.ts";
import { openBus, publish, uniqueTopic } from "../discovery/event-sources.ts";
import { registration } from "../discovery/registrations.ts";
import { consulAddress, describeWithServices, kafkaServers } from "../services/index.ts";
import { HandlerTools } from "../../src/runtime/tools.ts";
import { monotonicClock } from "../../src/core/clock.ts";
import { makeTool } from "../support/tools.ts";
import { contractsOf, get, serve } from "./mcp.ts";
import type { HandlerMCP } from "../../src/handlers/mcp.ts";
import { onTestFinished } from "vitest";

async function explain(handler: HandlerMCP, name: string): Promise<any> {
  const answer = await get(handler, `/mcp/tools/${encodeURIComponent(name)}/explain`);
  expect(answer.status).toBe(200);
  return answer.json();
}

const contract = (fields: string): string => `name: node-a\nnode_type: ORCHESTRATOR\nmcp:\n${fields}`;

it("a contract file that failed or was skipped is found by the tool's name, the node's, its path and its folder", async () => {
  const folder = await contractsOf({ good: [] });
  await folder.write(
    "bad/contract.yaml",
    contract("  expose: true\n  tool_name: find_bad\n  timeout_seconds: 0\n"),
  );
  await folder.write("hidden/contract.yaml", "name: node-h\nnode_type: COMPUTE\nmcp: {expose: true}\n");
  await folder.write("torn/contract.yaml", "name: [");
  const handler = await serve({ contracts_dir: folder.path });
  for (const name of ["find_bad", "node-a", "bad/contract.yaml"]) {
    expect(await explain(handler, name)).toMatchObject({
      served: false,
      reason: expect.stringContaining("mcp.timeout_seconds"),
      problems: [{ source: "contracts", about: "bad/contract.yaml" }],
    });
  }
  expect((await explain(handler, "node-h")).reason).toMatch(
    /^hidden\/contract.yaml is skipped: node_type COMPUTE/,
  );
  expect((await explain(handler, "torn")).reason).toMatch(/^torn\/contract.yaml is failed: /);
  expect(await explain(handler, "good")).toMatchObject({ served: true, problems: [] });
});

it("a tool whose contract was broken since says so beside the version that is served", async () => {
  const folder = await contractsOf({ good: [] });
  const handler = await serve({ contracts_dir: folder.path });
  await folder.replace("good/contract.yaml", "name: [");
  await expect
    .poll(() => explain(handler, "good"))
    .toMatchObject({
      served: true,
      records: [{ source: "contracts", used: true }],
      problems: [{ about: "good/contract.yaml", reason: expect.stringContaining("still served") }],
    });
});

it("a handler's tool is explained by its handler", async () => {
  const tools = new HandlerTools(monotonicClock);
  const handler = await serve({}, { tools });
  tools.serve([{ key: "effect.a/run", tool: makeTool("run", { owner: "effect.a" }) }]);
  expect(await explain(handler, "run")).toMatchObject({
    served: true,
    records: [{ source: "handlers", key: "effect.a/run", used: true, reason: "it is served" }],
  });
});

describeWithServices("with Consul and Kafka", () => {
  it("contracts in Consul and events that cannot be used are told by the names that they speak of", async () => {
    const operator = new Operator(consulAddress());
    const [broken, outside, incomplete, wrong] = ["broken", "outside", "incomplete", "wrong"].map(
      uniqueName,
    ) as [string, string, string, string];
    const key = `onex/contracts/nodes/${broken}`;
    await operator.put(`/kv/${key}`, "name: [");
    await operator.register(broken);
    await operator.register(outside, { Meta: { "mcp-contract": "no/such/key" } });
    onTestFinished(async () => {
      await operator.deleteKey(key);
      for (const id of [broken, outside]) await operator.deregister(id);
    });
    const bus = await openBus(kafkaServers());
    const topic = uniqueTopic();
    const { host: consul_host, port: consul_port } = consulAddress();
    const handler = await serve(
      { consul_host, consul_port, dev_mode: false, kafka_enabled: true, registration_topics: [topic] },
      { bus },
    );
    expect(await explain(handler, broken)).toMatchObject({
      served: false,
      records: [{ source: "consul", reason: expect.stringContaining(key) }],
      problems: [{ source: "consul", about: key }],
    });
    const [{ key: recordKey }] = (await explain(handler, outside)).records;
    expect(recordKey).toContain("/");
    // A name with a slash in it.
    expect(await explain(handler, recordKey)).toMatchObject({
      served: false,
      reason: expect.stringContaining("its contract no/such/key"),
    });

    await publish(bus, topic, registration(wrong, { timeout_seconds: 0 }));
    await publish(bus, topic, {
      event_type: "registered",
      service_id: incomplete,
      tags: toolTags(incomplete),
    });
    for (const name of [wrong, `${wrong}-1`])
      await expect
        .poll(() => explain(handler, name))
        .toMatchObject({
          served: false,
          reason: expect.stringContaining("a registration event is rejected: timeout_seconds"),
          problems: [{ source: "events", about: `${wrong}-1` }],
        });
    await expect
      .poll(() => explain(handler, incomplete))
      .toMatchObject({
        served: false,
        records: [{ source: "events", reason: expect.stringContaining("nothing says at which address") }],
        problems: [],
      });
    // One that can be taken ends it.
    await publish(bus, topic, registration(wrong));
    await expect.poll(() => explain(handler, wrong)).toMatchObject({ served: true, problems: [] });

    const { sources }: any = await (await get(handler, "/ready")).json();
    expect(sources.find(({ name }: { name: string }) => name === "events")).toMatchObject({
      state: "ready",
      age_seconds: 0,
      counters: { accepted: 2, rejected: 2, lag: 0 },
    });
  });
});
