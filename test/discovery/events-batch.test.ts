import { expect, it } from "vitest";
import type { EventLog, FollowedMessage, FollowOptions } from "../../src/bus/bus.ts";
import { EventSource } from "../../src/discovery/events.ts";
import type { SourceChange } from "../../src/tools/source.ts";
import { messageOf, registration } from "./registrations.ts";

/** A log that hands over what the test says, in the batches that the test says: a real one makes its own. */
async function source(): Promise<{
  changes: SourceChange[];
  read: (...messages: FollowedMessage[]) => Promise<void>;
}> {
  let onMessages: FollowOptions["onMessages"] = () => undefined;
  const log: EventLog = {
    follow: async (_topic, options) => {
      onMessages = options.onMessages;
      return {
        caughtUp: Promise.resolve(),
        status: () => ({ lag: 0, healthy: true }),
        close: () => Promise.resolve(),
      };
    },
    deadLetter: () => Promise.resolve(),
  };
  const changes: SourceChange[] = [];
  const events = new EventSource({
    log,
    topics: ["node.registration.v1"],
    replay: true,
    partitions: 1,
    deadLetter: () => Promise.resolve(),
  });
  await events.start((change) => changes.push(change));
  return { changes, read: async (...messages) => await onMessages(messages) };
}

const at = (
  second: number,
  fields: Record<string, unknown>,
  place: Partial<FollowedMessage>,
): FollowedMessage =>
  messageOf(
    registration("orders", { emitted_at: `2026-01-31T12:00:${String(second).padStart(2, "0")}Z`, ...fields }),
    place,
  );

it("a deregistration that a registration in the same batch has overtaken suppresses nothing, whatever the past says", async () => {
  const { changes, read } = await source();
  await read(
    at(10, { event_type: "deregistered" }, { offset: "1" }),
    at(11, {}, { offset: "2" }),
    at(12, { event_type: "deregistered" }, { partition: 1, offset: "1", isHistory: true }),
  );
  expect(changes).toEqual([{ put: [], remove: ["orders-1"] }]);
});

it("a batch is one change, and what is declared gone in it is suppressed", async () => {
  const { changes, read } = await source();
  await read(at(10, {}, { offset: "1" }), at(11, { event_type: "deregistered" }, { offset: "2" }));
  expect(changes).toEqual([{ put: [], remove: ["orders-1"], suppress: ["orders-1"] }]);
});
