/** The life of HandlerMCP with sources outside the process that misbehave. */
import { expect, it, onTestFinished } from "vitest";
import { KafkaBus } from "../../src/bus/kafka.ts";
import { monotonicClock } from "../../src/core/clock.ts";
import { HandlerTools } from "../../src/runtime/tools.ts";
import { Operator, uniqueName } from "../discovery/consul-agent.ts";
import { openBus, publish, uniqueTopic } from "../discovery/event-sources.ts";
import { registration } from "../discovery/registrations.ts";
import { consulAddress, describeWithServices, kafkaServers } from "../services/index.ts";
import { silentPeer } from "../support/silent.ts";
import { makeTool } from "../support/tools.ts";
import { config, get, held, heldBefore, heldMore, makeHandler, toolNames } from "./mcp.ts";

it("a shutdown during a start that waits for Consul ends it at once, and leaves nothing behind", async () => {
  await heldBefore();
  const { port, reached } = await silentPeer();
  const before = held();
  const handler = makeHandler();
  const starting = handler.initialize(
    config({ consul_host: "127.0.0.1", consul_port: port, dev_mode: false }),
  );
  const failed = expect(starting).rejects.toThrow("shutdown was called during the start");
  await reached;
  await handler.shutdown();
  await failed;
  expect(await heldMore(before)).toEqual({});
  expect(await handler.healthCheck()).toMatchObject({ healthy: false, reason: "not_initialized" });
});

it("a shutdown during a start that waits for Kafka ends it at once", async () => {
  const bus = new KafkaBus({ bootstrapServers: ["127.0.0.1:9"] });
  onTestFinished(async () => await bus.destroy(new Error("the test is over")));
  await bus.start();
  const handler = makeHandler({ bus });
  const starting = handler.initialize(
    config({ consul_host: "127.0.0.1", consul_port: 9, dev_mode: false, kafka_enabled: true }),
  );
  const failed = expect(starting).rejects.toThrow("shutdown was called during the start");
  await handler.shutdown();
  await failed;
});

describeWithServices("with Consul and Kafka", () => {
  it("a second life after shutdown follows Consul, events and handlers as the first one did", async () => {
    const operator = new Operator(consulAddress());
    const [first, second, event] = [uniqueName("first"), uniqueName("second"), uniqueName("event")];
    await operator.register(first);
    onTestFinished(async () => {
      for (const id of [first, second]) await operator.deregister(id).catch(() => undefined);
    });
    const bus = await openBus(kafkaServers());
    const tools = new HandlerTools(monotonicClock);
    const topic = uniqueTopic();
    const { host: consul_host, port: consul_port } = consulAddress();
    const settings = config({
      consul_host,
      consul_port,
      dev_mode: false,
      kafka_enabled: true,
      registration_topics: [topic],
      max_tools: 1000,
    });
    const handler = makeHandler({ bus, tools });
    await handler.initialize(settings);
    tools.serve([{ key: "effect.a/run", tool: makeTool("run") }]);
    await publish(bus, topic, registration(event));
    await expect.poll(() => toolNames(handler)).toEqual(expect.arrayContaining([first, event, "run"]));

    await handler.shutdown();
    expect(tools.status().state).toBe("closed");
    await operator.deregister(first);
    await handler.initialize(settings);
    expect(await toolNames(handler)).not.toContain(first);
    expect(await toolNames(handler)).toEqual(expect.arrayContaining([event, "run"]));
    await operator.register(second);
    await publish(bus, topic, { event_type: "deregistered", service_id: `${event}-1` });
    await expect.poll(() => toolNames(handler)).toContain(second);
    await expect.poll(() => toolNames(handler)).not.toContain(event);

    const { sources }: any = await (await get(handler, "/ready")).json();
    expect(sources.map(({ name, state, age_seconds: age }: any) => [name, state, age])).toEqual([
      ["handlers", "ready", 0],
      ["events", "ready", 0],
      ["consul", "ready", 0],
    ]);
  });
});
