import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { Chains } from "../../src/bus/kafka-chains.ts";
import { Progress } from "../../src/bus/kafka-progress.ts";

test("what may be committed is the first offset that is not done, whatever the order of ending", () => {
  const progress = new Progress();
  expect(progress.committable).toBeUndefined();
  for (const offset of [10n, 11n, 14n]) expect(progress.take(offset)).toBe(true);
  progress.passed(20n);
  expect(progress.committable).toBe(10n);
  progress.finish(11n);
  expect(progress.committable).toBe(10n);
  progress.finish(10n);
  expect(progress.committable).toBe(14n);
  progress.finish(14n);
  expect(progress.committable).toBe(20n);
});

test("what was taken is not taken again", () => {
  const progress = new Progress();
  progress.passed(5n);
  expect(progress.take(4n)).toBe(false);
  expect(progress.take(5n)).toBe(true);
  expect(progress.take(5n)).toBe(false);
  progress.passed(3n);
  expect(progress.next).toBe(6n);
});

test("no order of ending lets a commit pass a message that is not done", () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.bigInt(0n, 60n)), fc.infiniteStream(fc.nat()), (offsets, choices) => {
      const progress = new Progress();
      const open = offsets.toSorted((a, b) => (a < b ? -1 : 1));
      for (const offset of open) progress.take(offset);
      const last = open.at(-1);
      while (open.length > 0) {
        expect(progress.committable).toBe(open.reduce((a, b) => (a < b ? a : b)));
        const [choice = 0] = [...choices.take(1)];
        for (const done of open.splice(choice % open.length, 1)) progress.finish(done);
      }
      expect(progress.committable).toBe(last === undefined ? undefined : last + 1n);
    }),
  );
});

test("chains hold back what has not begun, and are idle when what runs has ended", async () => {
  const gate = Promise.withResolvers<undefined>();
  const begun: string[] = [];
  const chains = new Chains<string>(2, async (item) => {
    begun.push(item);
    await gate.promise;
  });
  await chains.idle();
  chains.add("a1", "a");
  chains.add("a2", "a");
  chains.add("b1", "b");
  chains.add("free", undefined);
  expect(begun).toEqual(["a1", "b1"]);
  chains.hold();
  let idle = false;
  void chains.idle().then(() => (idle = true));
  await Promise.resolve();
  expect(idle).toBe(false);
  gate.resolve(undefined);
  await vi.waitFor(() => expect(idle).toBe(true));
  expect(begun).toEqual(["a1", "b1"]);
  chains.release();
  await vi.waitFor(() => expect(begun.toSorted()).toEqual(["a1", "a2", "b1", "free"]));
});
