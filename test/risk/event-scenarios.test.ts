/** What registration events say, seen by MCP clients that hold an open subscription: real Kafka, real Consul, one runtime. */
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { KafkaBus } from "../../src/bus/kafka.ts";
import { Operator, toolTags } from "../discovery/consul-agent.ts";
import { publish, uniqueTopic } from "../discovery/event-sources.ts";
import { registration } from "../discovery/registrations.ts";
import {
  describeWithKafka,
  describeWithOwnConsul,
  kafkaServers,
  startConsul,
  type Consul,
} from "../services/index.ts";
import { launcher, type Runtime } from "../support/runtime.ts";
import {
  Audience,
  legacySubscriber,
  makePlace,
  register as registerAt,
  shown,
  testNode,
  unique,
  until,
  type NodeService,
  type Place,
  type Registration,
} from "./cluster.ts";

const once = [1, 1];
const never = [0, 0];

describeWithKafka("the tools of registration events", () => {
  describeWithOwnConsul("and of Consul", () => {
    const [topic, otherTopic] = [uniqueTopic(), uniqueTopic()];
    let consul: Consul;
    let operator: Operator;
    let bus: KafkaBus;
    let place: Place;
    let runtime: Runtime;
    let audience: Audience;
    const opened = new AsyncDisposableStack();

    beforeAll(async () => {
      consul = opened.use(await startConsul());
      operator = new Operator(consul);
      bus = opened.adopt(new KafkaBus({ bootstrapServers: kafkaServers().split(",") }), (open) =>
        open.close(),
      );
      await bus.start();
      const mcp = { registration_topics: [topic, otherTopic], registration_partitions: 4 };
      place = opened.use(await makePlace({ consul, kafkaServers: kafkaServers(), mcp }));
      runtime = await place.start();
      audience = opened.use(await Audience.at([runtime.mcp], consul));
    }, 120_000);

    afterAll(() => opened.disposeAsync());

    /** An event of the instance `<tool>-1` at a node service, now. */
    const event = (
      tool: string,
      { url }: NodeService,
      fields: Record<string, unknown> = {},
    ): Record<string, unknown> =>
      registration(tool, { endpoint: url, emitted_at: new Date().toISOString(), ...fields });

    const send = (value: unknown, key?: string): Promise<void> => publish(bus, topic, value, key);

    const gone = (serviceId: string, type: "deregistered" | "expired"): object => ({
      event_id: randomUUID(),
      event_type: type,
      emitted_at: new Date().toISOString(),
      service_id: serviceId,
    });

    /** For the duration of the test. */
    async function register(id: string, service: NodeService, options: Registration): Promise<void> {
      await registerAt(operator, id, service, options);
      onTestFinished(() => operator.deregister(id).catch(() => undefined));
    }

    const answerOf = async (name: string): Promise<any> => (await audience.call(name)).structuredContent;
    const propertiesOf = async (name: string): Promise<string[]> =>
      Object.keys(((await audience.tool(name))?.inputSchema as any)?.properties ?? {});
    const schema = (property: string): object => ({
      type: "object",
      properties: { [property]: { type: "string" } },
    });

    it("an event that says all is one list_changed to every subscriber, who can call the tool; its end is another one", async () => {
      const tool = unique("orders");
      const service = await testNode("orders");
      const comes = async (): Promise<void> => {
        await send(event(tool, service, { title: "Orders", input_schema: schema("id") }));
        await audience.untilServed(tool);
      };
      expect(await audience.changesDuring(comes)).toEqual(once);
      expect(await audience.tool(tool)).toMatchObject({ title: "Orders", inputSchema: schema("id") });
      expect((await audience.call(tool, { id: "7" })).structuredContent).toMatchObject({
        node: "orders",
        tool,
        arguments: { id: "7" },
      });
      const goes = async (): Promise<void> => {
        await send(gone(`${tool}-1`, "deregistered"));
        await audience.untilGone(tool);
      };
      expect(await audience.changesDuring(goes)).toEqual(once);
    });

    it("an event that comes twice, and an older one that comes late on another topic, tell nobody", async () => {
      const tool = unique("orders");
      const service = await testNode("orders");
      const first = event(tool, service, { title: "Now" });
      await send(first);
      await audience.untilServed(tool);
      const repeat = async (): Promise<void> => {
        await send(first);
        await send({ ...first, event_id: randomUUID(), event_type: "updated" });
        await publish(
          bus,
          otherTopic,
          event(tool, service, { title: "Then", emitted_at: "2020-01-01T00:00:00Z" }),
        );
      };
      expect(await audience.changesDuring(repeat)).toEqual(never);
      expect(await audience.tool(tool)).toMatchObject({ title: "Now" });
    });

    it("an event that says no more than an id and its tags is completed from Consul: address, path and contract", async () => {
      const tool = unique("orders");
      const service = await testNode("orders");
      // Consul knows the instance, but not that it is a tool of this name.
      await register(tool, service, { tool: unique("other"), Meta: { "mcp-path": "/run" } });
      const small = {
        event_type: "registered",
        node_id: randomUUID(),
        service_id: tool,
        tags: toolTags(tool),
      };
      const comes = async (): Promise<void> => {
        await send(small);
        await audience.untilServed(tool);
      };
      expect(await audience.changesDuring(comes)).toEqual(once);
      expect(await answerOf(tool)).toMatchObject({ node: "orders", path: "/run" });
    });

    it.each(["deregistered", "expired", "null"] as const)(
      "%s takes an instance out at once, though Consul still has it, until Consul's record moves on",
      async (how) => {
        const tool = unique("orders");
        const service = await testNode("orders");
        await register(`${tool}-1`, service, { tool, Name: tool });
        await send(event(tool, service));
        await audience.until(async () => (await shown(runtime, tool))?.source === "event");
        const goes = async (): Promise<void> => {
          if (how === "null") await send(null, `${tool}-1`);
          else await send(gone(`${tool}-1`, how));
          await audience.untilGone(tool);
        };
        expect(await audience.changesDuring(goes)).toEqual(once);
        const [first] = audience.subscribers;
        await expect(first!.call(tool)).rejects.toThrow(/unknown tool|not found/i);

        const moves = async (): Promise<void> => {
          await register(`${tool}-1`, service, { tool, Name: tool, Meta: { restarted: "yes" } });
          await audience.untilServed(tool);
        };
        expect(await audience.changesDuring(moves)).toEqual(once);
        expect(await answerOf(tool)).toMatchObject({ node: "orders" });
      },
    );

    it("an event of a service that Consul knows goes before it field by field, and Consul's check still decides", async () => {
      const tool = unique("orders");
      const service = await testNode("orders");
      const mcp = { expose: true, title: "From Consul", description: "As Consul's contract says." };
      const contract = { name: tool, node_type: "ORCHESTRATOR", node_version: "1.0.0", mcp };
      await operator.put(`/kv/onex/contracts/nodes/${tool}`, contract);
      onTestFinished(() => operator.deleteKey(`onex/contracts/nodes/${tool}`));
      await register(`${tool}-1`, service, { tool, Name: tool, Meta: { "mcp-path": "/consul" } });
      await audience.untilServed(tool);
      const { description } = mcp;
      expect(await audience.tool(tool)).toMatchObject({ title: "From Consul", description });
      const overrides = async (): Promise<void> => {
        await send(event(tool, service, { title: "From Kafka", description: undefined }));
        await audience.until(async () => (await audience.tool(tool))?.title === "From Kafka");
      };
      expect(await audience.changesDuring(overrides)).toEqual(once);
      expect(await audience.tool(tool)).toMatchObject({ title: "From Kafka", description });
      expect(await answerOf(tool)).toMatchObject({ path: "/consul" });
      const fails = async (): Promise<void> => {
        await operator.put(`/agent/check/fail/check:${tool}-1`);
        await audience.until(async () => (await shown(runtime, tool)).available === false);
      };
      expect(await audience.changesDuring(fails)).toEqual(never);
      const { isError, content } = await audience.call(tool);
      expect(isError).toBe(true);
      expect(content[0].text).toMatch(/try again in \d+ s/);
    });

    it("${HOME} in an event stays as it is, in tools/list and in what the service is sent", async () => {
      const tool = unique("orders");
      const service = await testNode("orders");
      const text = "Lists ${HOME}, ${PATH:-none} and ${env:HOME}";
      const input_schema = { type: "object", properties: { folder: { type: "string", default: "${HOME}" } } };
      const execution = { kind: "onex", path: "/${HOME}" };
      await send(event(tool, service, { title: "${HOME}", description: text, input_schema, execution }));
      await audience.untilServed(tool);
      expect(await audience.tool(tool)).toMatchObject({
        title: "${HOME}",
        description: text,
        inputSchema: input_schema,
      });
      const { path } = await answerOf(tool);
      expect(decodeURIComponent(path)).toBe("/${HOME}");
    });

    it("an update under another tool name replaces the old name in one list_changed; without its tags the tool is gone", async () => {
      const [before, after] = [unique("orders"), unique("orders")];
      const service = await testNode("orders");
      await send(event(before, service));
      await audience.untilServed(before);
      const rename = async (): Promise<void> => {
        await send(event(before, service, { event_type: "updated", tags: toolTags(after) }));
        await audience.until(async () => {
          const both = (await audience.names()).filter((name) => name === before || name === after);
          expect(both).toHaveLength(1);
          return both[0] === after;
        });
      };
      expect(await audience.changesDuring(rename)).toEqual(once);
      const drop = async (): Promise<void> => {
        await send(event(before, service, { event_type: "updated", tags: ["mcp-enabled"] }));
        await audience.untilGone(after);
      };
      expect(await audience.changesDuring(drop)).toEqual(once);
    });

    it("of two services that claim one name the first by name is served, and the other when it expires", async () => {
      const tool = unique("orders");
      const [a, b] = [await testNode("a"), await testNode("b")];
      await send(event(tool, b, { service_id: `${tool}-b`, service_name: "b-orders" }));
      await audience.untilServed(tool);
      await send(event(tool, a, { service_id: `${tool}-a`, service_name: "a-orders" }));
      await audience.until(async () => (await answerOf(tool)).node === "a");
      await send(gone(`${tool}-a`, "expired"));
      await audience.until(async () => (await answerOf(tool)).node === "b");
    });

    it("of two instances with different schemas the higher version defines the tool and alone is called", async () => {
      const tool = unique("orders");
      const [a, b] = [await testNode("a"), await testNode("b")];
      const old = { service_id: `${tool}-a`, node_version: "1.9.0", input_schema: schema("old") };
      const young = { service_id: `${tool}-b`, node_version: "1.10.0", input_schema: schema("young") };
      await send(event(tool, a, old));
      await audience.untilServed(tool);
      const rollOut = async (): Promise<void> => {
        await send(event(tool, b, young));
        await audience.until(async () => (await propertiesOf(tool))[0] === "young");
      };
      expect(await audience.changesDuring(rollOut)).toEqual(once);
      for (let call = 0; call < 20; call += 1) expect(await answerOf(tool)).toMatchObject({ node: "b" });
      expect(a.calls).toBe(0);
    });

    it("two tools under one service name are two tools", async () => {
      const service_name = unique("onex-orchestrator");
      const [first, second] = [unique("invoices"), unique("refunds")];
      const [a, b] = [await testNode("a"), await testNode("b")];
      await send(event(first, a, { service_name }));
      await send(event(second, b, { service_name }));
      await audience.untilServed(first);
      await audience.untilServed(second);
      for (let call = 0; call < 5; call += 1) {
        expect(await answerOf(first)).toMatchObject({ node: "a", tool: first });
        expect(await answerOf(second)).toMatchObject({ node: "b", tool: second });
      }
    });

    it("a runtime that starts later replays the topic: the same tools, without those that went", async () => {
      const [stays, went, renamed, newName] = ["stays", "went", "renamed", "new_name"].map(unique) as [
        string,
        string,
        string,
        string,
      ];
      const service = await testNode("orders");
      for (const tool of [stays, went, renamed]) await send(event(tool, service));
      await send(gone(`${went}-1`, "expired"));
      await send(event(renamed, service, { event_type: "updated", tags: toolTags(newName) }));
      await audience.untilServed(newName);
      await audience.untilServed(stays);
      await audience.untilGone(went);
      const later = await place.start("later");
      const client = await legacySubscriber(later.mcp);
      const names = async (): Promise<string[]> => (await client.list()).map(({ name }) => name).sort();
      // All of it was there before the runtime said that it is ready.
      const atStart = await names();
      expect(atStart).toEqual((await audience.names()).toSorted());
      expect(atStart).toEqual(expect.arrayContaining([stays, newName]));
      expect((await client.call(stays)).structuredContent).toMatchObject({ node: "orders" });
      await client.close();
      expect(await later.stop()).toBe(0);
    });

    it("a service that `onex register` registers is a tool of a runtime that runs, until `onex deregister` takes it out", async () => {
      const tool = unique("orders");
      const service = await testNode("orders");
      const theirs = await makePlace({
        consul,
        kafkaServers: kafkaServers(),
        mcp: { registration_topics: [topic] },
      });
      onTestFinished(() => theirs[Symbol.asyncDispose]());
      await mkdir(join(theirs.folder, "nodes"));
      const contract = {
        name: tool,
        node_type: "ORCHESTRATOR",
        node_version: "2.0.0",
        mcp: {
          expose: true,
          title: "Registered",
          input_schema: schema("id"),
          execution: { kind: "onex", endpoints: [service.url], path: "/run" },
        },
      };
      await writeFile(join(theirs.folder, "nodes/contract.yaml"), JSON.stringify(contract));
      const onex = (...args: string[]): Promise<unknown> => {
        const env = { ...process.env, ONEX_CONTRACTS_DIR: theirs.folder, KAFKA_BOOTSTRAP_SERVERS: "" };
        return promisify(execFile)(process.execPath, [launcher, ...args, "--no-self", "--tool", tool], {
          env,
        });
      };
      await onex("register", "--check", "none");
      await audience.untilServed(tool);
      await until(async () => (await audience.tool(tool))?.title === "Registered");
      expect((await audience.call(tool, { id: "7" })).structuredContent).toMatchObject({
        node: "orders",
        path: "/run",
        arguments: { id: "7" },
      });
      await onex("deregister");
      await audience.untilGone(tool);
    });
  });
});
