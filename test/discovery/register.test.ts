/** A runtime that registers itself while it runs, on a real Consul and a real Kafka. */
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { eventTarget } from "../../src/discovery/register-publish.ts";
import { startedBus, uniqueTopic } from "../bus/kafka.ts";
import {
  consulAddress,
  describeWithConsul,
  describeWithOwnConsul,
  describeWithServices,
  startConsul,
} from "../services/index.ts";
import { follow, Operator, optionsOf, uniqueName } from "./consul-agent.ts";
import {
  Agent,
  eventsOf,
  registering,
  serviceContract,
  serviceContracts,
  topicConfig,
} from "./own-registration.ts";

const endpoint = "http://127.0.0.1:1";
const idOf = (tool: string): string => `${tool}-127.0.0.1-1`;
const keyOf = (tool: string): string => `onex/contracts/nodes/${tool}`;
const patience = { timeout: 20_000, interval: 20 };

describeWithConsul("a runtime that registers itself", () => {
  test("is in Consul with check, tags and contract, and is gone after close", async () => {
    const agent = new Agent(consulAddress());
    const tool = uniqueName("tool");
    const folder = await serviceContracts({ [tool]: endpoint });
    const { registration, id } = await registering(consulAddress(), folder);
    const ids = [id, idOf(tool)];
    await agent.until(ids, ids);
    await expect
      .poll(() => registration.status(), patience)
      .toEqual({
        state: "registered",
        serviceId: id,
        tools: 1,
      });
    expect(await agent.service(id)).toMatchObject({
      Address: "127.0.0.1",
      Port: 1,
      Tags: ["mcp-server", `mcp-registers:${idOf(tool)}`],
      Meta: { "mcp-path": "/mcp", "mcp-scheme": "http" },
    });
    expect(await agent.check(id)).toMatchObject({ Type: "http", Interval: "1s" });
    expect(await agent.service(idOf(tool))).toMatchObject({
      Service: tool,
      Address: "127.0.0.1",
      Port: 1,
      Tags: ["mcp-enabled", "node-type:orchestrator", `mcp-tool:${tool}`],
      Meta: { "mcp-path": "/", "mcp-scheme": "http", "mcp-execution": "onex", "mcp-contract": keyOf(tool) },
    });
    expect(await agent.check(idOf(tool))).toMatchObject({ Type: "tcp", Status: "critical" });
    expect(JSON.parse((await agent.key(keyOf(tool)))!)).toMatchObject({ mcp: { tool_name: tool } });

    await registration.close();
    expect(await agent.present(...ids)).toEqual([]);
    expect(await agent.key(keyOf(tool))).toBeUndefined();
    expect(registration.status().state).toBe("closed");
    await registration.close();
  });

  test("is understood by another runtime's Consul source", async () => {
    const tool = uniqueName("tool");
    const folder = await serviceContracts({ [tool]: `${endpoint}/base` });
    await using other = await follow(optionsOf(consulAddress()));
    await registering(consulAddress(), folder);
    await other.until(() => other.instance(idOf(tool)) !== undefined);
    expect(other.instance(idOf(tool))).toMatchObject({
      serviceName: tool,
      claim: { toolName: tool },
      url: `${endpoint}/base`,
      definition: {
        version: "1.0.0",
        description: "Says how the weather is.",
        inputSchema: { properties: { city: { type: "string" } } },
        execution: { kind: "onex", path: "" },
      },
    });
  });

  test("comes back when it, its tools and their contracts are lost", async () => {
    const agent = new Agent(consulAddress());
    const operator = new Operator(consulAddress());
    const tool = uniqueName("tool");
    const { id } = await registering(consulAddress(), await serviceContracts({ [tool]: endpoint }));
    const ids = [id, idOf(tool)];
    await agent.until(ids, ids);
    await operator.deregister(idOf(tool));
    await operator.deregister(id);
    await operator.deleteKey(keyOf(tool));
    await agent.until(ids, ids);
    expect(await agent.key(keyOf(tool))).toBeDefined();
  });

  test("with a TTL check says that it is well for as long as it is", async () => {
    const agent = new Agent(consulAddress());
    const runtime = await registering(consulAddress(), await serviceContracts({}), {
      check: "ttl",
      ttlSeconds: 3,
    });
    const status = async (): Promise<string | undefined> => (await agent.check(runtime.id))?.Status;
    await expect.poll(status, patience).toBe("passing");
    runtime.ready = false;
    await expect.poll(status, patience).toBe("critical");
    runtime.ready = true;
    await expect.poll(status, patience).toBe("passing");
  });

  test("follows its contracts: added, changed and removed ones", async () => {
    const agent = new Agent(consulAddress());
    const [stays, goes, comes] = [uniqueName("stays"), uniqueName("goes"), uniqueName("comes")];
    const folder = await serviceContracts({ [stays]: endpoint, [goes]: endpoint });
    const { id, change } = await registering(consulAddress(), folder);
    const ids = [stays, goes, comes].map(idOf);
    await agent.until(ids, [idOf(stays), idOf(goes)]);
    await folder.remove(goes);
    await folder.write(...serviceContract(comes, endpoint));
    await folder.write(...serviceContract(stays, endpoint, { title: "Changed" }));
    await change();
    await agent.until(ids, [idOf(stays), idOf(comes)]);
    await expect.poll(() => agent.key(keyOf(stays)), patience).toContain('"title": "Changed"');
    await expect.poll(() => agent.key(keyOf(goes)), patience).toBeUndefined();
    const tags = ["mcp-server", ...[comes, stays].sort().map((tool) => `mcp-registers:${idOf(tool)}`)];
    await expect.poll(async () => (await agent.service(id))?.Tags, patience).toEqual(tags);
  });

  test("leaves a tool's service to the other replica that registers it, until the last one stops", async () => {
    const agent = new Agent(consulAddress());
    const tool = uniqueName("tool");
    const folder = await serviceContracts({ [tool]: endpoint });
    const name = uniqueName("replicas");
    const one = await registering(consulAddress(), folder, { name, port: 1, check: "ttl" });
    const other = await registering(consulAddress(), folder, { name, port: 2, check: "ttl" });
    const ids = [one.id, other.id, idOf(tool)];
    await agent.until(ids, ids);
    await vi.waitFor(() => expect(other.registration.status().tools).toBe(1), patience);
    await one.registration.close();
    expect(await agent.present(...ids)).toEqual([other.id, idOf(tool)]);
    expect(await agent.key(keyOf(tool))).toBeDefined();
    await other.registration.close();
    expect(await agent.present(...ids)).toEqual([]);
    expect(await agent.key(keyOf(tool))).toBeUndefined();
  });

  test("two replicas that stop together leave nothing behind", async () => {
    const agent = new Agent(consulAddress());
    const tool = uniqueName("tool");
    const folder = await serviceContracts({ [tool]: endpoint });
    const name = uniqueName("replicas");
    const both = await Promise.all(
      [1, 2].map((port) => registering(consulAddress(), folder, { name, port, check: "ttl" })),
    );
    const ids = [...both.map(({ id }) => id), idOf(tool)];
    await agent.until(ids, ids);
    await Promise.all(both.map(({ registration }) => registration.close()));
    expect(await agent.present(...ids)).toEqual([]);
  });

  test("a service and a contract that somebody else wrote stay as they are", async () => {
    const agent = new Agent(consulAddress());
    const operator = new Operator(consulAddress());
    const [own, theirs] = [uniqueName("own"), uniqueName("theirs")];
    await operator.register(idOf(theirs), { Name: theirs, Port: 7 });
    await operator.put(`/kv/${keyOf(own)}`, `{"name":"mine"}`);
    onTestFinished(() => operator.deregister(idOf(theirs)));
    onTestFinished(() => operator.deleteKey(keyOf(own)));
    const folder = await serviceContracts({ [own]: endpoint, [theirs]: endpoint });
    const { registration, id, lines } = await registering(consulAddress(), folder);
    await agent.until([id, idOf(own)], [id, idOf(own)]);
    const warnings = (): unknown[] =>
      lines.filter(({ level }) => level === "warn").map(({ fields }) => fields);
    await expect
      .poll(warnings, patience)
      .toEqual(
        expect.arrayContaining([
          expect.objectContaining({ service_id: idOf(theirs) }),
          expect.objectContaining({ contract: keyOf(own) }),
        ]),
      );
    await registration.close();
    expect(await agent.service(idOf(theirs))).toMatchObject({ Port: 7 });
    expect(await agent.present(id, idOf(own))).toEqual([]);
    expect(await agent.key(keyOf(own))).toBe(`{"name":"mine"}`);
  });
});

describeWithServices("a runtime that registers itself on Kafka too", () => {
  test("sends events that fit the published format, and takes them back", async () => {
    const agent = new Agent(consulAddress());
    const bus = await startedBus();
    const topic = uniqueTopic();
    const tool = uniqueName("tool");
    const folder = await serviceContracts({ [tool]: endpoint });
    const { registration, id } = await registering(
      consulAddress(),
      folder,
      {},
      { events: eventTarget(bus, { topic, partitions: 2 })! },
    );
    await agent.until([id, idOf(tool)], [id, idOf(tool)]);
    await expect.poll(() => topicConfig(topic, "cleanup.policy").catch(() => ""), patience).toBe("compact");
    const events = await eventsOf(topic);
    await expect.poll(() => events.length, patience).toBe(1);
    await registration.close();
    await expect.poll(() => events.length, patience).toBe(2);
    expect(events.map(({ key, event: { event_type: type } }) => [key, type])).toEqual([
      [idOf(tool), "registered"],
      [idOf(tool), "deregistered"],
    ]);
    expect(events[0]).toMatchObject({
      event: {
        service_name: tool,
        endpoint,
        node_version: "1.0.0",
        tags: ["mcp-enabled", "node-type:orchestrator", `mcp-tool:${tool}`],
        input_schema: { properties: { city: { type: "string" } } },
      },
      headers: { source: id, event_type: "node.registered", content_type: "application/json" },
    });
  });

  test("a Kafka that is out of reach holds nothing up but its own events", async () => {
    const agent = new Agent(consulAddress());
    const bus = await startedBus({ bootstrapServers: ["127.0.0.1:1"] });
    const tool = uniqueName("tool");
    const { registration, id } = await registering(
      consulAddress(),
      await serviceContracts({ [tool]: endpoint }),
      {},
      { events: eventTarget(bus, { topic: uniqueTopic(), partitions: 1 })! },
    );
    await agent.until([id, idOf(tool)], [id, idOf(tool)]);
    await registration.close();
    expect(await agent.present(id, idOf(tool))).toEqual([]);
  });
});

describeWithOwnConsul("a runtime whose Consul is not there", () => {
  test("registers when Consul comes, goes on when it is killed, and is right again after", async () => {
    await using consul = await startConsul();
    const agent = new Agent(consul);
    await consul.kill();
    const tool = uniqueName("tool");
    const runtime = await registering(consul, await serviceContracts({ [tool]: endpoint }));
    const { registration, id, lines } = runtime;
    await expect
      .poll(() => registration.status(), patience)
      .toMatchObject({
        state: "degraded",
        lastError: expect.stringContaining("cannot be reached") as string,
      });
    await consul.restart();
    await agent.until([id, idOf(tool)], [id, idOf(tool)]);
    await expect.poll(() => registration.status().state, patience).toBe("registered");
    await consul.kill();
    await expect.poll(() => registration.status().state, patience).toBe("degraded");
    await consul.restart();
    await new Operator(consul).deregister(id);
    await agent.until([id, idOf(tool)], [id, idOf(tool)]);
    await expect.poll(() => registration.status().state, patience).toBe("registered");
    // Each outage is said once.
    expect(lines.filter(({ level }) => level === "warn")).toHaveLength(2);
  });
});

describe("a runtime whose Consul does not answer", () => {
  test("closes within its limit all the same", async () => {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => void sockets.add(socket));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const runtime = await registering({ host: "127.0.0.1", port }, await serviceContracts({}));
    await vi.waitFor(() => expect(sockets.size).toBeGreaterThan(0));
    await runtime.registration.close(50);
    expect(runtime.registration.status().state).toBe("closed");
  });
});
