import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { DeliveredMessage, EventBus } from "../../src/bus/bus.ts";
import { successAnswer, errorAnswer } from "../../src/bus/envelope.ts";
import { MemoryBus } from "../../src/bus/memory.ts";
import { BusRequests } from "../../src/bus/request.ts";
import {
  InfraTimeoutError,
  InfraUnavailableError,
  ProtocolConfigurationError,
} from "../../src/core/errors.ts";
import type { ExecutorOptions } from "../../src/execution/executor.ts";
import type { BusExecution, Tool } from "../../src/tools/tool.ts";
import { callOf, executorOf, never, textOf, toolOf } from "./helpers.ts";

interface Question {
  readonly envelope_id: string;
  readonly correlation_id: string;
  readonly reply_to: string;
  readonly payload: Record<string, unknown>;
}

const encoder = new TextEncoder();
const read = (message: DeliveredMessage): Question =>
  JSON.parse(Buffer.from(message.value ?? []).toString()) as Question;

const orders = (more: Partial<BusExecution> = {}, tool: Partial<Tool> = {}): Tool =>
  toolOf({ kind: "bus", topic: "orders", replyTopic: "orders.replies", ...more }, tool);

async function memoryBus(): Promise<MemoryBus> {
  const bus = new MemoryBus();
  await bus.start();
  onTestFinished(() => bus.close());
  return bus;
}

/** An executor whose requests go over `bus`. */
function asking(bus: EventBus, tool: Tool, options: Partial<ExecutorOptions> = {}) {
  const requests = new BusRequests(bus);
  return { requests, executor: executorOf([tool], { bus: requests, ...options }) };
}

const publish = (bus: EventBus, topic: string, value: unknown, headers: Record<string, string> = {}) =>
  bus.publish(topic, { key: null, value: encoder.encode(JSON.stringify(value)), headers });

/** A service on the topic `orders`: what it answers, with the ids of the question. */
async function answering(bus: EventBus, answer: (question: Question) => Record<string, unknown>) {
  const questions: DeliveredMessage[] = [];
  await bus.subscribe("orders", "service", async (message) => {
    questions.push(message);
    const question = read(message);
    const { correlation_id, envelope_id } = question;
    await publish(bus, question.reply_to, { correlation_id, envelope_id, ...answer(question) });
  });
  return questions;
}

describe("a tool of kind bus", () => {
  test("sends the envelope, and its result is the payload of the answer", async () => {
    const bus = await memoryBus();
    const questions = await answering(bus, ({ payload }) => ({ success: true, payload: { got: payload } }));
    const { executor, requests } = asking(bus, orders({ operation: "orders.create" }));
    const meta = { traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` };
    const result = await executor.call(callOf({ id: 7 }, { meta }), never);
    expect(result).toEqual({
      content: [{ type: "text", text: '{"got":{"id":7}}' }],
      structuredContent: { got: { id: 7 } },
      isError: false,
    });
    expect(requests.waiting).toBe(0);
    const [question] = questions;
    expect(JSON.parse(Buffer.from(question!.value!).toString())).toEqual({
      operation: "orders.create",
      envelope_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      correlation_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      source: "mcp-adapter",
      payload: { id: 7 },
      metadata: { tool_name: "sample", tool_version: "1.2.3" },
      reply_to: "orders.replies",
    });
    const { correlation_id, envelope_id } = read(question!);
    expect(question).toMatchObject({ key: correlation_id });
    expect(question!.headers).toMatchObject({
      ...meta,
      "x-correlation-id": "corr-1",
      content_type: "application/json",
      correlation_id,
      message_id: envelope_id,
      event_type: "envelope.request",
    });
  });

  test("has a key with placeholders, and an argument that is missing there is the caller's mistake", async () => {
    const bus = await memoryBus();
    const questions = await answering(bus, () => ({ success: true, payload: null }));
    const { executor } = asking(bus, orders({ key: "customer-{customer}" }));
    await executor.call(callOf({ customer: 5 }), never);
    expect(questions[0]?.key).toBe("customer-5");
    const result = await executor.call(callOf(), never);
    expect(textOf(result)).toContain("/customer: required: it is part of the message's key");
    expect(questions).toHaveLength(1);
  });

  test.each<[string, Record<string, unknown>, string, boolean]>([
    ["a failure with a text", { success: false, error: "No stock." }, "No stock.", true],
    ["a failure with an error", { success: false, error: { code: "X", message: "No." } }, "No.", true],
    [
      "a failure without words",
      { success: false },
      "The service reported a failure without a message.",
      true,
    ],
    ["success without a payload", { success: true, payload: null }, "", false],
    ["any other object", { total: 3 }, '"total":3', false],
    ["an object with success alone", { success: true, total: 3 }, '"total":3', false],
  ])("takes %s for what it is", async (_what, answer, text, isError) => {
    const bus = await memoryBus();
    await answering(bus, () => answer);
    const result = await asking(bus, orders()).executor.call(callOf(), never);
    expect(result.isError).toBe(isError);
    expect(textOf(result)).toContain(text);
  });

  test("understands the answers of a runtime host", async () => {
    const bus = await memoryBus();
    let fails = false;
    await bus.subscribe("orders", "host", async (message) => {
      const question = read(message);
      const facts = { handlerId: "h", processingTimeMs: 1 };
      const answer = fails
        ? errorAnswer(question, new ProtocolConfigurationError("Give an id."), facts)
        : successAnswer(question, { id: 1 }, facts);
      await publish(bus, question.reply_to, answer);
    });
    const { executor } = asking(bus, orders());
    expect((await executor.call(callOf(), never)).structuredContent).toEqual({ id: 1 });
    fails = true;
    const failed = await executor.call(callOf(), never);
    expect(failed.isError).toBe(true);
    expect(textOf(failed)).toContain("Give an id.");
  });

  test("finds an answer that is no object by the message's header", async () => {
    const bus = await memoryBus();
    await bus.subscribe("orders", "service", async (message) => {
      const { reply_to, correlation_id } = read(message);
      await publish(bus, reply_to, [1, 2], { correlation_id });
    });
    const result = await asking(bus, orders()).executor.call(callOf(), never);
    expect(result.structuredContent).toEqual([1, 2]);
  });

  test("drops what answers nothing that it has asked", async () => {
    const bus = await memoryBus();
    await bus.subscribe("orders", "service", async (message) => {
      const { reply_to, correlation_id, envelope_id } = read(message);
      const success = true;
      await bus.publish(reply_to, { key: null, value: null, headers: {} });
      await bus.publish(reply_to, { key: null, value: encoder.encode("{"), headers: { correlation_id } });
      await publish(bus, reply_to, 5);
      await publish(bus, reply_to, { success, payload: "no ids" });
      await publish(bus, reply_to, { success, payload: "other call", correlation_id: "corr-1" });
      await publish(bus, reply_to, { success, payload: "other envelope", correlation_id, envelope_id: "x" });
      await publish(
        bus,
        reply_to,
        { success, payload: "of another", correlation_id },
        { correlation_id: "x" },
      );
      await publish(bus, reply_to, { success, payload: "right", correlation_id, envelope_id });
      await publish(bus, reply_to, { success, payload: "twice", correlation_id, envelope_id });
    });
    expect(textOf(await asking(bus, orders()).executor.call(callOf(), never))).toBe("right");
  });

  test("keeps a thousand calls with one correlation id apart, over two processes that read one reply topic", async () => {
    const bus = await memoryBus();
    await answering(bus, ({ payload }) => ({ success: true, payload }));
    const [one, two] = [asking(bus, orders()), asking(bus, orders())];
    const results = await Promise.all(
      Array.from({ length: 1000 }, (_, n) => (n % 2 ? one : two).executor.call(callOf({ n }), never)),
    );
    expect(results.map(({ structuredContent }) => structuredContent)).toEqual(
      results.map((_result, n) => ({ n })),
    );
    expect([one.requests.waiting, two.requests.waiting]).toEqual([0, 0]);
  });

  test("without an answer ends with its deadline, and a late answer is nobody's", async () => {
    const bus = await memoryBus();
    const asked = Promise.withResolvers<Question>();
    await bus.subscribe("orders", "service", async (message) => asked.resolve(read(message)));
    const { executor, requests } = asking(bus, orders({}, { timeoutSeconds: 0.2 }));
    const result = await executor.call(callOf(), never);
    expect(result.failure).toBeInstanceOf(InfraTimeoutError);
    expect(requests.waiting).toBe(0);
    const { correlation_id } = await asked.promise;
    await publish(bus, "orders.replies", { success: true, payload: 1, correlation_id });
  });

  test("that the caller gives up waits for nothing any more", async () => {
    const bus = await memoryBus();
    const { executor, requests } = asking(bus, orders());
    const client = new AbortController();
    const running = executor.call(callOf(), client.signal);
    await vi.waitFor(() => expect(requests.waiting).toBe(1));
    client.abort();
    expect((await running).failure?.name).toBe("CancelledError");
    await vi.waitFor(() => expect(requests.waiting).toBe(0));
  });

  test("is unavailable, and may be tried again, while the bus takes nothing", async () => {
    const bus = new MemoryBus();
    const { executor } = asking(bus, orders());
    const result = await executor.call(callOf(), never);
    expect(result.failure).toBeInstanceOf(InfraUnavailableError);
    expect(result.failure).toMatchObject({ retryable: true, facts: { transport: "inmemory" } });
    expect(textOf(result)).toBe(
      'The event bus is not available for "sample" at the moment; try again later.',
    );
    await bus.start();
    onTestFinished(() => bus.close());
    await answering(bus, () => ({ success: true, payload: "now" }));
    expect(textOf(await executor.call(callOf(), never))).toBe("now");
  });

  test("without a bus says what is missing, and reads as unavailable", async () => {
    const executor = executorOf([orders()]);
    expect(executor.available(orders())).toBe(false);
    const result = await executor.call(callOf(), never);
    expect(result.failure).toBeInstanceOf(ProtocolConfigurationError);
    expect(textOf(result)).toBe(
      '"sample" is called over the event bus (kind bus), and there is none here; serve it from a runtime host',
    );
  });

  test("leaves nothing on the bus when the executor closes; a call that waits then is ended", async () => {
    const bus = await memoryBus();
    const { executor, requests } = asking(bus, orders());
    expect(executor.available(orders())).toBe(true);
    const running = executor.call(callOf(), never);
    await vi.waitFor(() => expect(requests.waiting).toBe(1));
    await executor.destroy(new InfraUnavailableError("The runtime is stopping."));
    expect((await running).failure).toBeInstanceOf(InfraUnavailableError);
    expect(requests.waiting).toBe(0);
    await expect(
      requests.request({ ...question, topic: "orders", replyTopic: "orders.replies" }, never),
    ).rejects.toThrow(InfraUnavailableError);
  });

  test("asks nothing any more when it is closed while its reply topic is subscribed", async () => {
    const bus = await memoryBus();
    const questions = await answering(bus, () => ({ success: true }));
    const gate = Promise.withResolvers<undefined>();
    const subscribe = bus.subscribe.bind(bus);
    vi.spyOn(bus, "subscribe").mockImplementation(async (...given) => {
      await gate.promise;
      return await subscribe(...given);
    });
    const requests = new BusRequests(bus);
    const asked = requests.request({ ...question, topic: "orders", replyTopic: "orders.replies" }, never);
    const outcome = expect(asked).rejects.toThrow("The runtime is stopping.");
    const closing = requests.close(new InfraUnavailableError("The runtime is stopping."));
    gate.resolve(undefined);
    await Promise.all([outcome, closing]);
    expect(questions).toEqual([]);
  });
});

const question = { payload: {}, metadata: {}, headers: {} };
