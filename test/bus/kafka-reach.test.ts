/** What the log says when brokers go away and come back. */
import { createServer, type AddressInfo, type Socket } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { silentLogger, type Logger } from "../../src/core/log.ts";
import { describeWithOwnKafka, startKafka } from "../services/index.ts";
import { makeBus, startedBus, text, uniqueTopic } from "./kafka.ts";

const soon = { timeout: 20_000 };
const brief = { publishRetries: 1, retryBackoffBaseSeconds: 0.05, circuitBreakerResetSeconds: 0.2 };

/** The lines about brokers that are reached or not: `lost` and `back`. */
function reachLog(): { readonly lines: string[]; readonly log: Logger } {
  const lines: string[] = [];
  const log: Logger = {
    ...silentLogger,
    warn: (_fields, message) => {
      if (message.startsWith("Kafka is not reached: ")) lines.push("lost");
    },
    info: (_fields, message) => {
      if (message === "Kafka is reached again") lines.push("back");
    },
  };
  return { lines, log };
}

test("brokers that take connections and never answer hold up no start, are told once, and are tried on", async () => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => void sockets.add(socket)).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { lines, log } = reachLog();
  const bus = makeBus({
    ...brief,
    bootstrapServers: [`127.0.0.1:${(server.address() as AddressInfo).port}`],
    log,
  });
  await bus.start();
  // The library's own attempt is still under way, on its first connection.
  expect(sockets.size).toBe(1);
  expect(bus.health()).toMatchObject({
    healthy: false,
    detail: expect.stringContaining("no broker answered within"),
  });
  expect(lines).toEqual(["lost"]);
}, 10_000);

describeWithOwnKafka("an outage", () => {
  test("is one line, and its end another one, each time, whoever notices", async () => {
    await using kafka = await startKafka();
    const { lines, log } = reachLog();
    const topic = uniqueTopic();
    const bus = await startedBus({ ...brief, bootstrapServers: [kafka.bootstrapServers], log });
    await bus.publish(topic, text("k", "x"));
    expect(lines).toEqual([]);
    const outage = async (notice: () => Promise<void>): Promise<void> => {
      const before = lines.length;
      await kafka.kill();
      await notice();
      await vi.waitFor(() => expect(lines.slice(before)).toEqual(["lost"]), soon);
      await kafka.restart();
      await vi.waitFor(() => bus.publish(topic, text("k", "x")), soon);
      await vi.waitFor(() => expect(lines.slice(before)).toEqual(["lost", "back"]), soon);
      await vi.waitFor(() => expect(bus.health().healthy).toBe(true), soon);
    };
    await outage(() => expect(bus.publish(topic, text("k", "x"))).rejects.toThrow());
    await bus.subscribe(topic, topic, async () => undefined);
    await bus.follow(topic, { replay: false, onMessages: () => undefined });
    for (let round = 0; round < 2; round += 1) await outage(async () => undefined);
    await bus.close();
    expect(lines).toEqual(["lost", "back", "lost", "back", "lost", "back"]);
  }, 90_000);
});
