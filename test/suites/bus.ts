/** What every event bus does. Run it on each implementation. */
import { randomUUID } from "node:crypto";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { DeliveredMessage, EventBus } from "../../src/bus/bus.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const decode = (message: DeliveredMessage): string =>
  new TextDecoder().decode(message.value ?? new Uint8Array());
const message = (key: string | null, text: string, headers: Record<string, string> = {}) => ({
  key,
  value: encode(text),
  headers,
});

/** @param makeBus a new bus that is not started; the suite starts and closes it */
export function busSuite(name: string, makeBus: () => EventBus | Promise<EventBus>): void {
  describe(`event bus: ${name}`, () => {
    const made: EventBus[] = [];
    afterEach(async () => {
      await Promise.all(made.splice(0).map((bus) => bus.destroy(new Error("the test is over"))));
    });
    const started = async (): Promise<{ bus: EventBus; topic: string }> => {
      const bus = await makeBus();
      made.push(bus);
      await bus.start();
      return { bus, topic: `suite.${randomUUID()}` };
    };

    test("a message arrives as it was published: key, bytes and headers", async () => {
      const { bus, topic } = await started();
      const got: DeliveredMessage[] = [];
      await bus.subscribe(topic, "g", async (delivered) => void got.push(delivered));
      await bus.publish(topic, message("k", "häl\u0000lo", { correlation_id: "c1" }));
      await bus.publish(topic, { key: "k", value: null, headers: {} });
      await vi.waitFor(() => expect(got).toHaveLength(2));
      expect(got[0]).toMatchObject({ topic, key: "k", headers: { correlation_id: "c1" } });
      expect(decode(got[0]!)).toBe("häl\u0000lo");
      expect(typeof got[0]!.offset).toBe("string");
      expect(got[0]!.timestamp).toBeGreaterThan(0);
      expect(got[1]!.value).toBeNull();
    });

    test("every group gets every message, and within a group one subscriber does", async () => {
      const { bus, topic } = await started();
      const got = { alone: [] as string[], first: [] as string[], second: [] as string[] };
      await bus.subscribe(topic, "alone", async (delivered) => void got.alone.push(decode(delivered)));
      await bus.subscribe(topic, "pair", async (delivered) => void got.first.push(decode(delivered)));
      await bus.subscribe(topic, "pair", async (delivered) => void got.second.push(decode(delivered)));
      const sent = Array.from({ length: 40 }, (_, index) => `m${index}`);
      for (const text of sent) await bus.publish(topic, message(text, text));
      await vi.waitFor(() => {
        expect(got.alone.toSorted()).toEqual(sent.toSorted());
        expect([...got.first, ...got.second].toSorted()).toEqual(sent.toSorted());
      });
    });

    test("messages with one key are handled one after the other, in publishing order", async () => {
      const { bus, topic } = await started();
      const seen = new Map<string, number[]>();
      const active = new Map<string, number>();
      let overlaps = 0;
      await bus.subscribe(topic, "g", async (delivered) => {
        const key = delivered.key ?? "";
        active.set(key, (active.get(key) ?? 0) + 1);
        if (active.get(key) !== 1) overlaps += 1;
        await new Promise((resolve) => setImmediate(resolve));
        seen.set(key, [...(seen.get(key) ?? []), Number(decode(delivered))]);
        active.set(key, 0);
      });
      const keys = ["a", "b", "c"];
      for (let index = 0; index < 30; index += 1) {
        await bus.publish(topic, message(keys[index % 3]!, String(index)));
      }
      await vi.waitFor(() => expect([...seen.values()].flat()).toHaveLength(30));
      expect(overlaps).toBe(0);
      for (const order of seen.values()) expect(order).toEqual(order.toSorted((a, b) => a - b));
    });

    test("a key whose handler waits does not hold up the other keys", async () => {
      const { bus, topic } = await started();
      const gate = Promise.withResolvers<undefined>();
      const done: string[] = [];
      await bus.subscribe(topic, "g", async (delivered) => {
        if (delivered.key === "slow") await gate.promise;
        done.push(delivered.key ?? "");
      });
      await bus.publish(topic, message("slow", "x"));
      for (let index = 0; index < 20; index += 1) await bus.publish(topic, message(`k${index}`, "x"));
      await vi.waitFor(() => expect(done.length).toBeGreaterThan(0));
      expect(done).not.toContain("slow");
      gate.resolve(undefined);
      await vi.waitFor(() => expect(done).toHaveLength(21));
    });

    test("a handler that throws does not stop the subscription", async () => {
      const { bus, topic } = await started();
      const got: string[] = [];
      await bus.subscribe(topic, "g", async (delivered) => {
        const text = decode(delivered);
        if (text === "bad") throw new Error("cannot");
        got.push(text);
      });
      for (const text of ["one", "bad", "two"]) await bus.publish(topic, message("k", text));
      await vi.waitFor(() => expect(got).toEqual(["one", "two"]));
    });

    test("a handler may publish, also to the topic it reads", async () => {
      const { bus, topic } = await started();
      const got: string[] = [];
      await bus.subscribe(topic, "g", async (delivered) => {
        const text = decode(delivered);
        got.push(text);
        if (text === "ping") await bus.publish(topic, message(delivered.key, "pong"));
      });
      await bus.publish(topic, message("k", "ping"));
      await vi.waitFor(() => expect(got).toEqual(["ping", "pong"]));
    });

    test("after unsubscribing nothing more arrives, and others go on", async () => {
      const { bus, topic } = await started();
      const got = { left: [] as string[], stays: [] as string[] };
      const leave = await bus.subscribe(
        topic,
        "a",
        async (delivered) => void got.left.push(decode(delivered)),
      );
      await bus.subscribe(topic, "b", async (delivered) => void got.stays.push(decode(delivered)));
      await bus.publish(topic, message("k", "one"));
      await vi.waitFor(() => expect(got.left).toEqual(["one"]));
      await leave();
      await leave();
      await bus.publish(topic, message("k", "two"));
      await vi.waitFor(() => expect(got.stays).toEqual(["one", "two"]));
      expect(got.left).toEqual(["one"]);
    });

    test("close lets the running handler finish and refuses what is published afterwards", async () => {
      const { bus, topic } = await started();
      const began = Promise.withResolvers<undefined>();
      const gate = Promise.withResolvers<undefined>();
      let finished = false;
      await bus.subscribe(topic, "g", async () => {
        began.resolve(undefined);
        await gate.promise;
        finished = true;
      });
      await bus.publish(topic, message("k", "x"));
      await began.promise;
      const closing = bus.close();
      gate.resolve(undefined);
      await closing;
      expect(finished).toBe(true);
      await bus.close();
      expect(bus.health().healthy).toBe(false);
      await expect(bus.publish(topic, message("k", "y"))).rejects.toThrow(/closed/);
      await expect(bus.subscribe(topic, "g", async () => undefined)).rejects.toThrow(/closed/);
    });

    test("destroy aborts the running handler with its reason and does not wait for it", async () => {
      const { bus, topic } = await started();
      const began = Promise.withResolvers<AbortSignal>();
      await bus.subscribe(topic, "g", async (_delivered, signal) => {
        began.resolve(signal);
        await new Promise(() => undefined);
      });
      await bus.publish(topic, message("k", "x"));
      const signal = await began.promise;
      const reason = new Error("enough");
      await bus.destroy(reason);
      await bus.destroy(reason);
      expect(signal.reason).toBe(reason);
      await bus.close();
    });

    test("before it is started it takes nothing; starting twice is one start", async () => {
      const bus = await makeBus();
      made.push(bus);
      expect(bus.health().healthy).toBe(false);
      await expect(bus.publish("t", message("k", "x"))).rejects.toThrow(/not started/);
      await expect(bus.subscribe("t", "g", async () => undefined)).rejects.toThrow(/not started/);
      await bus.start();
      await bus.start();
      expect(bus.health().healthy).toBe(true);
    });

    test.each(["", ".", "..", "a b", "ä", "x".repeat(250)])("%j is refused as a topic", async (topic) => {
      const { bus } = await started();
      await expect(bus.publish(topic, message("k", "x"))).rejects.toThrow(/topic/);
      await expect(bus.subscribe(topic, "g", async () => undefined)).rejects.toThrow(/topic/);
    });
  });
}
