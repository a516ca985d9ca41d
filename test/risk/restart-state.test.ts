/** A runtime that is killed and started again while Consul and Kafka are away, with and without `state_dir`. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { KafkaBus } from "../../src/bus/kafka.ts";
import { Operator } from "../discovery/consul-agent.ts";
import { publish, uniqueTopic } from "../discovery/event-sources.ts";
import { registration } from "../discovery/registrations.ts";
import { describeWithOwnServices, startConsul, startKafka } from "../services/index.ts";
import {
  makePlace,
  modernSubscriber,
  register,
  sourceOf,
  testNode,
  unique,
  until,
  type Subscriber,
} from "./cluster.ts";

/** A tool that is renewed, its instances' list, or nothing: what one list_changed may be. */
const namesOf = async (subscriber: Subscriber): Promise<string[]> =>
  (await subscriber.list()).map(({ name }) => name).sort();

describeWithOwnServices("a runtime that starts while Consul and Kafka are away", () => {
  it("serves the last good state and says so, and the present state replaces it in one change for each source that returns", async () => {
    const [consul, kafka] = await Promise.all([startConsul(), startKafka()]);
    onTestFinished(async () => void (await Promise.all([consul.stop(), kafka.stop()])));
    const operator = new Operator(consul);
    const topic = uniqueTopic();
    const bus = new KafkaBus({ bootstrapServers: [kafka.bootstrapServers] });
    onTestFinished(() => bus.destroy(new Error("the test is over")));
    await bus.start();
    const service = await testNode("orders");
    const event = (tool: string): unknown =>
      registration(tool, { endpoint: service.url, emitted_at: new Date().toISOString() });

    const place = await makePlace({
      consul,
      kafkaServers: kafka.bootstrapServers,
      mcp: { registration_topics: [topic], state_dir: "${ONEX_CONTRACTS_DIR}/state" },
    });
    onTestFinished(() => place[Symbol.asyncDispose]());
    const first = await place.start();
    const [stays, goes, comes] = ["stays", "goes", "comes"].map(unique) as [string, string, string];
    const [eventStays, eventGoes] = ["event_stays", "event_goes"].map(unique) as [string, string];
    for (const tool of [stays, goes]) await register(operator, tool, service, { tool });
    for (const tool of [eventStays, eventGoes]) await publish(bus, topic, event(tool));
    const saved = async (source: string): Promise<string> =>
      readFile(join(place.folder, `state/${source}.json`), "utf8").catch(() => "");
    await until(async () => {
      const text = (await saved("consul")) + (await saved("events"));
      return [stays, goes, eventStays, eventGoes].every((tool) => text.includes(tool));
    });
    first.process.kill("SIGKILL");
    await first.exit;

    // What nobody told the runtime.
    await operator.deregister(goes);
    await register(operator, comes, service, { tool: comes });
    await publish(bus, topic, { event_type: "expired", service_id: `${eventGoes}-1` });
    await Promise.all([consul.kill(), kafka.kill()]);

    const second = await place.start();
    const client = await modernSubscriber(second.mcp);
    onTestFinished(() => client.close());
    expect(await namesOf(client)).toEqual([stays, goes, eventStays, eventGoes].sort());
    for (const tool of [stays, eventStays])
      expect((await client.call(tool)).structuredContent).toMatchObject({ node: "orders", tool });
    for (const source of ["consul", "events"]) {
      const { state, restored_from, last_error } = await sourceOf(second, source);
      expect({ source, state }).toEqual({ source, state: "degraded" });
      expect(Date.parse(restored_from ?? "")).toBeLessThanOrEqual(Date.now());
      expect(last_error).toEqual(expect.any(String));
    }
    const operators = await (await fetch(new URL("/ready", second.operators))).text();
    expect(operators).toContain('"restored_from"');

    await consul.restart();
    await until(async () => (await namesOf(client)).includes(comes));
    expect(await namesOf(client)).toEqual([stays, comes, eventStays, eventGoes].sort());
    await until(() => client.changes === 1);
    await kafka.restart();
    await until(async () => !(await namesOf(client)).includes(eventGoes));
    expect(await namesOf(client)).toEqual([stays, comes, eventStays].sort());
    await until(() => client.changes === 2);
    for (const source of ["consul", "events"]) {
      await until(async () => (await sourceOf(second, source)).state === "ready");
      expect(await sourceOf(second, source)).not.toHaveProperty("restored_from");
    }
    for (const tool of [stays, comes, eventStays])
      expect((await client.call(tool)).structuredContent).toMatchObject({ node: "orders", tool });
    expect(client.changes).toBe(2);
  }, 120_000);

  it("serves nothing of them without state_dir, says why, and takes their state when they return", async () => {
    const consul = await startConsul();
    onTestFinished(() => consul.stop());
    const operator = new Operator(consul);
    const service = await testNode("orders");
    const tool = unique("orders");
    await register(operator, tool, service, { tool });
    const place = await makePlace({ consul });
    onTestFinished(() => place[Symbol.asyncDispose]());
    const first = await place.start();
    expect((await sourceOf(first, "consul")).state).toBe("ready");
    first.process.kill("SIGKILL");
    await first.exit;
    await consul.kill();
    const second = await place.start();
    const client = await modernSubscriber(second.mcp);
    onTestFinished(() => client.close());
    expect(await namesOf(client)).toEqual([]);
    expect(await sourceOf(second, "consul")).toMatchObject({
      state: "starting",
      last_error: expect.any(String),
    });
    await consul.restart();
    await until(async () => (await namesOf(client)).includes(tool));
    expect((await sourceOf(second, "consul")).state).toBe("ready");
  }, 120_000);
});
