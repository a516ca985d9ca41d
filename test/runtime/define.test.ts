import { describe, expect, expectTypeOf, test } from "vitest";
import { readEnvelope, type Envelope } from "../../src/bus/envelope.ts";
import { defineHandler } from "../../src/runtime/define.ts";

const envelope = (operation: string, payload: Record<string, unknown> = {}): Envelope => {
  const read = readEnvelope({ operation, payload, correlation_id: "c-1" });
  if (!read.ok) throw read.error;
  return read.envelope;
};
const { signal } = new AbortController();

describe("defineHandler", () => {
  test("runs the operation that the envelope names, with payload and context", async () => {
    const Greet = defineHandler({
      handlerType: "greet",
      operations: {
        "greet.hello": (payload, context) => ({
          text: `Hello, ${String(payload.name)}`,
          correlation: context.correlationId,
          config: context.config.tone,
          same: context.signal === signal && context.envelope.operation === "greet.hello",
        }),
      },
    });
    const greet = new Greet();
    await greet.initialize({ tone: "warm" });
    expect(await greet.execute(envelope("greet.hello", { name: "Ada" }), { signal })).toEqual({
      text: "Hello, Ada",
      correlation: "c-1",
      config: "warm",
      same: true,
    });
  });

  test("an unknown operation is an error that lists the known ones", async () => {
    const handler = new (defineHandler({
      handlerType: "a",
      operations: { "a.b": () => 1, "a.c": () => 2 },
    }))();
    await handler.initialize({});
    await expect(handler.execute(envelope("a.toString"), { signal })).rejects.toThrow(
      'unknown operation "a.toString"; a has a.b, a.c',
    );
    await expect(handler.execute(envelope("x.constructor"), { signal })).rejects.toThrow(/unknown operation/);
  });

  test("what initialize returns is the operations' state, and shutdown gets it back", async () => {
    const closed: number[] = [];
    const Counter = defineHandler({
      handlerType: "counter",
      initialize: async (config, container) => ({ from: Number(config.from), env: container.env?.HOME }),
      operations: {
        "counter.next": (_payload, { state }) => {
          expectTypeOf(state.from).toBeNumber();
          state.from += 1;
          return state.from;
        },
      },
      shutdown: (state) => void closed.push(state.from),
      healthCheck: (state) => ({ healthy: state.from < 3, reason: state.env ?? "none" }),
      describe: () => ({ unit: "steps", handler_type: "overridden" }),
      shutdownPriority: 7,
    });
    const counter = new Counter({ env: { HOME: "/home" } });
    expect(await counter.healthCheck()).toEqual({ healthy: false, reason: "not_initialized" });
    await counter.initialize({ from: 1 });
    expect(await counter.execute(envelope("counter.next"), { signal })).toBe(2);
    expect(await counter.healthCheck()).toEqual({ healthy: true, reason: "/home" });
    expect(counter.describe()).toEqual({
      handler_type: "counter",
      unit: "steps",
      supported_operations: ["counter.next"],
    });
    expect(counter.shutdownPriority?.()).toBe(7);
    await counter.shutdown();
    await counter.shutdown();
    expect(closed).toEqual([2]);
    await counter.initialize({ from: 5 });
    expect(await counter.execute(envelope("counter.next"), { signal })).toBe(6);
  });

  test("before initialize nothing runs; a second initialize is refused; no hooks are needed", async () => {
    const handler = new (defineHandler({ handlerType: "a", operations: { "a.b": () => 1 } }))();
    await expect(handler.execute(envelope("a.b"), { signal })).rejects.toThrow(
      "handler a is not initialized",
    );
    await handler.initialize({});
    await expect(handler.initialize({})).rejects.toThrow("already initialized");
    expect(await handler.healthCheck()).toEqual({ healthy: true });
    await handler.shutdown();
  });
});
