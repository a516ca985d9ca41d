import { collectingLog } from "../support/log.ts";
import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { MemoryBus } from "../../src/bus/memory.ts";
import { Contracts, startedHost } from "./support.ts";

const uuid = /^[0-9a-f]{8}-/;

describe("an envelope on the bus", () => {
  test("is answered on the output topic, keyed by correlation_id, under its own ids", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet", {
      execute: (envelope) => ({ text: `Hello, ${String(envelope.payload.name)}` }),
    });
    await using host = await startedHost(contracts);
    await host.send({
      operation: "greet.hello",
      payload: { name: "Ada" },
      correlation_id: "c-1",
      envelope_id: "e-1",
      message_id: "m-1",
    });
    await vi.waitFor(() => expect(host.answers()).toHaveLength(1));
    expect(host.answers()[0]).toEqual({
      success: true,
      status: "success",
      operation: "greet.hello",
      payload: { text: "Hello, Ada" },
      correlation_id: "c-1",
      envelope_id: "e-1",
      message_id: "m-1",
      handler_id: "effect.greet.handler",
      processing_time_ms: expect.any(Number),
      timestamp: expect.any(String),
    });
    const [message] = host.bus.history("responses");
    expect(message).toMatchObject({
      key: "c-1",
      headers: {
        content_type: "application/json",
        correlation_id: "c-1",
        message_id: "m-1",
        source: "test-host",
        event_type: "envelope.answer",
        schema_version: "1.0.0",
      },
    });
  });

  test("is answered on its reply_to where it has one", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    await using host = await startedHost(contracts);
    await host.send({ operation: "greet.hello", reply_to: "mine" });
    await host.send({ operation: "greet", reply_to: "mine" });
    await vi.waitFor(() =>
      expect(
        host
          .answers("mine")
          .map((answer) => answer.status)
          .toSorted(),
      ).toEqual(["error", "success"]),
    );
    expect(host.answers()).toEqual([]);
  });

  test.each([
    ["bad UTF-8", Uint8Array.of(0xff, 0xfe)],
    ["broken JSON", "{"],
    ["nothing", ""],
    ["an array", "[]"],
    ["a number", "7"],
    ["no operation", "{}"],
    ["an operation nobody serves", '{"operation":"nobody.home"}'],
  ])("is answered with an error where it is %s, and the next one is served", async (_what, bad) => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    await using host = await startedHost(contracts);
    await host.send(bad, "k");
    await host.send({ operation: "greet.hello" }, "k");
    await vi.waitFor(() => expect(host.answers()).toHaveLength(2));
    const [error, success] = host.answers();
    expect(error).toMatchObject({
      status: "error",
      error: { code: "ONEX_CORE_007_INVALID_INPUT", retryable: false },
      correlation_id: expect.stringMatching(uuid),
      envelope_id: expect.stringMatching(uuid),
      handler_id: null,
    });
    expect(success?.status).toBe("success");
  });

  test("without a value is answered with an error", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    await using host = await startedHost(contracts);
    await host.bus.publish("requests", { key: "k", value: null, headers: {} });
    await vi.waitFor(() => expect(host.answers()).toMatchObject([{ status: "error" }]));
  });

  test("keeps its order per key while other keys run", async () => {
    await using contracts = await Contracts.make();
    const gate = Promise.withResolvers<undefined>();
    await contracts.handler("work", {
      execute: async ({ payload }) => {
        if (payload.wait === true) await gate.promise;
        return payload.n;
      },
    });
    await using host = await startedHost(contracts);
    await host.send({ operation: "work.do", payload: { n: 1, wait: true } }, "a");
    await host.send({ operation: "work.do", payload: { n: 2 } }, "a");
    await host.send({ operation: "work.do", payload: { n: 3 } }, "b");
    await vi.waitFor(() => expect(host.answers().map((answer) => answer.payload)).toEqual([3]));
    gate.resolve(undefined);
    await vi.waitFor(() => expect(host.answers().map((answer) => answer.payload)).toEqual([3, 1, 2]));
  });

  test("that is an answer itself is not answered: it becomes a dead letter", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    const { log, lines } = collectingLog();
    await using host = await startedHost(contracts, { log });
    await host.send(await host.host.handle({ operation: "greet.hello" }));
    await host.send(await host.host.handle("broken"));
    await host.send({ operation: "greet.hello" });
    await vi.waitFor(() => expect(host.answers()).toHaveLength(1));
    const letters = lines.filter((line) => "dead_letter" in line.fields);
    expect(letters).toHaveLength(2);
    expect(letters[0]?.fields.dead_letter).toMatchObject({
      original_topic: "requests",
      original_message: { offset: "0", partition: 0 },
      failure_reason: expect.stringContaining("it is an answer"),
    });
  });

  test("a dead letter is on the dead-letter topic with the whole message; the log has it without its value", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet", { execute: () => "the value" });
    const { log, lines } = collectingLog();
    await using host = await startedHost(contracts, {
      log,
      bus: new MemoryBus({ environment: "stage", log }),
    });
    const answer = await host.host.handle({ operation: "greet.hello", correlation_id: "c-1" });
    await host.send(answer, "k");
    await vi.waitFor(() => expect(host.bus.history("stage.dlq.commands.v1")).toHaveLength(1));
    const [letter] = host.bus.history("stage.dlq.commands.v1");
    expect(letter?.key).toBe("k");
    expect(JSON.parse(new TextDecoder().decode(letter?.value ?? undefined))).toEqual({
      original_topic: "requests",
      original_message: { key: "k", value: JSON.stringify(answer), offset: "0", partition: 0 },
      failure_reason: expect.stringContaining("it is an answer"),
      failure_timestamp: expect.stringMatching(/^\d{4}-.*Z$/),
      correlation_id: "c-1",
      retry_count: 0,
      error_type: "EnvelopeValidationError",
    });
    expect(JSON.stringify(lines)).not.toContain("the value");
  });

  test("whose reply_to is the input topic is refused, not executed", async () => {
    await using contracts = await Contracts.make();
    const execute = vi.fn();
    await contracts.handler("greet", { execute });
    await using host = await startedHost(contracts);
    await host.send({ operation: "greet.hello", reply_to: "requests", correlation_id: "c-1" });
    await vi.waitFor(() => expect(host.answers()).toHaveLength(1));
    expect(host.answers()[0]).toMatchObject({
      status: "error",
      correlation_id: "c-1",
      error: { message: expect.stringContaining("name another one") },
    });
    expect(execute).not.toHaveBeenCalled();
    expect(host.bus.history("requests")).toHaveLength(1);
  });

  test("whose answer cannot be published is a dead letter, and the next one is served", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    const { log, lines } = collectingLog();
    const bus = new MemoryBus({ log });
    const publish = bus.publish.bind(bus);
    bus.publish = async (topic, message) => {
      if (topic === "lost" || topic.includes(".dlq.")) throw new Error("no such topic");
      await publish(topic, message);
    };
    await using _host = await startedHost(contracts, { bus, log });
    const send = async (value: unknown) =>
      publish("requests", { key: "k", value: new TextEncoder().encode(JSON.stringify(value)), headers: {} });
    await send({ operation: "greet.hello", reply_to: "lost", correlation_id: "c-1" });
    await send({ operation: "greet.hello" });
    await vi.waitFor(() => expect(bus.history("responses")).toHaveLength(1));
    const letter = lines.find((line) => "dead_letter" in line.fields);
    expect(letter?.fields.dead_letter).toMatchObject({
      correlation_id: "c-1",
      failure_reason: expect.stringContaining("could not be published to lost: no such topic"),
    });
    expect(lines.map((line) => line.message)).toContain(
      "A dead letter could not be published: no such topic",
    );
    // The bus knows as well: it decides whether the message is delivered again.
    expect(lines.map((line) => line.message)).toContain(
      "A message handler failed: its answer could not be published to lost: no such topic",
    );
  });
});

describe("finding the handler", () => {
  test("goes by the operation up to its first dot", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("a", { execute: () => "a" });
    await contracts.handler("a-b", { execute: () => "a-b" });
    await using host = await startedHost(contracts);
    expect((await host.host.handle({ operation: "a.x" })).payload).toBe("a");
    expect((await host.host.handle({ operation: "a.b.c" })).payload).toBe("a");
    expect((await host.host.handle({ operation: "a-b.x", handler_type: "a-b" })).payload).toBe("a-b");
  });

  test("answers carry the handler's own handlerId where it has one", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("own");
    await contracts.write(
      "own/own.mjs",
      `export class TestHandler {
         handlerType = "own"; handlerId = "own-handler";
         async initialize() {} async execute() {} async shutdown() {}
         async healthCheck() { return { healthy: true }; } describe() { return { handler_type: "own" }; }
       }`,
    );
    await using host = await startedHost(contracts);
    expect((await host.host.handle({ operation: "own.x" })).handler_id).toBe("own-handler");
  });

  test("a handler_type that says otherwise is an error", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("a");
    await contracts.handler("b");
    await using host = await startedHost(contracts);
    expect((await host.host.handle({ operation: "a.x", handler_type: "b" })).error).toEqual({
      code: "ONEX_CORE_007_INVALID_INPUT",
      message: expect.stringMatching(/^\[ONEX_CORE_007_INVALID_INPUT\] .*handler_type is "b".*"a\.x"/),
      retryable: false,
    });
  });

  test("an unknown type is an error that lists the known ones; an absent one says why", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("ok");
    await contracts.handler("bad", {
      initialize: () => {
        throw new Error("no disk");
      },
    });
    await contracts.handler("skipped", {}, { activation: { required_env: ["NOT_SET"] } });
    await using host = await startedHost(contracts);
    const messageOf = async (operation: string) => (await host.host.handle({ operation })).error?.message;
    expect(await messageOf("nobody.x")).toContain('no handler of type "nobody"; there is ok');
    expect(await messageOf("bad.x")).toContain("handler bad is not available: no disk");
    expect(await messageOf("skipped.x")).toContain("lacks NOT_SET");
    expect(await messageOf("constructor.x")).toContain('no handler of type "constructor"');
  });
});

describe("handle", () => {
  test("takes bytes, text and parsed values, and answers the same", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet", { execute: () => 1 });
    await using host = await startedHost(contracts);
    const envelope = { operation: "greet.hello", correlation_id: "c" };
    const text = JSON.stringify(envelope);
    for (const input of [envelope, text, new TextEncoder().encode(text)]) {
      expect(await host.host.handle(input)).toMatchObject({ success: true, payload: 1, correlation_id: "c" });
    }
  });

  test("a handler's error and a value that is not JSON are error answers", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("bad", {
      execute: ({ operation }) => {
        if (operation === "bad.throw") throw new Error("name is required");
        return { n: 1n };
      },
    });
    await using host = await startedHost(contracts);
    expect(await host.host.handle({ operation: "bad.throw" })).toMatchObject({
      status: "error",
      error: { message: "[ONEX_CORE_081_OPERATION_FAILED] name is required", retryable: false },
      handler_id: "effect.bad.handler",
    });
    expect((await host.host.handle({ operation: "bad.value" })).error?.message).toContain("BigInt");
  });

  test("an error answer names neither folders nor addresses, nor does it hold a stack", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("reads", { execute: () => readFile("/nowhere/secret/place.txt") });
    await contracts.handler("throws", {
      execute: () => {
        throw new Error(`no\n    at f (/srv/app/x.ts:1:2)${"x".repeat(100_000)}`);
      },
    });
    await contracts.handler("broken", {}, { handler_class: "./broken.mjs#X" });
    await contracts.write("broken/broken.mjs", `import "./not-there.mjs";`);
    await using host = await startedHost(contracts);
    const messageOf = async (operation: string) => (await host.host.handle({ operation })).error?.message;
    expect(await messageOf("reads.x")).toMatch(/ENOENT.*'place\.txt'$/);
    expect(await messageOf("throws.x")).toBe("[ONEX_CORE_081_OPERATION_FAILED] no");
    const absent = await messageOf("broken.x");
    expect(absent).toContain("not-there.mjs");
    expect(absent).not.toContain(contracts.dir);
  });

  test("whatever bytes come in, there is an answer", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    await using host = await startedHost(contracts);
    const inputs = fc.oneof(fc.uint8Array(), fc.json(), fc.jsonValue(), fc.string());
    await fc.assert(
      fc.asyncProperty(inputs, async (input) => {
        expect((await host.host.handle(input)).correlation_id).not.toBe("");
      }),
      { numRuns: 500 },
    );
  });

  test("before the start and after the stop it refuses, under the sender's ids", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    await using host = await startedHost(contracts);
    await host.host.stop();
    expect(await host.host.handle({ operation: "greet.hello", correlation_id: "c-1" })).toMatchObject({
      status: "error",
      correlation_id: "c-1",
      operation: "greet.hello",
      error: { code: "ONEX_CORE_205_SERVICE_UNAVAILABLE", retryable: true },
    });
  });

  test("a caller who gives up ends the call", async () => {
    await using contracts = await Contracts.make();
    const began = Promise.withResolvers<AbortSignal>();
    await contracts.handler("slow", {
      execute: async (_envelope, { signal }) => {
        began.resolve(signal);
        await new Promise(() => undefined);
      },
    });
    await using host = await startedHost(contracts);
    const caller = new AbortController();
    const answer = host.host.handle({ operation: "slow.x" }, { signal: caller.signal });
    const signal = await began.promise;
    caller.abort();
    expect((await answer).status).toBe("error");
    expect(signal.aborted).toBe(true);
  });
});
