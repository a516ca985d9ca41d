import { expect, test } from "vitest";
import { calmIdleConnections } from "../../src/bus/kafka-idle.ts";

test("a library whose request queue is not there, or another one, is left as it is", async () => {
  class Other {
    check(): string {
      return "as it was";
    }
  }
  await calmIdleConnections(() => Promise.reject(new Error("Cannot find module")));
  for (const loaded of [undefined, {}, { default: "queue" }, { default: Other }])
    await calmIdleConnections(() => Promise.resolve(loaded));
  expect(Object.getOwnPropertyNames(Other.prototype)).toEqual(["constructor", "check"]);
});

test("a queue without requests that wait asks for no look at them, one with such requests does, once", async () => {
  class Queue {
    pending: unknown[] | undefined = [];
    looks = 0;
    scheduleCheckPendingRequests(): void {
      this.looks += 1;
    }
  }
  for (const round of [1, 2]) await calmIdleConnections(() => Promise.resolve({ default: Queue, round }));
  const queue = new Queue();
  queue.scheduleCheckPendingRequests();
  expect(queue.looks).toBe(0);
  queue.pending = ["request"];
  queue.scheduleCheckPendingRequests();
  expect(queue.looks).toBe(1);
  // Of another version, whose queue is not known.
  queue.pending = undefined;
  queue.scheduleCheckPendingRequests();
  expect(queue.looks).toBe(2);
});
