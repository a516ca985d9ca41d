import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { MemoryBus } from "../../src/bus/memory.ts";
import { Contracts, collectingLog, descriptor, startedHost } from "./support.ts";

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
    await using host = await startedHost(contracts, { log, eventBus: { environment: "stage" } });
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
    expect(lines.map((line) => line.message)).toContain("A message handler failed: no such topic");
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
        throw new Error(`no\n    at f (/work/app/x.ts:1:2)${"x".repeat(100_000)}`);
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

describe("a message that comes again", () => {
  /** A handler that counts, and a host with it. */
  async function counting(contracts: Contracts) {
    const state = { calls: 0, fail: false };
    await contracts.handler("count", {
      execute: () => {
        state.calls += 1;
        if (state.fail) throw new Error("not now");
        return { calls: state.calls };
      },
    });
    const host = await startedHost(contracts);
    return {
      state,
      host,
      handle: async (value: object) => await host.host.handle({ operation: "count.up", ...value }),
    };
  }

  test("gets the first answer's payload and ids with status duplicate", async () => {
    await using contracts = await Contracts.make();
    const { host, handle } = await counting(contracts);
    await using _host = host;
    const first = await handle({ message_id: "m-1" });
    const second = await handle({ message_id: "m-1" });
    expect(first).toMatchObject({ status: "success", payload: { calls: 1 } });
    expect(second).toEqual({
      ...first,
      status: "duplicate",
      processing_time_ms: expect.any(Number),
      timestamp: expect.any(String),
    });
  });

  test("gets its own correlation_id and envelope_id where the sender gave them", async () => {
    await using contracts = await Contracts.make();
    const { host, handle } = await counting(contracts);
    await using _host = host;
    await handle({ message_id: "m-1", correlation_id: "c-1", envelope_id: "e-1" });
    expect(await handle({ message_id: "m-1", correlation_id: "c-2", envelope_id: "e-2" })).toMatchObject({
      status: "duplicate",
      correlation_id: "c-2",
      envelope_id: "e-2",
      message_id: "m-1",
      payload: { calls: 1 },
    });
  });

  test("is told by headers.message_id, else message_id, else envelope_id", async () => {
    await using contracts = await Contracts.make();
    const { host, handle } = await counting(contracts);
    await using _host = host;
    const statusOf = async (value: object) => (await handle(value)).status;
    const ids = { headers: { message_id: "h" }, message_id: "m", envelope_id: "e" };
    expect(await statusOf(ids)).toBe("success");
    expect(await statusOf({ headers: { message_id: "h" }, message_id: "m2", envelope_id: "e2" })).toBe(
      "duplicate",
    );
    expect(await statusOf({ ...ids, headers: { message_id: "h2" } })).toBe("success");
    expect(await statusOf({ message_id: "m", envelope_id: "e" })).toBe("success");
    expect(await statusOf({ message_id: "m", envelope_id: "e3" })).toBe("duplicate");
    expect(await statusOf({ envelope_id: "e" })).toBe("success");
    expect(await statusOf({ envelope_id: "e" })).toBe("duplicate");
  });

  test("is told by the bus message's own message_id where the envelope has none in its headers", async () => {
    await using contracts = await Contracts.make();
    const { host, state } = await counting(contracts);
    await using _host = host;
    for (let time = 0; time < 2; time += 1)
      await host.send({ operation: "count.up" }, "k", { message_id: "b" });
    for (const other of ["b1", "b2"])
      await host.send({ operation: "count.up", headers: { message_id: "h" } }, "k", { message_id: other });
    await vi.waitFor(() =>
      expect(host.answers().map((answer) => answer.status)).toEqual([
        "success",
        "duplicate",
        "success",
        "duplicate",
      ]),
    );
    expect(state.calls).toBe(2);
  });

  test("is never told by correlation_id, nor where the sender gave no id at all", async () => {
    await using contracts = await Contracts.make();
    const { host, handle, state } = await counting(contracts);
    await using _host = host;
    await handle({ correlation_id: "c" });
    await handle({ correlation_id: "c" });
    await handle({});
    await handle({});
    expect(state.calls).toBe(4);
  });

  test("is another message where the operation is another", async () => {
    await using contracts = await Contracts.make();
    const { host, handle, state } = await counting(contracts);
    await using _host = host;
    await handle({ message_id: "m" });
    expect((await handle({ message_id: "m", operation: "count.down" })).status).toBe("success");
    expect(state.calls).toBe(2);
  });

  test("is tried again where it had failed", async () => {
    await using contracts = await Contracts.make();
    const { host, handle, state } = await counting(contracts);
    await using _host = host;
    state.fail = true;
    expect((await handle({ message_id: "m" })).status).toBe("error");
    state.fail = false;
    expect(await handle({ message_id: "m" })).toMatchObject({ status: "success", payload: { calls: 2 } });
  });

  test("waits for the one under way, and runs itself where that one fails", async () => {
    await using contracts = await Contracts.make();
    const gates = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
    let calls = 0;
    await contracts.handler("slow", {
      execute: async () => {
        calls += 1;
        return await gates[calls - 1]!.promise;
      },
    });
    await using host = await startedHost(contracts);
    const send = async () => await host.host.handle({ operation: "slow.x", message_id: "m" });
    const answers = Promise.all([send(), send(), send()]);
    await vi.waitFor(() => expect(calls).toBe(1));
    gates[0]!.reject(new Error("first fails"));
    await vi.waitFor(() => expect(calls).toBe(2));
    gates[1]!.resolve("done");
    expect((await answers).map((answer) => answer.status)).toEqual(["error", "success", "duplicate"]);
    expect(calls).toBe(2);
  });
});

describe("how many at once", () => {
  test("never more than max_concurrency calls run", async () => {
    await using contracts = await Contracts.make();
    let running = 0;
    let most = 0;
    await contracts.handler("work", {
      execute: async () => {
        running += 1;
        most = Math.max(most, running);
        await new Promise((resolve) => setImmediate(resolve));
        running -= 1;
      },
    });
    await using host = await startedHost(contracts, { maxConcurrency: 3 });
    await Promise.all(
      Array.from({ length: 20 }, async () => await host.host.handle({ operation: "work.x" })),
    );
    expect(most).toBe(3);
  });

  test("a queue before a serialized handler leaves the others their slots", async () => {
    await using contracts = await Contracts.make();
    const gate = Promise.withResolvers<undefined>();
    const one = descriptor({ concurrency_policy: "serialized" });
    await contracts.handler("one", { execute: () => gate.promise }, one);
    await contracts.handler("other", { execute: () => "served" });
    await using host = await startedHost(contracts, { maxConcurrency: 2 });
    const queue = Array.from({ length: 5 }, async () => await host.host.handle({ operation: "one.x" }));
    expect((await host.host.handle({ operation: "other.x" })).payload).toBe("served");
    gate.resolve(undefined);
    await Promise.all(queue);
  });

  test("a hundred waiting callers are served in turn, without a warning about listeners", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("work", { execute: async ({ payload }) => payload.n });
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => void warnings.push(warning);
    process.on("warning", onWarning);
    try {
      await using host = await startedHost(contracts, { maxConcurrency: 1 });
      const answers = await Promise.all(
        Array.from(
          { length: 100 },
          async (_, n) => await host.host.handle({ operation: "work.x", payload: { n } }),
        ),
      );
      expect(answers.map((answer) => answer.payload)).toEqual(Array.from({ length: 100 }, (_, n) => n));
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      process.off("warning", onWarning);
    }
    expect(warnings).toEqual([]);
  });
});
