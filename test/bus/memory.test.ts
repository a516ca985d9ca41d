import { describe, expect, test, vi } from "vitest";
import { MemoryBus } from "../../src/bus/memory.ts";
import { silentLogger, type Logger } from "../../src/core/log.ts";
import { busSuite } from "../suites/bus.ts";

busSuite("memory", (options) => new MemoryBus(options));

const text = (value: string | null, key: string | null = null) => ({
  key,
  value: value === null ? null : new TextEncoder().encode(value),
  headers: {},
});
const read = (message: { readonly value: Uint8Array | null }): string =>
  new TextDecoder().decode(message.value ?? new Uint8Array());

async function startedBus(options?: ConstructorParameters<typeof MemoryBus>[0]): Promise<MemoryBus> {
  const bus = new MemoryBus(options);
  await bus.start();
  return bus;
}

describe("the memory bus", () => {
  test("gives a group's messages to its members in turn", async () => {
    const bus = await startedBus();
    const got: string[] = [];
    for (const name of ["a", "b", "c"]) await bus.subscribe("t", "g", async () => void got.push(name));
    for (let index = 0; index < 6; index += 1) await bus.publish("t", text("x"));
    await bus.close();
    expect(got.toSorted()).toEqual(["a", "a", "b", "b", "c", "c"]);
  });

  test("runs messages without a key side by side, but never more than its concurrency", async () => {
    const bus = await startedBus({ concurrency: 4 });
    const gate = Promise.withResolvers<undefined>();
    let running = 0;
    let most = 0;
    await bus.subscribe("t", "g", async () => {
      running += 1;
      most = Math.max(most, running);
      await gate.promise;
      running -= 1;
    });
    for (let index = 0; index < 10; index += 1) await bus.publish("t", text("x"));
    await vi.waitFor(() => expect(running).toBe(4));
    gate.resolve(undefined);
    await bus.close();
    expect(most).toBe(4);
    expect(running).toBe(0);
  });

  test("a member without room is passed over, so that its group goes on", async () => {
    const bus = await startedBus({ concurrency: 1 });
    const got: string[] = [];
    await bus.subscribe("t", "g", () => new Promise(() => undefined));
    await bus.subscribe("t", "g", async (message) => void got.push(read(message)));
    for (const value of ["1", "2", "3", "4"]) await bus.publish("t", text(value));
    await vi.waitFor(() => expect(got).toHaveLength(3));
    await bus.destroy(new Error("the test is over"));
  });

  test("keeps the order of a key across the members of a group", async () => {
    const bus = await startedBus();
    const got: number[] = [];
    for (let member = 0; member < 3; member += 1) {
      await bus.subscribe("t", "g", async (message) => {
        await new Promise((resolve) => setImmediate(resolve));
        got.push(Number(read(message)));
      });
    }
    for (let index = 0; index < 50; index += 1) await bus.publish("t", text(String(index), "k"));
    await bus.close();
    expect(got).toEqual(Array.from({ length: 50 }, (_, index) => index));
  });

  test("does not run a handler inside the publisher's turn", async () => {
    const bus = await startedBus();
    let handled = false;
    await bus.subscribe("t", "g", async () => {
      handled = true;
    });
    const publishing = bus.publish("t", text("x"));
    expect(handled).toBe(false);
    await publishing;
    await bus.close();
    expect(handled).toBe(true);
  });

  test("a group that comes later does not get what was published before", async () => {
    const bus = await startedBus();
    await bus.publish("t", text("early"));
    const got: string[] = [];
    await bus.subscribe("t", "g", async (message) => void got.push(read(message)));
    await bus.publish("t", text("late"));
    await bus.close();
    expect(got).toEqual(["late"]);
  });

  test("the last to leave a group is given what was published before it left", async () => {
    const bus = await startedBus({ concurrency: 1 });
    const got: string[] = [];
    const leave = await bus.subscribe("t", "g", async (message) => {
      await new Promise((resolve) => setImmediate(resolve));
      got.push(read(message));
    });
    for (const value of ["1", "2", "3"]) await bus.publish("t", text(value));
    const leaving = leave();
    await bus.publish("t", text("after"));
    await leaving;
    expect(got).toEqual(["1", "2", "3"]);
  });

  test("a member that joins while the last one leaves takes over, in order", async () => {
    const bus = await startedBus({ concurrency: 1 });
    const gate = Promise.withResolvers<undefined>();
    const got: string[] = [];
    const leave = await bus.subscribe("t", "g", async (message) => {
      await gate.promise;
      got.push(`old ${read(message)}`);
    });
    await bus.publish("t", text("1", "k"));
    await bus.publish("t", text("2", "k"));
    await new Promise((resolve) => setImmediate(resolve));
    const leaving = leave();
    const second = Promise.withResolvers<undefined>();
    await bus.subscribe("t", "g", async (message) => {
      await second.promise;
      got.push(`new ${read(message)}`);
    });
    await bus.publish("t", text("3", "k"));
    gate.resolve(undefined);
    await leaving;
    second.resolve(undefined);
    await bus.close();
    expect(got).toEqual(["old 1", "new 2", "new 3"]);
  });

  test("remembers the latest messages of a topic, at most maxHistory", async () => {
    const bus = await startedBus({ maxHistory: 3 });
    for (let index = 0; index < 5; index += 1) await bus.publish("t", text(String(index)));
    expect(bus.history("t").map(read)).toEqual(["2", "3", "4"]);
    expect(bus.history("t").map((message) => message.offset)).toEqual(["2", "3", "4"]);
    expect(bus.history("other")).toEqual([]);
    const forgetful = await startedBus({ maxHistory: 0 });
    await forgetful.publish("t", text("x"));
    expect(forgetful.history("t")).toEqual([]);
  });

  test("topics that are used once for an answer do not pile up; those in use keep what they have", async () => {
    const bus = await startedBus({ concurrency: 1 });
    const got: string[] = [];
    await bus.subscribe("subscribed", "g", async (message) => void got.push(read(message)));
    await bus.publish("once", text("old"));
    for (let index = 0; index < 1500; index += 1) {
      await bus.publish("busy", text("x"));
      await bus.publish(`reply.${index}`, text("answer"));
    }
    expect(bus.history("once")).toEqual([]);
    expect(bus.history("reply.1499").map(read)).toEqual(["answer"]);
    expect(bus.history("busy")).toHaveLength(1000);
    await bus.publish("subscribed", text("still here"));
    await bus.close();
    expect(got).toEqual(["still here"]);
  });

  test("reports a handler's error with the message's place", async () => {
    const lines: unknown[] = [];
    const log: Logger = { ...silentLogger, error: (fields, message) => void lines.push([fields, message]) };
    const bus = await startedBus({ log });
    await bus.subscribe("t", "g", async () => {
      throw new Error("cannot");
    });
    await bus.publish("t", text("x", "k"));
    await bus.close();
    expect(lines).toMatchObject([
      [{ topic: "t", offset: "0", keyed_by: "k", group: "g" }, expect.stringContaining("cannot")],
    ]);
  });

  test("close works off what waits, and what its handlers publish meanwhile is accepted", async () => {
    const bus = await startedBus({ concurrency: 1 });
    const got: string[] = [];
    await bus.subscribe("in", "g", async (message) => {
      await new Promise((resolve) => setImmediate(resolve));
      got.push(read(message));
      await bus.publish("out", text(`answer ${read(message)}`));
    });
    const late = vi.fn(async () => undefined);
    await bus.subscribe("out", "g", late);
    for (const value of ["1", "2"]) await bus.publish("in", text(value));
    await Promise.all([bus.close(), bus.close()]);
    expect(got).toEqual(["1", "2"]);
    expect(bus.history("out").map(read)).toEqual(["answer 1", "answer 2"]);
    expect(late).not.toHaveBeenCalled();
  });

  test("destroy during close ends the wait", async () => {
    const bus = await startedBus();
    await bus.subscribe("t", "g", async () => {
      await new Promise(() => undefined);
    });
    await bus.publish("t", text("x"));
    await new Promise((resolve) => setImmediate(resolve));
    const closing = bus.close();
    await bus.destroy(new Error("enough"));
    await closing;
    expect(bus.health().healthy).toBe(false);
  });

  test.each([{ maxHistory: -1 }, { maxHistory: 1.5 }, { concurrency: 0 }, { concurrency: NaN }])(
    "%j is refused with the value",
    (options) => {
      expect(() => new MemoryBus(options)).toThrow(/whole number of at least \d, got/);
    },
  );
});
