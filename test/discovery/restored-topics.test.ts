/** The last good state of registration events on several topics of a real Kafka, one of which is away. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import type { KafkaBus } from "../../src/bus/kafka.ts";
import { monotonicClock } from "../../src/core/clock.ts";
import { silentLogger } from "../../src/core/log.ts";
import { Sync } from "../../src/discovery/sync.ts";
import { Catalog } from "../../src/tools/catalog.ts";
import { describeWithKafka, kafkaServers } from "../services/index.ts";
import { createTopic, makeSource, openBus, publish, uniqueTopic, withAdmin } from "./event-sources.ts";
import { registration } from "./registrations.ts";

interface Runtime {
  readonly sync: Sync;
  readonly names: () => readonly string[];
  readonly bus: KafkaBus;
}

/** A process that follows the topics and keeps its state in the directory. */
async function start(topics: readonly string[], stateDir: string): Promise<Runtime> {
  // No broker makes a topic without partitions: one that is away stays away.
  const { source: events, bus } = await makeSource(kafkaServers(), topics, { partitions: 0 });
  const catalog = new Catalog();
  const sync = new Sync({
    catalog,
    recordsOf: (source) => source,
    local: [],
    events,
    stateDir,
    clock: monotonicClock,
    log: silentLogger,
  });
  onTestFinished(() => sync.close());
  await sync.start();
  return { sync, bus, names: () => catalog.snapshot().tools.map(({ owner }) => owner) };
}

describeWithKafka("two registration topics, one of them away", () => {
  it("lose nothing of the one that is away, however often the runtime starts, until it is read again", async () => {
    const stateDir = await mkdtemp(join(tmpdir(), "onex-topics-"));
    onTestFinished(() => rm(stateDir, { recursive: true }));
    const onDisk = async (): Promise<string[]> => {
      const text = await readFile(join(stateDir, "events.json"), "utf8");
      return (JSON.parse(text) as { records: { key: string }[] }).records.map(({ key }) => key).sort();
    };
    const [there, away] = [uniqueTopic(), uniqueTopic()];
    for (const topic of [there, away]) await createTopic(kafkaServers(), topic, 1);
    const bus = await openBus(kafkaServers());
    await publish(bus, there, registration("orders"));
    await publish(bus, away, registration("bills"));

    const first = await start([there, away], stateDir);
    await expect.poll(first.names).toEqual(["bills", "orders"]);
    await first.sync.close();
    await withAdmin(kafkaServers(), (admin) => admin.deleteTopics({ topics: [away] }));

    for (const added of ["parcels", "stock"]) {
      const { sync, names } = await start([there, away], stateDir);
      expect(names()).toEqual(expect.arrayContaining(["bills", "orders"]));
      await publish(bus, there, registration(added));
      await expect.poll(names).toContain(added);
      expect(names()).toContain("bills");
      expect(sync.statuses()[0]).toMatchObject({
        state: "degraded",
        lastError: expect.stringContaining(away) as string,
        restoredFrom: expect.any(String) as string,
      });
      await sync.close();
      expect(await onDisk()).toEqual(expect.arrayContaining(["bills-1", "orders-1", `${added}-1`]));
    }

    const last = await start([there, away], stateDir);
    await createTopic(kafkaServers(), away, 1);
    await expect.poll(last.names, { timeout: 20_000 }).toEqual(["orders", "parcels", "stock"]);
    expect(last.sync.statuses()[0]).not.toHaveProperty("restoredFrom");
    await last.sync.close();
    expect(await onDisk()).toEqual(["orders-1", "parcels-1", "stock-1"]);
  }, 90_000);
});
