import { expect, it } from "vitest";
import { Gate } from "../../src/discovery/gate.ts";

it("a gate that is shut holds changes, and lets them through in their order when it is opened", () => {
  const through: number[] = [];
  const gate = new Gate<number>((change) => through.push(change));
  gate.pass(1);
  gate.pass(2);
  expect(through).toEqual([]);
  gate.open();
  expect(through).toEqual([1, 2]);
  gate.pass(3);
  gate.open();
  expect(through).toEqual([1, 2, 3]);
});

it("what comes while a gate is being opened waits for its turn", () => {
  const through: number[] = [];
  const gate = new Gate<number>((change) => {
    if (change === 1) gate.pass(3);
    through.push(change);
  });
  gate.pass(1);
  gate.pass(2);
  gate.open();
  expect(through).toEqual([1, 2, 3]);
});

it("a change that fails keeps those behind it in the gate", () => {
  const through: number[] = [];
  const gate = new Gate<number>((change) => {
    if (change === 1) throw new Error("no");
    through.push(change);
  });
  for (const change of [1, 2, 3]) gate.pass(change);
  expect(() => gate.open()).toThrow("no");
  gate.pass(4);
  gate.open();
  expect(through).toEqual([2, 3, 4]);
});
