/** Registration events on a real Kafka. */
import { randomUUID } from "node:crypto";
import { ConfigResourceTypes } from "kafkajs";
import { expect, it, vi } from "vitest";
import type { Instance } from "../../src/tools/instance.ts";
import { describeWithKafka, kafkaServers } from "../services/index.ts";
import { consulRecord } from "../support/instances.ts";
import {
  createTopic,
  deadLetters,
  makeSource,
  openBus,
  openSource,
  publish,
  uniqueTopic,
  untilRead,
  withAdmin,
} from "./event-sources.ts";
import { registration } from "./registrations.ts";

describeWithKafka("registration events", () => {
  it("state the instance of a service as soon as they are published, on a topic that is made", async () => {
    const topic = uniqueTopic();
    const open = await openSource(kafkaServers(), [topic]);
    expect(open.source.status()).toMatchObject({ name: "events", kind: "event", state: "ready" });
    expect(open.changes).toEqual([]);

    await publish(open.bus, topic, registration("orders", { description: "${HOME}", region: "eu" }));
    await expect
      .poll(() => open.instances.get("orders-1"))
      .toMatchObject({
        claim: { toolName: "orders" },
        url: "http://127.0.0.1:9/orders",
        definition: { description: "${HOME}" },
        live: true,
      });
    expect(open.changes).toHaveLength(1);
    expect(open.source.counters()).toEqual({
      accepted: 1,
      dropped: { older: 0, duplicate: 0 },
      rejected: 0,
      informational: 1,
      lag: 0,
    });

    const config = await withAdmin(kafkaServers(), async (admin) => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      const { resources } = await admin.describeConfigs({
        includeSynonyms: false,
        resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: ["cleanup.policy"] }],
      });
      return [topics[0]?.partitions.length, resources[0]?.configEntries[0]?.configValue];
    });
    expect(config).toEqual([4, "compact"]);
  });

  it("are the whole new state of their service: a tag that is dropped takes the tool with it", async () => {
    const topic = uniqueTopic();
    const open = await openSource(kafkaServers(), [topic]);
    await publish(open.bus, topic, registration("orders", { title: "Orders" }));
    const tags = ["mcp-enabled", "node-type:orchestrator"];
    await publish(open.bus, topic, registration("orders", { event_type: "updated", tags }));
    await untilRead(open, 2);
    const instance = open.instances.get("orders-1");
    expect(instance?.claim).toHaveProperty("refused");
    expect(instance?.definition).not.toHaveProperty("title");
  });

  it.each<[string, unknown]>([
    ["deregistered", { event_type: "deregistered", service_id: "orders-1" }],
    ["expired", { event_type: "expired", service_id: "orders-1", endpoint: "?" }],
    ["a null value under its key", null],
  ])("take the instance out at once, and Consul's word for it: %s", async (_title, value) => {
    const topic = uniqueTopic();
    const open = await openSource(kafkaServers(), [topic]);
    await publish(open.bus, topic, registration("orders"));
    await publish(open.bus, topic, registration("stock"));
    await untilRead(open, 2);
    await publish(open.bus, topic, value, "orders-1");
    await untilRead(open, 3);
    expect(open.changes.at(-1)).toEqual({ put: [], remove: ["orders-1"], suppress: ["orders-1"] });
    expect([...open.instances.keys()]).toEqual(["stock-1"]);
  });

  it("of a topic's past are one change that shows what holds, and suppress nothing", async () => {
    const topic = uniqueTopic();
    await createTopic(kafkaServers(), topic);
    const bus = await openBus(kafkaServers());
    for (const tool of ["a", "b", "c"]) {
      await publish(bus, topic, registration(tool, { node_version: "1.0.0" }));
      await publish(bus, topic, registration(tool, { node_version: "2.0.0" }));
    }
    await publish(bus, topic, { event_type: "deregistered", service_id: "b-1" });
    await publish(bus, topic, null, "c-1");
    await publish(bus, topic, null, "never-1");

    const open = await openSource(kafkaServers(), [topic]);
    expect(open.source.status()).toMatchObject({ state: "ready" });
    expect(open.changes).toHaveLength(1);
    expect(open.changes[0]).not.toHaveProperty("suppress");
    expect([...open.instances.keys()]).toEqual(["a-1"]);
    expect(open.instances.get("a-1")?.definition.version).toBe("2.0.0");
  });

  it("of a topic's past do not count without replay", async () => {
    const topic = uniqueTopic();
    await createTopic(kafkaServers(), topic);
    const bus = await openBus(kafkaServers());
    await publish(bus, topic, registration("past"));
    const open = await openSource(kafkaServers(), [topic], { replay: false });
    await publish(bus, topic, registration("present"));
    await untilRead(open, 1);
    expect([...open.instances.keys()]).toEqual(["present-1"]);
  });

  it("that were seen before are dropped, and do not bring back what is gone", async () => {
    const topic = uniqueTopic();
    const open = await openSource(kafkaServers(), [topic]);
    const event = registration("orders");
    await publish(open.bus, topic, event);
    await publish(open.bus, topic, event);
    await publish(open.bus, topic, { event_type: "deregistered", service_id: "orders-1" });
    await publish(open.bus, topic, event);
    await untilRead(open, 4);
    expect(open.source.counters()).toMatchObject({ accepted: 2, dropped: { duplicate: 2, older: 0 } });
    expect(open.instances.size).toBe(0);
  });

  it("of one service on two topics count by their time of emission", async () => {
    const topics = [uniqueTopic(), uniqueTopic()] as const;
    const open = await openSource(kafkaServers(), topics);
    const at = (second: number, version: string): unknown =>
      registration("orders", { emitted_at: `2026-01-01T00:00:0${second}Z`, node_version: version });
    await publish(open.bus, topics[0], at(5, "5.0.0"));
    await untilRead(open, 1);
    await publish(open.bus, topics[1], at(4, "4.0.0"));
    await untilRead(open, 2);
    expect(open.instances.get("orders-1")?.definition.version).toBe("5.0.0");
    await publish(open.bus, topics[1], at(6, "6.0.0"));
    await untilRead(open, 3);
    expect(open.instances.get("orders-1")?.definition.version).toBe("6.0.0");
    expect(open.source.counters()).toMatchObject({ accepted: 2, dropped: { older: 1 } });
  });

  it("on partitions of one topic count by their time of emission", async () => {
    const topic = uniqueTopic();
    const open = await openSource(kafkaServers(), [topic]);
    const versions = Array.from({ length: 20 }, (_, index) => index);
    // Other keys: these events are spread over partitions.
    for (const index of versions.toReversed()) {
      const emitted_at = `2026-01-01T00:00:${String(index).padStart(2, "0")}Z`;
      await publish(
        open.bus,
        topic,
        registration("orders", { emitted_at, node_version: `${index}.0.0` }),
        `k${index}`,
      );
    }
    await untilRead(open, 20);
    const last = open.instances.get("orders-1")?.definition.version;
    // On a partition the later offset counts: of each the last one published, the lowest. The highest of those holds.
    const replayed = await openSource(kafkaServers(), [topic]);
    expect(replayed.instances.get("orders-1")?.definition.version).toBe(last);
    expect(replayed.source.counters().accepted).toBeGreaterThan(0);
  });

  it("that are bad become dead letters with their reason, and the next one is taken", async () => {
    const topic = uniqueTopic();
    const open = await openSource(kafkaServers(), [topic], { partitions: 1 });
    await publish(open.bus, topic, "{oops", "bad-1");
    await publish(open.bus, topic, registration("bad", { timeout_seconds: 0 }));
    await publish(open.bus, topic, registration("good"));
    await expect.poll(() => open.instances.has("good-1")).toBe(true);
    expect(open.source.counters()).toMatchObject({ accepted: 1, rejected: 2 });
    expect(open.source.status()).toMatchObject({
      state: "ready",
      ageSeconds: 0,
      counters: { accepted: 1, rejected: 2, lag: 0, informational: 0, older: 0, duplicate: 0 },
    });
    const reason = "timeout_seconds: Too small: expected number to be >=1, got 0";
    expect(open.lines.filter(({ level }) => level === "warn").map(({ fields }) => fields)).toEqual([
      {
        topic,
        partition: 0,
        offset: "0",
        keyed_by: "bad-1",
        reason: expect.stringMatching(/^the value is not JSON/) as string,
      },
      { topic, partition: 0, offset: "1", keyed_by: "bad-1", reason },
    ]);

    const letters = await deadLetters(open);
    await expect.poll(letters).toHaveLength(2);
    const byOffset = letters().sort((a, b) =>
      JSON.stringify(a.original_message).localeCompare(JSON.stringify(b.original_message)),
    );
    expect(byOffset).toContainEqual(
      expect.objectContaining({
        original_topic: topic,
        original_message: { key: "bad-1", value: "{oops", offset: "0", partition: 0 },
        error_type: "InvalidJsonError",
        retry_count: 0,
      }),
    );
    expect(byOffset).toContainEqual(
      expect.objectContaining({ failure_reason: reason, error_type: "InvalidEventError" }),
    );
  });

  it("that are bad and past are counted at every start, and become no dead letters again", async () => {
    const topic = uniqueTopic();
    await createTopic(kafkaServers(), topic, 1);
    const bus = await openBus(kafkaServers());
    for (let index = 0; index < 100; index += 1) await publish(bus, topic, `bad ${index}`, "bad-1");
    await publish(bus, topic, registration("good"));
    const open = await openSource(kafkaServers(), [topic]);
    expect([...open.instances.keys()]).toEqual(["good-1"]);
    expect(open.source.counters().rejected).toBe(100);
    expect(open.lines.filter(({ level }) => level === "warn").length).toBeLessThan(20);
    await publish(bus, topic, "bad now", "bad-1");
    const letters = await deadLetters(open);
    await expect.poll(letters).toHaveLength(1);
    expect(letters()[0]).toMatchObject({ original_message: { value: "bad now" } });
  });
});

const dismiss = vi.fn<(serviceId: string) => void>();

describeWithKafka("registration events that say too little", () => {
  const small = (fields: Record<string, unknown> = {}): Record<string, unknown> => ({
    event_type: "registered",
    node_id: randomUUID(),
    service_id: "orders-1",
    tags: ["mcp-enabled", "node-type:orchestrator", "mcp-tool:orders"],
    ...fields,
  });

  const { instance: known } = consulRecord("orders-1");

  it("state what they say, and Consul is asked for the rest", async () => {
    dismiss.mockClear();
    const topic = uniqueTopic();
    const lookUp = vi.fn(async () => await Promise.resolve(known));
    const open = await openSource(kafkaServers(), [topic], { consul: { lookUp, dismiss } });
    await publish(open.bus, topic, small());
    await expect.poll(() => lookUp.mock.calls).toEqual([["orders-1", undefined]]);
    expect(open.instances.get("orders-1")).toMatchObject({ claim: { toolName: "orders" } });
    expect(open.instances.get("orders-1")).not.toHaveProperty("serviceName");
    await publish(open.bus, topic, { event_type: "updated", service_id: "orders-1", service_name: "orders" });
    await expect.poll(() => lookUp.mock.calls).toContainEqual(["orders-1", "orders"]);
    expect(open.source.counters()).toMatchObject({ accepted: 2, rejected: 0 });
    expect(dismiss).not.toHaveBeenCalled();
    await publish(open.bus, topic, { event_type: "deregistered", service_id: "orders-1" });
    await expect.poll(() => dismiss.mock.calls).toEqual([["orders-1"]]);
  });

  it("are rejected where Consul does not know the service", async () => {
    const topic = uniqueTopic();
    const lookUp = vi.fn(async () => await Promise.resolve(undefined));
    const open = await openSource(kafkaServers(), [topic], { consul: { lookUp, dismiss } });
    await publish(open.bus, topic, small({ tags: null }));
    await expect.poll(() => open.source.counters().rejected).toBe(1);
    expect(open.instances.has("orders-1")).toBe(true);
    const letters = await deadLetters(open);
    await expect.poll(letters).toHaveLength(1);
    expect(letters()[0]).toMatchObject({
      failure_reason: 'it lacks tags and endpoint, and Consul does not know the service_id "orders-1"',
      error_type: "IncompleteEventError",
    });
  });

  it("are rejected where there is no Consul", async () => {
    const topic = uniqueTopic();
    const open = await openSource(kafkaServers(), [topic]);
    await publish(open.bus, topic, small());
    const letters = await deadLetters(open);
    await expect.poll(letters).toHaveLength(1);
    expect(letters()[0]).toMatchObject({
      failure_reason: "it lacks an endpoint, and there is no Consul to complete it",
    });
  });

  it("are not rejected while Consul cannot be asked, nor where they are no tool anyway", async () => {
    const topic = uniqueTopic();
    const lookUp = vi.fn(async () => await Promise.reject<Instance>(new Error("no route")));
    const open = await openSource(kafkaServers(), [topic], { consul: { lookUp, dismiss } });
    await publish(open.bus, topic, small());
    await publish(open.bus, topic, small({ service_id: "other-1", tags: [] }));
    await untilRead(open, 2);
    await expect.poll(() => open.lines.map(({ fields }) => fields.reason)).toContain("no route");
    expect(lookUp).toHaveBeenCalledTimes(1);
    expect(open.source.counters().rejected).toBe(0);
  });

  it.each([
    ["without the tag mcp-enabled", { url: "http://10.0.0.1:80" }, { tags: null }, "tags and endpoint"],
    ["without an address that can be used", { claim: { toolName: "orders" } }, {}, "an endpoint"],
  ])("are rejected where Consul has the service %s", async (what, facts, fields, lacking) => {
    const topic = uniqueTopic();
    const found = { source: "consul", serviceId: "orders-1", definition: {}, live: true, ...facts } as const;
    const lookUp = async (): Promise<Instance> => await Promise.resolve(found);
    const open = await openSource(kafkaServers(), [topic], { consul: { lookUp, dismiss } });
    await publish(open.bus, topic, small(fields));
    const letters = await deadLetters(open);
    await expect.poll(letters).toHaveLength(1);
    expect(letters()[0]).toMatchObject({
      failure_reason: `it lacks ${lacking}, and Consul has the service_id "orders-1" ${what}`,
    });
  });

  it("from the past are asked for where they hold at its end, and rejected without another dead letter", async () => {
    const topic = uniqueTopic();
    await createTopic(kafkaServers(), topic, 1);
    const bus = await openBus(kafkaServers());
    await publish(bus, topic, small({ title: "superseded" }));
    await publish(bus, topic, small());
    await publish(bus, topic, small({ service_id: "gone-1" }));
    await publish(bus, topic, { event_type: "expired", service_id: "gone-1" });
    const lookUp = vi.fn(async () => await Promise.resolve(undefined));
    const open = await openSource(kafkaServers(), [topic], { consul: { lookUp, dismiss } });
    expect(open.instances.has("orders-1")).toBe(true);
    await expect.poll(() => open.source.counters().rejected).toBe(1);
    expect(lookUp.mock.calls).toEqual([["orders-1", undefined]]);
    await publish(open.bus, topic, small({ service_id: "now-1" }));
    const letters = await deadLetters(open);
    await expect.poll(letters).toHaveLength(1);
    expect(letters()[0]).toMatchObject({ original_message: { key: "now-1" } });
  });

  it("are not rejected where another event has taken their place before Consul has answered", async () => {
    const topic = uniqueTopic();
    const answer = Promise.withResolvers<undefined>();
    const lookUp = vi.fn(async () => await answer.promise);
    const open = await openSource(kafkaServers(), [topic], { consul: { lookUp, dismiss } });
    await publish(open.bus, topic, small());
    await expect.poll(() => lookUp.mock.calls).toHaveLength(1);
    await publish(open.bus, topic, registration("orders"));
    await untilRead(open, 2);
    answer.resolve(undefined);
    await publish(open.bus, topic, small({ service_id: "other-1" }));
    await expect.poll(() => open.source.counters().rejected).toBe(1);
    expect(open.lines.map(({ fields }) => fields.keyed_by)).toEqual(["other-1"]);
  });
});

describeWithKafka("following registration topics", () => {
  it("loses nothing that is published while it begins", async () => {
    const topic = uniqueTopic();
    await createTopic(kafkaServers(), topic);
    const bus = await openBus(kafkaServers());
    const sources = await Promise.all(
      [true, false].map((replay) => makeSource(kafkaServers(), [topic], { replay })),
    );
    let started = 0;
    const starts = sources.map(async (open) => {
      await open.start();
      started += 1;
    });
    let published = 0;
    const counted = sources.map(
      ({ source }) =>
        () =>
          source.counters().accepted,
    );
    while (started < sources.length || published < 50) {
      await publish(bus, topic, registration(`tool${published}`));
      published += 1;
    }
    await Promise.all(starts);
    await expect.poll(() => counted[0]?.()).toBe(published);
    // Without replay all that was published since it began, in one piece.
    await expect.poll(() => sources[1]?.instances.has(`tool${published - 1}-1`)).toBe(true);
    const names = [...(sources[1]?.instances.keys() ?? [])].map((key) => Number(/\d+/.exec(key)?.[0]));
    expect(names.length).toBe(published - Math.min(...names));
  });

  it("takes what comes on a topic that was made anew", async () => {
    const topic = uniqueTopic();
    const open = await openSource(kafkaServers(), [topic], { partitions: 1 });
    for (const version of ["1.0.0", "2.0.0", "3.0.0"])
      await publish(open.bus, topic, registration("orders", { node_version: version, event_id: undefined }));
    await untilRead(open, 3);
    await withAdmin(kafkaServers(), async (admin) => await admin.deleteTopics({ topics: [topic] }));
    await expect
      .poll(
        async () =>
          await createTopic(kafkaServers(), topic, 1).then(
            () => "made",
            () => "not yet",
          ),
      )
      .toBe("made");
    const bus = await openBus(kafkaServers());
    await publish(bus, topic, registration("orders", { node_version: "4.0.0", event_id: undefined }));
    await expect.poll(() => open.instances.get("orders-1")?.definition.version).toBe("4.0.0");
  });

  it("ends with its source: the group is removed, and nothing is applied any more", async () => {
    const topic = uniqueTopic();
    const open = await openSource(kafkaServers(), [topic]);
    const groupsOn = async (): Promise<string[]> =>
      await withAdmin(kafkaServers(), async (admin) => {
        const { groups } = await admin.listGroups();
        const described = await admin.describeGroups(groups.map(({ groupId }) => groupId));
        return described.groups
          .filter(({ members }) => members.some((member) => member.memberMetadata.toString().includes(topic)))
          .map(({ groupId }) => groupId);
      });
    expect(await groupsOn()).toHaveLength(1);
    const bus = await openBus(kafkaServers());
    await open.source.close();
    await open.source.close();
    expect(await groupsOn()).toHaveLength(0);
    expect(open.source.status()).toMatchObject({ state: "closed" });
    await publish(bus, topic, registration("orders"));
    const other = await openSource(kafkaServers(), [topic]);
    expect(other.instances.size).toBe(1);
    expect(open.changes).toEqual([]);
  });
});
