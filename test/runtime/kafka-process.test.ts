/** Whole processes on a real Kafka: killed, restarted, started without a broker. */
import { writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import type { Answer } from "../../src/bus/envelope.ts";
import { read, startedBus, text, uniqueTopic } from "../bus/kafka.ts";
import { folder, root, serve, start } from "../cli/cli.ts";
import { describeWithKafka, kafkaServers } from "../services/index.ts";

const soon = { timeout: 25_000 };

/** Waits, where the payload says so, until the file `go` is there. */
const handler = `
import { existsSync } from "node:fs";
export class Worker {
  handlerType = "work";
  async initialize() {}
  async execute({ payload }) {
    while (payload.wait && !existsSync(new URL("./go", import.meta.url)))
      await new Promise((resolve) => setTimeout(resolve, 20));
    return { pid: process.pid };
  }
  async shutdown() {}
  async healthCheck() { return { healthy: true }; }
  describe() { return { handler_type: "work" }; }
}
`;

const contract = `
handler_id: effect.work.handler
name: work
handler_class: ./work.mjs#Worker
descriptor: {node_archetype: effect}
`;

const configuration = (topic: string): string => `
input_topic: ${topic}.in
output_topic: ${topic}.out
consumer_group: ${topic}
event_bus: {environment: ${topic}, partitions: 1}
handler_source: {mode: contract}
handlers: {work: {}}
shutdown: {drain_timeout_seconds: 1, handler_timeout_seconds: 1, grace_period_seconds: 5}
`;

async function project(topic: string): Promise<string> {
  return await folder({
    "contracts/runtime/runtime_config.yaml": configuration(topic),
    "contracts/work/work.mjs": handler,
    "contracts/work/handler_contract.yaml": contract,
  });
}

describeWithKafka("a process on Kafka", () => {
  test("that is killed leaves what it did not answer to the next; what is answered twice has the same ids", async () => {
    const topic = uniqueTopic().replace("test.", "proc-");
    const cwd = await project(topic);
    const env = { KAFKA_BOOTSTRAP_SERVERS: kafkaServers() };
    const bus = await startedBus({ partitions: 1 });
    const answers: Answer[] = [];
    await bus.follow(`${topic}.out`, {
      replay: true,
      create: { partitions: 1, compacted: false },
      onMessages: (messages) =>
        void answers.push(...messages.map((each) => JSON.parse(read(each)) as Answer)),
    });
    const send = (body: object): Promise<void> =>
      bus.publish(`${topic}.in`, text(null, JSON.stringify({ operation: "work.do", ...body })));
    const first = await serve(cwd, env);
    // Offsets are committed up to the first message without an answer: this one.
    await send({ payload: { wait: true }, correlation_id: "waits", envelope_id: "e-1", message_id: "m-1" });
    await send({ payload: {}, correlation_id: "given", envelope_id: "e-2", message_id: "m-2" });
    await send({ payload: { without: "ids" } });
    await vi.waitFor(() => expect(answers).toHaveLength(2), soon);
    first.child.kill("SIGKILL");
    await first.ended;
    await writeFile(join(cwd, "contracts/work/go"), "");
    const second = await serve(cwd, env);
    await vi.waitFor(() => expect(answers).toHaveLength(5), soon);
    const before = answers.slice(0, 2);
    const after = answers.slice(2);
    expect(before.every(({ payload }) => JSON.stringify(payload) === `{"pid":${first.child.pid}}`)).toBe(
      true,
    );
    expect(after.every(({ payload }) => JSON.stringify(payload) === `{"pid":${second.child.pid}}`)).toBe(
      true,
    );
    expect(after.map(({ correlation_id }) => correlation_id)).toContain("waits");
    const ids = (answer: Answer): unknown[] => [answer.correlation_id, answer.envelope_id, answer.message_id];
    const again = after.filter(({ correlation_id }) => correlation_id !== "waits");
    expect(again.map(ids).toSorted()).toEqual(before.map(ids).toSorted());

    second.child.kill("SIGTERM");
    expect((await second.ended).code).toBe(0);
    // All of it was committed: the next process has nothing to do but what is new.
    await serve(cwd, env);
    await send({ payload: {}, correlation_id: "new" });
    await vi.waitFor(() => expect(answers.at(-1)?.correlation_id).toBe("new"), soon);
    expect(answers).toHaveLength(6);
  }, 90_000);

  test("that finds no broker is alive, not ready, says what it waits for, and ends in order", async () => {
    const cwd = await project("proc-alone");
    const operatorPort = await freePort();
    const running = start(cwd, ["serve"], {
      KAFKA_BOOTSTRAP_SERVERS: `127.0.0.1:${await freePort()}`,
      ONEX_HTTP_PORT: String(operatorPort),
    });
    await running.printed("stderr", /Waiting for Kafka: its brokers are not reached/);
    const url = `http://127.0.0.1:${operatorPort}`;
    expect((await fetch(`${url}/health`)).status).toBe(200);
    const ready = await fetch(`${url}/ready`);
    expect(ready.status).toBe(503);
    const body = JSON.stringify(await ready.json());
    expect(body).toContain("starting");
    expect(body).toContain("no Kafka broker could be reached since");
    running.child.kill("SIGTERM");
    const { code, stderr } = await running.ended;
    expect(code).toBe(0);
    expect(stderr).not.toMatch(/^\s+at /m);
  }, 60_000);

  test("that finds no broker serves the tools of its handlers, and calls them", async () => {
    const port = await freePort();
    start(root, ["serve"], {
      KAFKA_BOOTSTRAP_SERVERS: `127.0.0.1:${await freePort()}`,
      ONEX_MCP_PORT: String(port),
    });
    const call = { name: "greet", arguments: { name: "Ada" } };
    const post = async (): Promise<string> => {
      const answer = await fetch(`http://127.0.0.1:${port}/mcp`, {
        method: "POST",
        headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
        body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: call }),
      });
      return await answer.text();
    };
    await vi.waitFor(async () => expect(await post()).toContain("Hello, Ada"), {
      timeout: 20_000,
      interval: 100,
    });
  }, 60_000);
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
