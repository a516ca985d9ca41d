/** Registration events that a real Consul completes. */
import { randomUUID } from "node:crypto";
import { expect, it, onTestFinished } from "vitest";
import { ConsulSource } from "../../src/discovery/consul.ts";
import { Catalog } from "../../src/tools/catalog.ts";
import {
  consulAddress,
  describeWithOwnConsul,
  describeWithServices,
  kafkaServers,
  startConsul,
} from "../services/index.ts";
import { type Address, Operator } from "./consul-agent.ts";
import {
  createTopic,
  deadLetters,
  makeSource,
  openBus,
  publish,
  uniqueTopic,
  type OpenSource,
} from "./event-sources.ts";

async function atAgent(path: string, body?: unknown): Promise<void> {
  const { host, port } = consulAddress();
  const answer = await fetch(`http://${host}:${port}/v1/agent/service/${path}`, {
    method: "PUT",
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  expect(answer.status, await answer.text()).toBe(200);
}

/** A service in Consul for the duration of the test. */
async function registerAtConsul(
  service: string,
  tool: string,
  id = `${service}-1`,
  Tags = ["mcp-enabled", "node-type:orchestrator", `mcp-tool:${tool}`],
): Promise<void> {
  await atAgent("register", { ID: id, Name: service, Address: "127.0.0.1", Port: 9, Tags });
  onTestFinished(async () => await atAgent(`deregister/${id}`));
}

interface Joined extends OpenSource {
  readonly catalog: Catalog;
  readonly topic: string;
}

/** Both sources on one catalog. */
async function join({ host, port }: Address = consulAddress(), topic = uniqueTopic()): Promise<Joined> {
  const catalog = new Catalog({ maxTools: 1000 });
  const consul = new ConsulSource({ consul: { host, port, scheme: "http" } });
  onTestFinished(async () => await consul.close());
  const open = await makeSource(kafkaServers(), [topic], { consul });
  await open.source.start((change) => catalog.apply("events", change));
  await consul.start((change) => catalog.apply("consul", change));
  return { ...open, catalog, topic };
}

const smallEvent = (service: string, tool: string): unknown => ({
  event_type: "registered",
  node_id: randomUUID(),
  service_id: `${service}-1`,
  tags: ["mcp-enabled", "node-type:orchestrator", `mcp-tool:${tool}`],
});

describeWithServices("registration events that say too little, with a real Consul", () => {
  it("make the tool of the service that Consul knows, with its address and name", async () => {
    const [service, tool] = [`orders-${randomUUID()}`, `tool_${randomUUID()}`];
    await registerAtConsul(service, "another_name");
    const { catalog, bus, topic, source } = await join();
    await publish(bus, topic, smallEvent(service, tool));
    await expect
      .poll(() => catalog.snapshot().byName.get(tool))
      .toMatchObject({ source: "event", owner: service, endpoints: [{ url: "http://127.0.0.1:9" }] });
    expect(source.counters()).toMatchObject({ accepted: 1, rejected: 0 });
  });

  it("are rejected where Consul does not know the service, and count once it does", async () => {
    const [service, tool] = [`orders-${randomUUID()}`, `tool_${randomUUID()}`];
    const open = await join();
    const { catalog, bus, topic } = open;
    await publish(bus, topic, smallEvent(service, tool));
    const letters = await deadLetters(open);
    await expect.poll(letters).toHaveLength(1);
    expect(letters()[0]).toMatchObject({
      failure_reason: `it lacks an endpoint, and Consul does not know the service_id "${service}-1"`,
    });
    expect(catalog.snapshot().byName.has(tool)).toBe(false);
    await registerAtConsul(service, tool);
    await expect.poll(() => catalog.snapshot().byName.get(tool)).toMatchObject({ owner: service });
  });

  it("are completed from an instance without the tag, whose health counts", async () => {
    const [service, tool] = [`orders-${randomUUID()}`, `tool_${randomUUID()}`];
    await registerAtConsul(service, tool, `${service}-1`, ["web"]);
    const { catalog, bus, topic, source } = await join();
    await publish(bus, topic, smallEvent(service, tool));
    await expect
      .poll(() => catalog.snapshot().byName.get(tool))
      .toMatchObject({ source: "event", owner: service, endpoints: [{ url: "http://127.0.0.1:9" }] });
    await atAgent(`maintenance/${service}-1?enable=true`);
    await expect.poll(() => catalog.snapshot().byName.get(tool)?.endpoints).toEqual([]);
    expect(source.counters()).toMatchObject({ accepted: 1, rejected: 0 });
    await publish(bus, topic, { event_type: "updated", service_id: `${service}-1`, tags: ["web"] });
    await expect.poll(() => catalog.snapshot().byName.has(tool)).toBe(false);
  });

  it("are completed again by an instance without the tag that left and has come back", async () => {
    const [service, tool] = [`orders-${randomUUID()}`, `tool_${randomUUID()}`];
    await registerAtConsul(service, tool, `${service}-1`, ["web"]);
    const { catalog, bus, topic } = await join();
    const endpoints = () => catalog.snapshot().byName.get(tool)?.endpoints;
    await publish(bus, topic, smallEvent(service, tool));
    await expect.poll(endpoints).toMatchObject([{ url: "http://127.0.0.1:9" }]);
    await atAgent(`deregister/${service}-1`);
    await expect.poll(endpoints).toBeUndefined();
    const again = { ID: `${service}-1`, Name: service, Address: "127.0.0.1", Port: 9, Tags: ["web"] };
    await atAgent("register", again);
    await expect.poll(endpoints).toMatchObject([{ url: "http://127.0.0.1:9" }]);
    await publish(bus, topic, { event_type: "deregistered", service_id: `${service}-1` });
    await expect.poll(() => catalog.snapshot().byName.has(tool)).toBe(false);
  });

  it("are rejected where Consul knows the service without the tag, and they have no tags either", async () => {
    const service = `orders-${randomUUID()}`;
    await registerAtConsul(service, "unused", `${service}-1`, ["web"]);
    const open = await join();
    await publish(open.bus, open.topic, { event_type: "registered", service_id: `${service}-1` });
    const letters = await deadLetters(open);
    await expect.poll(letters).toHaveLength(1);
    expect(letters()[0]).toMatchObject({
      failure_reason: `it lacks tags and endpoint, and Consul has the service_id "${service}-1" without the tag mcp-enabled`,
    });
  });

  it("that take an instance out speak against Consul", async () => {
    const [service, tool] = [`orders-${randomUUID()}`, `tool_${randomUUID()}`];
    await registerAtConsul(service, tool);
    const { catalog, bus, topic } = await join();
    await expect.poll(() => catalog.snapshot().byName.get(tool)).toMatchObject({ source: "consul" });
    await publish(bus, topic, { event_type: "expired", service_id: `${service}-1` });
    await expect.poll(() => catalog.snapshot().byName.has(tool)).toBe(false);
    await publish(bus, topic, smallEvent(service, tool));
    await expect
      .poll(() => catalog.snapshot().byName.get(tool))
      .toMatchObject({ source: "event", owner: service });
  });
});

describeWithServices("registration events that say too little", () => {
  describeWithOwnConsul("while Consul is away", () => {
    it("are decided on when Consul has answered: those that it knows are served, others are rejected", async () => {
      const consul = await startConsul();
      onTestFinished(() => consul.stop());
      await new Operator(consul).register("known-1", { Name: "known", Tags: ["web"] });
      await consul.kill();
      const topic = uniqueTopic();
      await createTopic(kafkaServers(), topic, 1);
      await publish(await openBus(kafkaServers()), topic, smallEvent("before", "before"));
      const open = await join(consul, topic);
      const { catalog, bus, source } = open;
      for (const service of ["known", "unknown"]) await publish(bus, topic, smallEvent(service, service));
      const letters = await deadLetters(open);
      await expect.poll(() => source.counters()).toMatchObject({ accepted: 3, rejected: 0 });
      await consul.restart();
      await expect.poll(() => source.counters().rejected, { timeout: 20_000 }).toBe(2);
      await expect.poll(letters).toHaveLength(1);
      expect(letters()[0]).toMatchObject({
        original_message: { key: "unknown-1" },
        failure_reason: 'it lacks an endpoint, and Consul does not know the service_id "unknown-1"',
      });
      await expect.poll(() => catalog.snapshot().tools.map(({ name }) => name)).toEqual(["known"]);
    }, 60_000);
  });
});
