/** A runtime that is killed and started again while Consul, or Kafka too, is away. */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
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
import { freePorts } from "../services/ports.ts";
import {
  makePlace,
  modernSubscriber,
  register,
  sourceOf,
  testNode,
  unique,
  until,
  type NodeService,
  type Place,
  type Subscriber,
} from "./cluster.ts";

const namesOf = async (subscriber: Subscriber): Promise<string[]> =>
  (await subscriber.list()).map(({ name }) => name).sort();

/** Tools of Consul and of events that a runtime has seen before it was killed; `goes` and `eventGoes` went afterwards. */
interface Seen {
  readonly place: Place;
  readonly service: NodeService;
  readonly stays: string;
  readonly goes: string;
  /** Registered afterwards. */
  readonly comes: string;
  readonly eventStays: string;
  readonly eventGoes: string;
}

describeWithOwnServices("a runtime that starts while services are away", () => {
  let consul: Consul;
  let kafka: Kafka;
  let operator: Operator;
  const opened = new AsyncDisposableStack();

  beforeAll(async () => {
    consul = opened.use(await startConsul());
    kafka = opened.use(await startKafka());
    operator = new Operator(consul);
  }, 120_000);

  afterAll(() => opened.disposeAsync());

  type Service = Pick<Consul, "kill" | "restart">;
  const away = new Set<Service>();

  async function kill(...services: readonly Service[]): Promise<void> {
    for (const service of services) away.add(service);
    await Promise.all(services.map((service) => service.kill()));
  }

  async function restart(service: Service): Promise<void> {
    await service.restart();
    away.delete(service);
  }

  /**
   * A runtime has saved its state and was killed; then things changed. Where the next one has another name it need not
   * wait for its group to notice.
   */
  async function leave(mcp: Record<string, unknown> = {}): Promise<Seen> {
    for (const service of away) await restart(service);
    const topic = uniqueTopic();
    const bus = new KafkaBus({ bootstrapServers: [kafka.bootstrapServers] });
    await bus.start();
    const service = await testNode("orders");
    const place = await makePlace({
      consul,
      kafkaServers: kafka.bootstrapServers,
      runtime: { consumer_group: "${ONEX_NAME}" },
      mcp: { registration_topics: [topic], state_dir: "${ONEX_CONTRACTS_DIR}/state", ...mcp },
    });
    onTestFinished(() => place[Symbol.asyncDispose]());
    const runtime = await place.start();
    const [stays, goes, comes] = ["stays", "goes", "comes"].map(unique) as [string, string, string];
    const [eventStays, eventGoes] = ["event_stays", "event_goes"].map(unique) as [string, string];
    for (const tool of [stays, goes]) await register(operator, tool, service, { tool });
    for (const tool of [eventStays, eventGoes])
      await publish(bus, topic, registration(tool, { endpoint: service.url }));
    const saved = (source: string): Promise<string> =>
      readFile(join(place.folder, "state", `${source}.json`), "utf8").catch(() => "");
    await until(async () => {
      const text = (await saved("consul")) + (await saved("events"));
      return [stays, goes, eventStays, eventGoes].every((tool) => text.includes(tool));
    });
    runtime.process.kill("SIGKILL");
    await runtime.exit;
    await operator.deregister(goes);
    await register(operator, comes, service, { tool: comes });
    await publish(bus, topic, { event_type: "expired", service_id: `${eventGoes}-1` });
    await bus.destroy(new Error("no longer needed"));
    return { place, service, stays, goes, comes, eventStays, eventGoes };
  }

  /** Other tests' services are left out. */
  const among = async (client: Subscriber, { stays, goes, comes, eventStays, eventGoes }: Seen) => {
    const ours = [stays, goes, comes, eventStays, eventGoes];
    return (await namesOf(client)).filter((name) => ours.includes(name));
  };

  it("while Consul is away it serves Consul's last good state and says so; the present one replaces it in one change", async () => {
    const seen = await leave();
    const { place, service, stays, goes, comes, eventStays } = seen;
    await kill(consul);
    const runtime = await place.start();
    const client = await modernSubscriber(runtime.mcp);
    onTestFinished(() => client.close());
    expect(await among(client, seen)).toEqual([stays, goes, eventStays].sort());
    for (const tool of [stays, eventStays])
      expect((await client.call(tool)).structuredContent).toMatchObject({ node: service.name, tool });
    const { state, restored_from, last_error } = await sourceOf(runtime, "consul");
    expect(state).toBe("degraded");
    expect(Date.parse(restored_from ?? "")).toBeLessThanOrEqual(Date.now());
    expect(last_error).toEqual(expect.any(String));
    expect((await sourceOf(runtime, "events")).state).toBe("ready");
    const operators = await (await fetch(new URL("/ready", runtime.operators))).text();
    expect(operators).toContain(`"restored_from":"${restored_from}"`);

    await restart(consul);
    await until(async () => (await among(client, seen)).includes(comes));
    expect(await among(client, seen)).toEqual([stays, comes, eventStays].sort());
    await until(async () => (await sourceOf(runtime, "consul")).state === "ready");
    expect(await sourceOf(runtime, "consul")).not.toHaveProperty("restored_from");
    expect((await client.call(comes)).structuredContent).toMatchObject({ tool: comes });
    expect(client.changes).toBe(1);
  }, 120_000);

  it("while both are away MCP clients are served from the last good state of both, which each replaces on its return", async () => {
    const [port] = (await freePorts(1)) as [number];
    const seen = await leave({ port });
    const { place, service, stays, goes, comes, eventStays, eventGoes } = seen;
    await kill(consul, kafka);
    const runtime = { mcp: new URL(`http://127.0.0.1:${port}/mcp`) };
    // Envelopes are taken once there is a broker: only then does the whole host say that it is ready.
    const starting = place.start("another-group");
    onTestFinished(async () => {
      if (away.has(kafka)) await restart(kafka);
      await starting;
    });
    await until(async () => (await fetch(new URL("/ready", runtime.mcp))).ok);
    const client = await modernSubscriber(runtime.mcp);
    onTestFinished(() => client.close());
    expect(await among(client, seen)).toEqual([stays, goes, eventStays, eventGoes].sort());
    for (const tool of [stays, eventStays])
      expect((await client.call(tool)).structuredContent).toMatchObject({ node: service.name, tool });
    for (const source of ["consul", "events"]) {
      expect(await sourceOf(runtime, source)).toMatchObject({
        state: "degraded",
        restored_from: expect.any(String),
      });
    }
    await restart(consul);
    await until(async () => (await among(client, seen)).includes(comes));
    expect(await among(client, seen)).toEqual([stays, comes, eventStays, eventGoes].sort());
    await restart(kafka);
    await until(async () => !(await among(client, seen)).includes(eventGoes));
    expect(await among(client, seen)).toEqual([stays, comes, eventStays].sort());
    for (const source of ["consul", "events"])
      await until(async () => (await sourceOf(runtime, source)).state === "ready");
    for (const tool of [stays, comes, eventStays])
      expect((await client.call(tool)).structuredContent).toMatchObject({ tool });
    expect(client.changes).toBe(2);
  }, 120_000);

  it("without a saved state it serves nothing of Consul, says why, and takes Consul's state when it returns", async () => {
    const seen = await leave();
    await rm(join(seen.place.folder, "state"), { recursive: true });
    const { place, stays, goes, comes, eventStays } = seen;
    await kill(consul);
    const runtime = await place.start("another-group");
    const client = await modernSubscriber(runtime.mcp);
    onTestFinished(() => client.close());
    expect(await among(client, seen)).toEqual([eventStays]);
    expect(await sourceOf(runtime, "consul")).toMatchObject({
      state: "starting",
      last_error: expect.any(String),
    });
    await restart(consul);
    await until(async () => (await among(client, seen)).includes(comes));
    expect(await among(client, seen)).toEqual([comes, eventStays, stays].sort());
    expect(await among(client, seen)).not.toContain(goes);
  }, 120_000);
});
