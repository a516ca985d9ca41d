import { expect, test } from "vitest";
import { RecentSet } from "../../src/bus/recent-set.ts";

test("what was used longest ago is forgotten first, and asking is a use", () => {
  const set = new RecentSet(3);
  for (const text of ["a", "b", "c"]) set.add(text);
  expect(set.has("a")).toBe(true);
  set.add("d");
  expect(["a", "b", "c", "d"].map((text) => set.has(text))).toEqual([true, false, true, true]);
});

test("what is added again takes no other one's place, and counts as used", () => {
  const set = new RecentSet(2);
  for (const text of ["a", "b", "a", "c"]) set.add(text);
  expect(["a", "b", "c"].map((text) => set.has(text))).toEqual([true, false, true]);
});

test("what was deleted is not there, and its place is free", () => {
  const set = new RecentSet(2);
  for (const text of ["a", "b"]) set.add(text);
  set.delete("b");
  set.add("c");
  expect(["a", "b", "c"].map((text) => set.has(text))).toEqual([true, false, true]);
});
