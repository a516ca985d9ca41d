import { expect, it } from "vitest";
import { composeBus } from "../../src/cli/compose.ts";
import { loadConfig } from "../../src/config/load.ts";
import { silentLogger } from "../../src/core/log.ts";
import { root } from "../support/runtime.ts";

it("messages that wait for a busy handler do not keep the bus from handing out others", async () => {
  const config = await loadConfig({ cwd: root, env: {} });
  const bus = composeBus(config, silentLogger);
  await bus.start();
  const { promise: release, resolve } = Promise.withResolvers<undefined>();
  const handedOut = new Set<string | null>();
  await bus.subscribe("requests", "group", async ({ key }) => {
    handedOut.add(key);
    await release;
  });
  const many = 10 * config.runtime.maxConcurrency;
  for (let key = 0; key < many; key++) {
    await bus.publish("requests", { key: String(key), value: null, headers: {} });
  }
  await expect.poll(() => handedOut.size).toBe(many);
  resolve(undefined);
  await bus.close();
});

it("KAFKA_BOOTSTRAP_SERVERS puts the bus on Kafka", async () => {
  const kafka = composeBus(
    await loadConfig({ cwd: root, env: { KAFKA_BOOTSTRAP_SERVERS: "127.0.0.1:1" } }),
    silentLogger,
  );
  expect(kafka.health().type).toBe("kafka");
  expect(composeBus(await loadConfig({ cwd: root, env: {} }), silentLogger).health().type).toBe("inmemory");
});
