/** What every event bus does. Run it on each implementation. */
import { randomUUID } from "node:crypto";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { BusMessage, DeadLetterCategory, DeliveredMessage, EventBus } from "../../src/bus/bus.ts";
import { RuntimeHostError } from "../../src/core/errors.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const decode = (message: DeliveredMessage): string =>
  new TextDecoder().decode(message.value ?? new Uint8Array());
const message = (key: string | null, text: string, headers: Record<string, string> = {}) => ({
  key,
  value: encode(text),
  headers,
});

export interface SuiteBusOptions {
  readonly environment?: string;
  readonly source?: string;
  readonly deadLetter?: boolean;
}

/** @param makeBus a new bus that is not started; the suite starts and closes it */
export function busSuite(name: string, makeBus: (options?: SuiteBusOptions) => EventBus): void {
  describe(`event bus: ${name}`, () => {
    const made: EventBus[] = [];
    afterEach(async () => {
      await Promise.all(made.splice(0).map((bus) => bus.destroy(new Error("the test is over"))));
    });
    const started = async (options?: SuiteBusOptions): Promise<{ bus: EventBus; topic: string }> => {
      const bus = makeBus(options);
      made.push(bus);
      await bus.start();
      return { bus, topic: `suite.${randomUUID()}` };
    };

    test("a message arrives as it was published: key, bytes and headers", async () => {
      const { bus, topic } = await started();
      const got: DeliveredMessage[] = [];
      await bus.subscribe(topic, `${topic}.g`, async (delivered) => void got.push(delivered));
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
      await bus.subscribe(
        topic,
        `${topic}.alone`,
        async (delivered) => void got.alone.push(decode(delivered)),
      );
      await bus.subscribe(
        topic,
        `${topic}.pair`,
        async (delivered) => void got.first.push(decode(delivered)),
      );
      await bus.subscribe(
        topic,
        `${topic}.pair`,
        async (delivered) => void got.second.push(decode(delivered)),
      );
      const sent = Array.from({ length: 40 }, (_, index) => `m${index}`);
      for (const text of sent) await bus.publish(topic, message(text, text));
      await vi.waitFor(() => {
        expect(got.alone.toSorted()).toEqual(sent.toSorted());
        expect([...got.first, ...got.second].toSorted()).toEqual(sent.toSorted());
      });
    });

    test("one group may read several topics", async () => {
      const { bus, topic } = await started();
      const got: string[] = [];
      const topics = ["a", "b", "c"].map((name) => `${topic}.${name}`);
      for (const each of topics)
        await bus.subscribe(each, topic, async (delivered) => void got.push(delivered.topic));
      for (const each of topics) await bus.publish(each, message("k", "x"));
      await vi.waitFor(() => expect(got.toSorted()).toEqual(topics), 10_000);
    });

    test("messages with one key are handled one after the other, in publishing order", async () => {
      const { bus, topic } = await started();
      const seen = new Map<string, number[]>();
      const active = new Map<string, number>();
      let overlaps = 0;
      await bus.subscribe(topic, `${topic}.g`, async (delivered) => {
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
      await bus.subscribe(topic, `${topic}.g`, async (delivered) => {
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
      await bus.subscribe(topic, `${topic}.g`, async (delivered) => {
        const text = decode(delivered);
        if (text === "bad") throw new Error("cannot");
        got.push(text);
      });
      for (const text of ["one", "bad", "two"]) await bus.publish(topic, message("k", text));
      await vi.waitFor(() => expect(got).toEqual(["one", "two"]));
    });

    describe("a message whose handler throws", () => {
      /** What of `sent` is on the dead-letter topic, with the handler that throws at every message. */
      const letters = async (
        sent: readonly BusMessage[],
        thrown: unknown,
        category?: DeadLetterCategory,
      ): Promise<{ topic: string; environment: string; got: DeliveredMessage[] }> => {
        const environment = `env-${randomUUID()}`;
        const { bus, topic } = await started({ environment, source: "the-source" });
        const got: DeliveredMessage[] = [];
        const target = `${environment}.dlq.${category ?? "events"}.v1`;
        await bus.subscribe(target, `${topic}.letters`, async (delivered) => void got.push(delivered));
        await bus.subscribe(
          topic,
          `${topic}.g`,
          async () => {
            throw thrown;
          },
          category === undefined ? undefined : { deadLetters: category },
        );
        for (const each of sent) await bus.publish(topic, each);
        await vi.waitFor(() => expect(got).toHaveLength(sent.length), 10_000);
        return { topic, environment, got };
      };

      test.each(["events", "commands", "intents"] as const)(
        "is a dead letter of the %s",
        async (category) => {
          const { topic, got } = await letters(
            [message("k", "häl\u0000lo", { correlation_id: "c1" })],
            new TypeError("no such thing"),
            category,
          );
          const [letter] = got;
          expect(letter).toMatchObject({ key: "k", headers: { correlation_id: "c1", source: "the-source" } });
          expect(JSON.parse(decode(letter!))).toEqual({
            original_topic: topic,
            original_message: {
              key: "k",
              value: "häl\u0000lo",
              offset: expect.stringMatching(/^\d+$/),
              partition: expect.any(Number),
            },
            failure_reason: "no such thing",
            failure_timestamp: expect.stringMatching(/^\d{4}-.*Z$/),
            correlation_id: "c1",
            retry_count: 0,
            error_type: "TypeError",
          });
        },
      );

      test("keeps a value that is not UTF-8, a tombstone and a message without a key", async () => {
        const { got } = await letters(
          [
            { key: "bytes", value: Uint8Array.of(0xff, 0x00, 0xfe), headers: {} },
            { key: "gone", value: null, headers: {} },
            message(null, "no key"),
          ],
          "a text",
        );
        const byKey = new Map(got.map((letter) => [letter.key, JSON.parse(decode(letter))]));
        expect(byKey.get("bytes").original_message).toMatchObject({
          value: Buffer.from([0xff, 0x00, 0xfe]).toString("base64"),
          value_encoding: "base64",
        });
        expect(byKey.get("gone").original_message.value).toBeNull();
        expect(byKey.get(null)).toMatchObject({
          failure_reason: "a text",
          correlation_id: null,
          original_message: { key: null, value: "no key" },
        });
      });

      test("has the facts of the error that say more", async () => {
        const facts = { correlation_id: "c9", retry_count: 4 };
        const { got } = await letters([message("k", "x")], new RuntimeHostError("no", { facts }));
        expect(JSON.parse(decode(got[0]!))).toMatchObject({ ...facts, error_type: "RuntimeHostError" });
      });

      test("is only logged where dead letters are off; one of the dead-letter topic itself always", async () => {
        const environment = `env-${randomUUID()}`;
        const quiet = await started({ environment, deadLetter: false });
        const { bus } = await started({ environment });
        const target = `${environment}.dlq.events.v1`;
        let failures = 0;
        const seen: string[] = [];
        const fail = async (): Promise<void> => {
          failures += 1;
          throw new Error("cannot");
        };
        await quiet.bus.subscribe(quiet.topic, `${quiet.topic}.g`, fail);
        await bus.subscribe(target, `${quiet.topic}.g`, async (delivered) => {
          seen.push(decode(delivered));
          throw new Error("not this one either");
        });
        await quiet.bus.publish(quiet.topic, message("k", "x"));
        await vi.waitFor(() => expect(failures).toBe(1), 10_000);
        await bus.publish(target, message("k", "first"));
        await bus.publish(target, message("k", "second"));
        await vi.waitFor(() => expect(seen).toContain("second"), 10_000);
        expect(seen).toEqual(["first", "second"]);
      });
    });

    test("a subscription that is ended with a signal aborts what runs, and waits for nothing else", async () => {
      const { bus, topic } = await started();
      const began = Promise.withResolvers<AbortSignal>();
      const leave = await bus.subscribe(topic, `${topic}.g`, async (_delivered, signal) => {
        began.resolve(signal);
        await new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => reject(new Error("gave up")));
        });
      });
      await bus.publish(topic, message("k", "x"));
      const signal = await began.promise;
      const ending = new AbortController();
      const left = leave(ending.signal);
      expect(signal.aborted).toBe(false);
      const reason = new Error("time is over");
      ending.abort(reason);
      await left;
      expect(signal.reason).toBe(reason);
    });

    test("a handler may publish, also to the topic it reads", async () => {
      const { bus, topic } = await started();
      const got: string[] = [];
      await bus.subscribe(topic, `${topic}.g`, async (delivered) => {
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
        `${topic}.a`,
        async (delivered) => void got.left.push(decode(delivered)),
      );
      await bus.subscribe(topic, `${topic}.b`, async (delivered) => void got.stays.push(decode(delivered)));
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
      await bus.subscribe(topic, `${topic}.g`, async () => {
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
      await expect(bus.subscribe(topic, `${topic}.g`, async () => undefined)).rejects.toThrow(/closed/);
    });

    test("destroy aborts the running handler with its reason and does not wait for it", async () => {
      const { bus, topic } = await started();
      const began = Promise.withResolvers<AbortSignal>();
      await bus.subscribe(topic, `${topic}.g`, async (_delivered, signal) => {
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
      const bus = makeBus();
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
      await expect(bus.subscribe(topic, `${topic}.g`, async () => undefined)).rejects.toThrow(/topic/);
    });
  });
}
