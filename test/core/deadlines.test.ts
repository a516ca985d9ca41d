import { expect, test, vi, onTestFinished } from "vitest";
import { Deadlines, type Limited } from "../../src/core/deadlines.ts";

/** Time stands still until it is moved, for timers and for the clock. */
function fakeTime(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  onTestFinished(() => void vi.useRealTimers());
}

function entry(name: string, over: string[], then?: () => void): Limited {
  return {
    due: 0,
    before: undefined,
    after: undefined,
    timeOver() {
      over.push(name);
      then?.();
    },
  };
}

test("each entry's time is over after the limit, in the order in which they came", () => {
  fakeTime();
  const over: string[] = [];
  const deadlines = new Deadlines(100);
  deadlines.add(entry("a", over));
  vi.advanceTimersByTime(60);
  deadlines.add(entry("b", over));
  deadlines.add(entry("c", over));
  vi.advanceTimersByTime(39);
  expect(over).toEqual([]);
  vi.advanceTimersByTime(2);
  expect(over).toEqual(["a"]);
  vi.advanceTimersByTime(60);
  expect(over).toEqual(["a", "b", "c"]);
});

test("one that is removed, wherever it stands, is left alone, and the others are not", () => {
  fakeTime();
  for (const gone of ["a", "b", "c"]) {
    const over: string[] = [];
    const deadlines = new Deadlines(100);
    const entries = ["a", "b", "c"].map((name) => entry(name, over));
    for (const each of entries) deadlines.add(each);
    for (const each of entries.filter((_, at) => "abc"[at] === gone)) deadlines.remove(each);
    vi.advanceTimersByTime(101);
    expect(over).toEqual(["a", "b", "c"].filter((name) => name !== gone));
  }
});

test("after a time without any, the next one has its whole time", () => {
  fakeTime();
  const over: string[] = [];
  const deadlines = new Deadlines(100);
  const first = entry("a", over);
  deadlines.add(first);
  vi.advanceTimersByTime(50);
  deadlines.remove(first);
  deadlines.add(entry("b", over));
  vi.advanceTimersByTime(60);
  expect(over).toEqual([]);
  vi.advanceTimersByTime(41);
  expect(over).toEqual(["b"]);
  vi.advanceTimersByTime(1000);
  deadlines.add(entry("c", over));
  vi.advanceTimersByTime(99);
  expect(over).toEqual(["b"]);
  vi.advanceTimersByTime(2);
  expect(over).toEqual(["b", "c"]);
});

test("one that begins at the end of another has its own time", () => {
  fakeTime();
  const over: string[] = [];
  const deadlines = new Deadlines(100);
  deadlines.add(entry("a", over, () => deadlines.add(entry("b", over))));
  vi.advanceTimersByTime(101);
  expect(over).toEqual(["a"]);
  vi.advanceTimersByTime(101);
  expect(over).toEqual(["a", "b"]);
});
