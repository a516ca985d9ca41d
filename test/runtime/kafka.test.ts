import { expect, onTestFinished, test, vi } from "vitest";
import type { Answer } from "../../src/bus/envelope.ts";
import type { KafkaBus } from "../../src/bus/kafka.ts";
import { silentLogger, type LogFields, type Logger } from "../../src/core/log.ts";
import type { RuntimeHost } from "../../src/runtime/host.ts";
import type { HostOptions } from "../../src/runtime/options.ts";
import { read, startedBus, text, uniqueTopic } from "../bus/kafka.ts";
import { describeWithKafka, describeWithOwnKafka, startKafka } from "../services/index.ts";
import { Contracts, makeHost, type Behaviour } from "./support.ts";

const soon = { timeout: 20_000 };

interface Collected {
  readonly answer: Answer;
  readonly key: string | null;
  readonly headers: Readonly<Record<string, string>>;
}

/** A host on Kafka with topics of its own; more hosts of the same group by `replica`. */
async function kafkaHost(behaviours: Readonly<Record<string, Behaviour>>, servers?: string) {
  const contracts = await Contracts.make();
  onTestFinished(() => contracts[Symbol.asyncDispose]());
  for (const [type, behaviour] of Object.entries(behaviours)) await contracts.handler(type, behaviour);
  const topic = uniqueTopic();
  const environment = topic.slice(5);
  const busOptions = {
    environment,
    partitions: 3,
    concurrency: 1000,
    publishRetries: 1,
    retryBackoffBaseSeconds: 0.05,
    circuitBreakerResetSeconds: 0.2,
    ...(servers !== undefined && { bootstrapServers: [servers] }),
  };
  const inputTopic = `${topic}.in`;
  const outputTopic = `${topic}.out`;
  const client = await startedBus(busOptions);
  const replica = async (more: Partial<HostOptions> = {}): Promise<RuntimeHost> => {
    const { host } = makeHost(contracts, {
      bus: await startedBus(busOptions),
      inputTopic,
      outputTopic,
      consumerGroup: topic,
      ...more,
    });
    onTestFinished(() => host.stop().then(() => undefined));
    await host.start();
    return host;
  };
  return {
    client,
    environment,
    inputTopic,
    outputTopic,
    replica,
    answers: (from = outputTopic) => collect(client, from),
    send: async (value: unknown, key: string | null = null, headers = {}) => {
      const body = typeof value === "string" ? value : JSON.stringify(value);
      await client.publish(inputTopic, { ...text(key, body), headers });
    },
  };
}

/** Everything on a topic, from its beginning, as it comes. */
async function collect(bus: KafkaBus, topic: string): Promise<Collected[]> {
  const got: Collected[] = [];
  await bus.follow(topic, {
    replay: true,
    create: { partitions: 1, compacted: false },
    onMessages: (messages) => {
      for (const message of messages) got.push({ ...message, answer: JSON.parse(read(message)) as Answer });
    },
  });
  return got;
}

describeWithKafka("the runtime host on Kafka", () => {
  test("answers an envelope on the output topic, and on reply_to, keyed by the correlation id", async () => {
    const setup = await kafkaHost({ greet: { execute: ({ payload }) => ({ hello: payload.name }) } });
    await setup.replica();
    const out = await setup.answers();
    const replies = await setup.answers(`${setup.inputTopic}.replies`);
    const envelope = { operation: "greet.hello", payload: { name: "Ada" } };
    await setup.send({ ...envelope, correlation_id: "c-1", envelope_id: "e-1", message_id: "m-1" });
    await setup.send({ ...envelope, correlation_id: "c-2", reply_to: `${setup.inputTopic}.replies` });
    await vi.waitFor(() => {
      expect(out).toHaveLength(1);
      expect(replies).toHaveLength(1);
    }, soon);
    expect(out[0]).toMatchObject({
      key: "c-1",
      headers: {
        correlation_id: "c-1",
        message_id: "m-1",
        source: "test-host",
        event_type: "envelope.answer",
      },
      answer: { success: true, payload: { hello: "Ada" }, envelope_id: "e-1", message_id: "m-1" },
    });
    expect(replies[0]).toMatchObject({ key: "c-2", answer: { correlation_id: "c-2", success: true } });
  });

  test("answers a burst to topics that are not there yet, stays ready meanwhile, and stops at once", async () => {
    const setup = await kafkaHost({ greet: {} });
    const bus = await startedBus({
      environment: setup.environment,
      partitions: 1,
      circuitBreakerThreshold: 1,
      circuitBreakerResetSeconds: 60,
    });
    const host = await setup.replica({ bus });
    const sent = Array.from({ length: 40 }, (_, index) => `c-${index}`);
    const replies = (index: number): string => `${setup.inputTopic}.${index}`;
    await Promise.all(
      sent.map((id, index) =>
        setup.send({
          operation: "greet.hello",
          correlation_id: id,
          ...(index % 2 === 1 && { reply_to: replies(index) }),
        }),
      ),
    );
    const out = await setup.answers();
    await vi.waitFor(() => expect(out).toHaveLength(20), soon);
    for (let index = 1; index < 40; index += 2) {
      const own = await setup.answers(replies(index));
      await vi.waitFor(() => expect(own).toHaveLength(1), soon);
    }
    expect(await host.ready()).toMatchObject({ ready: true });
    expect(await host.stop()).toEqual({ forced: false });
  }, 60_000);

  test("answers a duplicate without calling the handler again", async () => {
    const execute = vi.fn(() => "done");
    const setup = await kafkaHost({ greet: { execute } });
    await setup.replica();
    const out = await setup.answers();
    for (const correlation of ["c-1", "c-2"])
      await setup.send({ operation: "greet.hello", message_id: "m-1", correlation_id: correlation }, "k");
    await vi.waitFor(() => expect(out).toHaveLength(2), soon);
    expect(out.map(({ answer }) => answer.status).toSorted()).toEqual(["duplicate", "success"]);
    expect(execute).toHaveBeenCalledOnce();
  });

  test("answers what is no envelope with an error, and makes a dead letter of what may not be answered", async () => {
    const setup = await kafkaHost({ greet: {} });
    await setup.replica();
    const out = await setup.answers();
    const letters = await setup.answers(`${setup.environment}.dlq.commands.v1`);
    await setup.send("no JSON");
    await vi.waitFor(() => expect(out).toHaveLength(1), soon);
    expect(out[0]?.answer).toMatchObject({ success: false, error: { retryable: false } });
    await setup.send(out[0]?.answer, "k");
    await vi.waitFor(() => expect(letters).toHaveLength(1), soon);
    expect(letters[0]?.answer).toMatchObject({
      original_topic: setup.inputTopic,
      original_message: { key: "k", value: JSON.stringify(out[0]?.answer) },
      failure_reason: expect.stringContaining("it is an answer"),
      error_type: "EnvelopeValidationError",
    });
    await setup.send({ operation: "greet.hello", reply_to: "no topic!", correlation_id: "next" });
    await vi.waitFor(() => expect(out.at(-1)?.answer.correlation_id).toBe("next"), soon);
  });

  test("answers with an error where the answer is larger than the topic takes", async () => {
    const setup = await kafkaHost({ greet: { execute: () => "x".repeat(2_000_000) } });
    await setup.replica();
    const out = await setup.answers();
    await setup.send({ operation: "greet.hello", correlation_id: "c-1" });
    await vi.waitFor(() => expect(out).toHaveLength(1), soon);
    expect(out[0]?.answer).toMatchObject({
      success: false,
      correlation_id: "c-1",
      error: {
        message: expect.stringMatching(/the answer has 2000\d+ bytes, more than the event bus takes/),
      },
    });
  });

  test("a message that came without ids gets the same ones each time it is delivered", async () => {
    let stuck = true;
    const setup = await kafkaHost({
      greet: {
        execute: async ({ payload }, { signal }) => {
          if (payload.waits !== true || !stuck) return "done";
          await new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("no"))));
          return undefined;
        },
      },
    });
    const bus = await startedBus({ environment: setup.environment });
    await setup.replica({ bus });
    const out = await setup.answers();
    // The second is done, and not committed, since the first of its partition is not.
    await setup.send({ operation: "greet.hello", payload: { waits: true } }, "k");
    await setup.send({ operation: "greet.hello", payload: {} }, "k2");
    await setup.send("no JSON", "k3");
    await vi.waitFor(() => expect(out.length).toBeGreaterThanOrEqual(2), soon);
    await bus.destroy(new Error("killed"));
    stuck = false;
    await setup.replica();
    await vi.waitFor(() => expect(out.length).toBeGreaterThanOrEqual(3), soon);
    const ids = out.map(({ answer }) => `${answer.envelope_id} ${answer.correlation_id}`);
    expect(new Set(ids).size).toBe(3);
    for (const { answer, headers } of out) {
      expect(answer.envelope_id).toMatch(
        /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      );
      expect(headers.message_id).toBe(answer.envelope_id);
      expect(answer.correlation_id).not.toBe(answer.envelope_id);
    }
  });

  test("a stop answers what runs, and what it left is answered by the next host: each message once", async () => {
    const setup = await kafkaHost({
      greet: {
        execute: async () => {
          await new Promise((resolve) => setTimeout(resolve, 10));
          return "done";
        },
      },
    });
    const out = await setup.answers();
    const hosts = [await setup.replica({ maxConcurrency: 4 })];
    const sent = Array.from({ length: 200 }, (_, index) => `c-${index}`);
    const sending = (async () => {
      for (const id of sent) await setup.send({ operation: "greet.hello", correlation_id: id }, id);
    })();
    for (let round = 0; round < 3; round += 1) {
      await vi.waitFor(() => expect(out.length).toBeGreaterThan(round * 30 + 10), soon);
      await hosts.at(-1)!.stop();
      hosts.push(await setup.replica({ maxConcurrency: 4 }));
    }
    await sending;
    await vi.waitFor(() => {
      expect(new Set(out.map(({ answer }) => answer.correlation_id))).toEqual(new Set(sent));
    }, soon);
    expect(out).toHaveLength(sent.length);
    expect(out.every(({ answer }) => answer.success)).toBe(true);
  }, 60_000);

  test("what still runs when the drain is over is not answered, and runs again in the next host", async () => {
    let hangs = true;
    const began = Promise.withResolvers<undefined>();
    const setup = await kafkaHost({
      greet: {
        execute: async (_envelope, { signal }) => {
          began.resolve(undefined);
          if (hangs)
            await new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("no"))));
          return "done";
        },
      },
    });
    const out = await setup.answers();
    const letters = await setup.answers(`${setup.environment}.dlq.commands.v1`);
    const first = await setup.replica({
      shutdown: { drainTimeoutSeconds: 1, handlerTimeoutSeconds: 1, gracePeriodSeconds: 20 },
    });
    await setup.send({ operation: "greet.hello", correlation_id: "c-1" });
    await began.promise;
    expect(await first.stop()).toEqual({ forced: false });
    expect(out).toEqual([]);
    hangs = false;
    await setup.replica();
    await vi.waitFor(() => expect(out).toHaveLength(1), soon);
    expect(out[0]?.answer).toMatchObject({ success: true, correlation_id: "c-1" });
    expect(letters).toEqual([]);
  });

  test("two hosts of one group share the messages; one that dies leaves its own to the other", async () => {
    const setup = await kafkaHost({
      greet: {
        execute: async () => {
          await new Promise((resolve) => setTimeout(resolve, 5));
          return "done";
        },
      },
    });
    const out = await setup.answers();
    const bus = await startedBus({ environment: setup.environment, concurrency: 1000 });
    await setup.replica({ name: "dies", bus });
    await setup.replica({ name: "stays" });
    const sent = Array.from({ length: 150 }, (_, index) => `c-${index}`);
    for (const [index, id] of sent.entries()) {
      await setup.send({ operation: "greet.hello", correlation_id: id, envelope_id: `e-${index}` }, id);
      if (index !== 75) continue;
      await vi.waitFor(() => expect(out.map(({ headers }) => headers.source)).toContain("dies"), soon);
      await bus.destroy(new Error("killed"));
    }
    await vi.waitFor(() => {
      expect(new Set(out.map(({ answer }) => answer.correlation_id))).toEqual(new Set(sent));
    }, soon);
    expect(new Set(out.map(({ headers }) => headers.source))).toEqual(new Set(["dies", "stays"]));
    for (const same of Map.groupBy(out, ({ answer }) => answer.correlation_id).values())
      expect(new Set(same.map(({ answer }) => answer.envelope_id)).size).toBe(1);
  }, 60_000);
});

describeWithOwnKafka("brokers that go away under a host", () => {
  test("delay answers, and lose none", async () => {
    await using kafka = await startKafka();
    const gate = Promise.withResolvers<undefined>();
    let begun = 0;
    const setup = await kafkaHost(
      {
        greet: {
          execute: async () => {
            begun += 1;
            await gate.promise;
            return "done";
          },
        },
      },
      kafka.bootstrapServers,
    );
    const host = await setup.replica();
    const out = await setup.answers();
    const sent = Array.from({ length: 10 }, (_, index) => `c-${index}`);
    for (const id of sent) await setup.send({ operation: "greet.hello", correlation_id: id }, id);
    await vi.waitFor(() => expect(begun).toBe(10), soon);
    await kafka.kill();
    gate.resolve(undefined);
    await vi.waitFor(async () => {
      const { ready, reasons } = await host.ready();
      expect(ready).toBe(false);
      expect(reasons.join()).toContain("no Kafka broker is reached");
    }, soon);
    await kafka.restart();
    await vi.waitFor(() => {
      expect(new Set(out.map(({ answer }) => answer.correlation_id))).toEqual(new Set(sent));
    }, soon);
    await vi.waitFor(async () => expect((await host.ready()).ready).toBe(true), soon);
    expect(begun).toBe(10);
  }, 90_000);

  test("are a few lines in the log, without stacks, however many answers wait", async () => {
    await using kafka = await startKafka();
    const gate = Promise.withResolvers<undefined>();
    const execute = vi.fn(() => gate.promise);
    const setup = await kafkaHost({ greet: { execute } }, kafka.bootstrapServers);
    const late: LogFields[] = [];
    const log: Logger = {
      ...silentLogger,
      warn: (fields, message) => {
        if (message.startsWith("An answer could not be published")) late.push(fields);
      },
    };
    await setup.replica({ log, maxConcurrency: 500 });
    const out = await setup.answers();
    const sent = Array.from({ length: 200 }, (_, index) => `c-${index}`);
    await Promise.all(sent.map((id) => setup.send({ operation: "greet.hello", correlation_id: id }, id)));
    await vi.waitFor(() => expect(execute).toHaveBeenCalledTimes(200), soon);
    await kafka.kill();
    gate.resolve(undefined);
    await vi.waitFor(() => expect(late.length).toBeGreaterThan(0), soon);
    await kafka.restart();
    await vi.waitFor(() => {
      expect(new Set(out.map(({ answer }) => answer.correlation_id))).toEqual(new Set(sent));
    }, soon);
    expect(late.length).toBeLessThan(100);
    for (const fields of late) {
      expect(fields).toMatchObject({ topic: setup.outputTopic, error: expect.any(String) });
      expect(fields).not.toHaveProperty("err");
    }
  }, 90_000);
});
