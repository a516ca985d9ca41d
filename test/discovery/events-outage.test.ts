/** Registration events while Kafka, or their topic, is away. */
import { expect, it } from "vitest";
import { describeWithKafka, describeWithOwnKafka, kafkaServers, startKafka } from "../services/index.ts";
import {
  createTopic,
  makeSource,
  openBus,
  openSource,
  publish,
  uniqueTopic,
  withAdmin,
} from "./event-sources.ts";
import { registration } from "./registrations.ts";

describeWithKafka("a registration topic that is not there", () => {
  it("is waited for, which the status says, and is followed once it is", async () => {
    const topic = uniqueTopic();
    // No broker makes a topic without partitions.
    const open = await openSource(kafkaServers(), [topic, uniqueTopic()], { partitions: 0 });
    await expect.poll(() => open.source.status().lastError).toContain("may not be created");
    expect(open.source.status()).toMatchObject({ state: "starting" });
    expect(open.source.status().lastError).toContain(`topic ${topic} does not exist`);
    await createTopic(kafkaServers(), topic);
    await expect.poll(() => open.source.status().state).toBe("degraded");
    expect(open.source.status().lastError).not.toContain(topic);
    await publish(open.bus, topic, registration("orders"));
    await expect.poll(() => open.instances.has("orders-1")).toBe(true);
    await open.source.close();
    expect(open.source.status()).not.toHaveProperty("lastError");
  });
});

describeWithOwnKafka("a Kafka that is away", () => {
  it("keeps nobody from starting, loses nothing, and its state is right again when it is back", async () => {
    await using kafka = await startKafka();
    const topic = uniqueTopic();
    const servers = kafka.bootstrapServers;
    await createTopic(servers, topic);
    const bus = await openBus(servers);
    await publish(bus, topic, registration("before"));
    await bus.close();

    await kafka.kill();
    const open = await makeSource(servers, [topic]);
    await open.start();
    expect(open.source.status()).toMatchObject({ state: "starting" });
    expect(open.source.status().lastError).toContain(topic);

    await kafka.restart();
    await expect.poll(() => open.source.status().state).toBe("ready");
    expect(open.source.status()).not.toHaveProperty("lastError");
    expect([...open.instances.keys()]).toEqual(["before-1"]);

    await kafka.kill();
    await expect.poll(() => open.source.status().state).toBe("degraded");
    expect(open.source.status().lastError).toContain(topic);
    expect(open.instances.size).toBe(1);
    const { ageSeconds } = open.source.status();
    await expect.poll(() => open.source.status().ageSeconds).toBeGreaterThan(ageSeconds + 0.5);

    await kafka.restart();
    const back = await openBus(servers);
    await publish(back, topic, registration("after"));
    await expect.poll(() => open.instances.has("after-1")).toBe(true);
    await expect.poll(() => open.source.status().state).toBe("ready");
    expect(open.source.counters()).toMatchObject({ accepted: 2, rejected: 0 });

    await open.source.close();
    const groups = await withAdmin(servers, async (admin) => (await admin.listGroups()).groups);
    expect(groups).toEqual([]);
    await back.close();
    await open.bus.close();
  }, 90_000);

  it("does not hold up the end of a source", async () => {
    await using kafka = await startKafka();
    const open = await openSource(kafka.bootstrapServers, [uniqueTopic()]);
    await kafka.kill();
    await expect.poll(() => open.source.status().state).toBe("degraded");
    await open.source.close();
    expect(open.source.status()).toMatchObject({ state: "closed" });
    await open.bus.close();
  }, 60_000);
});
