import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConsulState } from "../../../src/discovery/consul-state.ts";
import { Gate } from "../../../src/discovery/gate.ts";
import { registrationReader } from "../../../src/discovery/registration-event.ts";
import { RegistrationLog } from "../../../src/discovery/registration-log.ts";
import { Catalog } from "../../../src/tools/catalog.ts";
import type { Action, History } from "./history.ts";
import { convergence, reportOf } from "./property.ts";

const parts = { Catalog, ConsulState, Gate, RegistrationLog, registrationReader };
const runs = 1000;

const historyOf = (...actions: readonly Action[]): History => ({
  maxTools: 100,
  requiredTags: [],
  epochs: [{ begins: "restart", lost: "nothing", actions, pass: 0 }],
});

const event = { do: "announce", id: "s1", lane: 0, url: "http://e1.test:9000", tags: true } as const;
const says = { service: "Zoo", tool: "orders" };

describe("the snapshot", () => {
  it("depends on the present truth only, however the sources are interleaved", { timeout: 120_000 }, () => {
    const details = fc.check(convergence(parts), { numRuns: runs });
    console.log(`convergence: ${details.numRuns} histories, each in two orders, seed ${details.seed}`);
    expect(details.failed, reportOf(details)).toBe(false);
  });

  it.each([
    [
      "instances whose schemas differ in the order of keys only are called alike",
      historyOf(
        { ...event, says: { ...says, schema: 0 } },
        { ...event, id: "s2", says: { ...says, schema: 2 } },
      ),
    ],
    [
      "an instance that a tag keeps out is not called for a contract either",
      historyOf(
        { do: "write", path: "a/contract.yaml", tool: "orders", says: {}, on: "any" },
        { ...event, says: { ...says, tag: "deprecated" } },
        { ...event, id: "s2", says },
      ),
    ],
    [
      "a contract passes over a service that a tag keeps out",
      historyOf(
        { do: "write", path: "a/contract.yaml", tool: "orders", says: {}, on: "any" },
        { ...event, says: { ...says, tag: "deprecated" } },
        { ...event, id: "s2", says: { ...says, service: "bar" } },
      ),
    ],
  ])("is right where %s", (_title, past) => {
    const details = fc.check(convergence(parts), { numRuns: 1, examples: [[past, [], []]] });
    expect(details.failed, reportOf(details)).toBe(false);
  });
});
