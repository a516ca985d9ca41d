/**
 * Consul and Kafka are killed and come back while calls run: no call to an instance that is there fails, no tool is
 * lost, and what changes meanwhile or right after is seen within five seconds of their return.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { KafkaBus } from "../../src/bus/kafka.ts";
import { Operator } from "../discovery/consul-agent.ts";
import { publish, uniqueTopic } from "../discovery/event-sources.ts";
import { registration } from "../discovery/registrations.ts";
import {
  describeWithOwnServices,
  startConsul,
  startKafka,
  type Consul,
  type Kafka,
} from "../services/index.ts";
import type { Runtime } from "../support/runtime.ts";
import { CallLoad, type LoadTarget } from "./call-load.ts";
import {
  Audience,
  makePlace,
  register,
  sourceOf,
  startNode,
  unique,
  until,
  type NodeService,
  type Place,
} from "./cluster.ts";

/** Of each outage; there are three. */
const callsPerOutage = 17_000;
/** How soon after a return the present state must be known. */
const soon = { timeout: 5000, interval: 20 };

describeWithOwnServices("outages under load", () => {
  const topic = uniqueTopic();
  let consul: Consul;
  let kafka: Kafka;
  let operator: Operator;
  let bus: KafkaBus;
  let place: Place;
  let runtime: Runtime;
  let audience: Audience;
  const opened = new AsyncDisposableStack();
  const nodes: NodeService[] = [];
  const targets: LoadTarget[] = [];
  let callsInAll = 0;

  beforeAll(async () => {
    consul = opened.use(await startConsul());
    kafka = opened.use(await startKafka());
    operator = new Operator(consul);
    const tries = { publishRetries: 100, retryBackoffBaseSeconds: 0, circuitBreakerThreshold: 1000 };
    bus = new KafkaBus({ bootstrapServers: [kafka.bootstrapServers], ...tries });
    opened.defer(() => bus.destroy(new Error("the tests are over")));
    await bus.start();
    const mcp = { registration_topics: [topic] };
    place = opened.use(await makePlace({ consul, kafkaServers: kafka.bootstrapServers, mcp }));
    runtime = await place.start();
    for (const name of ["a", "b", "c"]) nodes.push(opened.use(await startNode(name)));
    await serve();
    audience = opened.use(await Audience.at([runtime.mcp], consul));
  }, 120_000);

  afterAll(() => opened.disposeAsync());

  const event = (tool: string, fields: Record<string, unknown> = {}): Record<string, unknown> =>
    registration(tool, { endpoint: nodes[0]!.url, emitted_at: new Date().toISOString(), ...fields });

  const registerNew = (tool: string, node = nodes[0]!): Promise<void> =>
    register(operator, tool, node, { tool });

  /** One tool of two instances, one with an event over its registration, one that only an event knows. */
  async function serve(): Promise<void> {
    const [two, both, eventOnly] = ["two", "both", "event"].map(unique) as [string, string, string];
    await registerNew(two, nodes[1]);
    await operator.register(`${two}-2`, {
      Name: two,
      Tags: ["mcp-enabled", "node-type:orchestrator", `mcp-tool:${two}`],
      Port: nodes[2]!.port,
    });
    await registerNew(both, nodes[1]);
    await publish(bus, topic, event(both, { title: "Both", service_id: both }));
    await publish(bus, topic, event(eventOnly));
    targets.push(
      { tool: two, nodes: ["b", "c"] },
      { tool: both, nodes: ["b"] },
      { tool: eventOnly, nodes: ["a"] },
    );
  }

  /**
   * Runs `outage` while calls run and the list is read all the time.
   *
   * @param changed tools that come or go in it: nobody is told of anything else
   */
  async function underLoad(name: string, changed: number, outage: () => Promise<void>): Promise<void> {
    await until(async () => {
      const names = await audience.names();
      return targets.every(({ tool }) => names.includes(tool));
    });
    const before = changes();
    const load = new CallLoad(runtime, targets);
    let lists = 0;
    const missing: string[] = [];
    const over = new AbortController();
    const watching = (async (): Promise<void> => {
      while (!over.signal.aborted) {
        const names = new Set(await audience.names());
        lists += 1;
        for (const { tool } of targets) if (!names.has(tool)) missing.push(tool);
        // Leaves the processor to the calls.
        await sleep(20);
      }
    })();
    try {
      await outage();
    } finally {
      await load.finish(callsPerOutage);
      over.abort();
      await watching;
    }
    for (const [at, count] of changes().entries()) expect(count - before[at]!).toBeLessThanOrEqual(changed);
    callsInAll += load.calls;
    console.log(
      `${name}: ${load.calls} calls, ${load.failed} failed; ${lists} lists, ${missing.length} without a tool; ${callsInAll} calls in all`,
    );
    expect(load.failures).toEqual([]);
    expect(missing).toEqual([]);
    expect(load.calls).toBeGreaterThanOrEqual(callsPerOutage);
  }

  const changes = (): readonly number[] => audience.subscribers.map((each) => each.changes);
  const serves = async (tool: string): Promise<boolean> => (await audience.names()).includes(tool);
  const stateOf = async (source: string): Promise<string> => (await sourceOf(runtime, source)).state;

  it("Consul is killed and comes back", async () => {
    const [kept, fresh, byEvent] = ["kept", "fresh", "by_event"].map(unique) as [string, string, string];
    await registerNew(kept);
    await audience.untilServed(kept);
    await underLoad("Consul", 3, async () => {
      const before = changes();
      await consul.kill();
      await until(async () => (await stateOf("consul")) === "degraded");
      expect(changes()).toEqual(before);
      // The other way of telling is not in the way of the one that is down.
      await publish(bus, topic, event(byEvent));
      await until(async () => await serves(byEvent));
      expect(await serves(kept)).toBe(true);
      await consul.restart();
      await operator.deregister(kept);
      await registerNew(fresh);
      await until(async () => (await serves(fresh)) && !(await serves(kept)), soon);
      await until(async () => (await stateOf("consul")) === "ready", soon);
    });
    const { structuredContent } = await audience.call(fresh);
    expect(structuredContent).toMatchObject({ node: "a" });
  }, 240_000);

  it("Kafka is killed and comes back", async () => {
    const [gone, fresh, atConsul] = ["gone", "fresh", "at_consul"].map(unique) as [string, string, string];
    await publish(bus, topic, event(gone));
    await audience.untilServed(gone);
    await underLoad("Kafka", 3, async () => {
      const before = changes();
      await kafka.kill();
      await until(async () => (await stateOf("events")) === "degraded");
      expect(changes()).toEqual(before);
      await registerNew(atConsul);
      await until(async () => await serves(atConsul));
      // Sent while there is no broker: it arrives when there is one.
      const sent = publish(bus, topic, { event_type: "deregistered", service_id: `${gone}-1` });
      expect(await serves(gone)).toBe(true);
      await kafka.restart();
      const alsoSent = publish(bus, topic, event(fresh));
      await until(async () => (await serves(fresh)) && !(await serves(gone)), soon);
      await until(async () => (await stateOf("events")) === "ready", soon);
      await Promise.all([sent, alsoSent]);
    });
  }, 240_000);

  it("both are killed and come back", async () => {
    const [kept, gone, fresh, alsoFresh] = ["kept", "gone", "fresh", "also_fresh"].map(unique) as [
      string,
      string,
      string,
      string,
    ];
    await registerNew(kept);
    await publish(bus, topic, event(gone));
    await audience.untilServed(kept);
    await audience.untilServed(gone);
    await underLoad("both", 4, async () => {
      const before = changes();
      await Promise.all([consul.kill(), kafka.kill()]);
      await until(async () => (await stateOf("consul")) === "degraded");
      await until(async () => (await stateOf("events")) === "degraded");
      expect(changes()).toEqual(before);
      await Promise.all([consul.restart(), kafka.restart()]);
      await operator.deregister(kept);
      await registerNew(fresh);
      const sent = [
        publish(bus, topic, { event_type: "expired", service_id: `${gone}-1` }),
        publish(bus, topic, event(alsoFresh)),
      ];
      await until(async () => {
        const names = await audience.names();
        return [fresh, alsoFresh].every((tool) => names.includes(tool));
      }, soon);
      await until(async () => !(await serves(kept)) && !(await serves(gone)), soon);
      await Promise.all(sent);
    });
    expect(callsInAll).toBeGreaterThanOrEqual(50_000);
  }, 240_000);
});
