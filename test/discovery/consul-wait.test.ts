import { afterEach, describe, expect, it, vi } from "vitest";
import type { ConsulAnswer, ConsulRead } from "../../src/discovery/consul-client.ts";
import { ConsulReads } from "../../src/discovery/consul-reads.ts";
import { follow, nextIndex, retryMs, type News } from "../../src/discovery/consul-wait.ts";

describe("the index of a waiting query", () => {
  it("goes on, starts again where it went backwards, and is never 0 of an answer", () => {
    expect(nextIndex(5, 9)).toBe(9);
    expect(nextIndex(9, 9)).toBe(9);
    expect(nextIndex(9, 5)).toBe(0);
    expect(nextIndex(0, 0)).toBe(1);
  });

  /** The indexes that are asked for, where these are answered one after the other. */
  async function asked(
    answers: readonly (number | Error)[],
  ): Promise<{ indexes: (number | undefined)[]; news: (News & { data: number })[] }> {
    const indexes: (number | undefined)[] = [];
    const news: (News & { data: number })[] = [];
    const end = new AbortController();
    const rest = answers.values();
    await follow<number>({
      signal: end.signal,
      random: () => 0,
      ask: ({ wait }: ConsulRead): Promise<ConsulAnswer<number>> => {
        const { value, done } = rest.next();
        if (done === true) {
          end.abort();
          return Promise.reject(new Error("the end"));
        }
        indexes.push(wait?.index);
        return value instanceof Error
          ? Promise.reject(value)
          : Promise.resolve({ data: value, index: value, isFiltered: false });
      },
      onAnswer: (data, what) => void news.push({ data, ...what }),
      onReached: () => undefined,
      onFailure: () => undefined,
    });
    return { indexes, news };
  }

  it("is the last answer's, without one at first and after a failure", async () => {
    const { indexes, news } = await asked([3, 4, new Error("refused"), 4, 6]);
    expect(indexes).toEqual([undefined, 3, 4, undefined, 4]);
    expect(news.map(({ data, isReset }) => [data, isReset])).toEqual([
      [3, false],
      [4, false],
      [4, false],
      [6, false],
    ]);
  });

  it("that went backwards is told as such, once, also where a failure came between", async () => {
    const { indexes, news } = await asked([100, 2, 2, new Error("refused"), 1, 1]);
    expect(indexes).toEqual([undefined, 100, undefined, 2, undefined, undefined]);
    expect(news.map(({ data, isReset }) => [data, isReset])).toEqual([
      [100, false],
      [2, true],
      [2, false],
      [1, true],
      [1, false],
    ]);
  });

  it("that stands still is no news", async () => {
    const { news } = await asked([5, 5, 5, 6]);
    expect(news.map(({ data }) => data)).toEqual([5, 6]);
  });
});

describe("an answer that is there at once", () => {
  afterEach(() => vi.useRealTimers());

  /** How often is asked at first, and until so many milliseconds are over. */
  async function countOf(indexAt: (count: number) => number, ms: number): Promise<[number, number]> {
    vi.useFakeTimers();
    const end = new AbortController();
    let count = 0;
    const following = follow<number>({
      signal: end.signal,
      random: () => 0,
      ask: () => {
        count += 1;
        if (count >= 1000) end.abort();
        return Promise.resolve({ data: count, index: indexAt(count), isFiltered: false });
      },
      onAnswer: () => undefined,
      onReached: () => undefined,
      onFailure: () => undefined,
    });
    await vi.advanceTimersByTimeAsync(0);
    const first = count;
    await vi.advanceTimersByTimeAsync(ms);
    end.abort();
    await following;
    return [first, count];
  }

  it("with a higher index every time is asked for at most twenty times a second, after a burst", async () => {
    expect(await countOf((count) => count, 1000)).toEqual([33, 46]);
  });

  it.each([
    { what: "without an index", indexes: [0] },
    { what: "with indexes to and fro", indexes: [10, 5] },
    { what: "with and without an index in turn", indexes: [10, 0] },
  ])("$what is asked for ever more slowly", async ({ indexes }) => {
    const [first, later] = await countOf((count) => indexes[count % indexes.length] ?? 0, 20_000);
    expect(first).toBeLessThan(6);
    expect(later).toBeLessThan(60);
  });
});

describe("the wait before another attempt", () => {
  it("doubles from 100 ms to 2 s", () => {
    const waits = [1, 2, 3, 4, 5, 6, 100].map((failures) => retryMs(failures, () => 0.5));
    expect(waits).toEqual([100, 200, 400, 800, 1600, 2000, 2000]);
  });
});

describe("reads of many services", () => {
  interface Pending {
    readonly name: string;
    readonly resolve: () => void;
    readonly reject: (error: unknown) => void;
  }

  function setUp(limit: number): {
    reads: ConsulReads;
    pending: Pending[];
    started: string[];
    failures: string[];
  } {
    const pending: Pending[] = [];
    const started: string[] = [];
    const failures: string[] = [];
    const reads = new ConsulReads({
      limit,
      random: () => 0,
      read: (name) => {
        started.push(name);
        return new Promise<void>((resolve, reject) => pending.push({ name, resolve, reject }));
      },
      isOutage: (error) => error === "outage",
      onFailure: (name) => void failures.push(name),
      onSuccess: () => undefined,
    });
    return { reads, pending, started, failures };
  }
  const settle = async (pending: Pending[]): Promise<void> => {
    pending.shift()?.resolve();
    await new Promise((resolve) => setImmediate(resolve));
  };

  it("run at most so many at once, urgent ones first, and every fourth is a patient one", async () => {
    const { reads, pending, started } = setUp(1);
    void reads.add(["p1", "p2", "p3"], "patient");
    void reads.add(["u1", "u2", "u3", "u4", "u5"], "urgent");
    while (pending.length > 0) {
      expect(pending).toHaveLength(1);
      await settle(pending);
    }
    expect(started).toEqual(["p1", "u1", "u2", "p2", "u3", "u4", "u5", "p3"]);
    reads.close();
  });

  it("of a name that is asked for while it is read are two, one after the other, and the asker waits for the second", async () => {
    const { reads, pending, started } = setUp(8);
    void reads.add(["a"], "urgent");
    let isDone = false;
    const second = reads.add(["a"], "urgent").then(() => (isDone = true));
    expect(started).toEqual(["a"]);
    await settle(pending);
    expect([started, isDone]).toEqual([["a", "a"], false]);
    await settle(pending);
    await second;
    reads.close();
  });

  it("that fail by an outage are tried by one until it succeeds; none is forgotten", async () => {
    const { reads, pending, started } = setUp(3);
    const all = reads.add(["a", "b", "c", "d"], "patient");
    expect(pending.map(({ name }) => name)).toEqual(["a", "b", "c"]);
    for (const { reject } of pending.splice(0)) reject("outage");
    await expect.poll(() => pending.length).toBe(1);
    expect(started).toHaveLength(4);
    await settle(pending);
    await expect.poll(() => pending.length).toBe(3);
    while (pending.length > 0) await settle(pending);
    await all;
    expect(new Set(started.slice(3))).toEqual(new Set(["a", "b", "c", "d"]));
    reads.close();
  });

  it("that Consul cannot answer for hold nobody up, and are tried again", async () => {
    const { reads, pending, failures } = setUp(1);
    const all = reads.add(["bad", "good"], "urgent");
    pending.shift()?.reject("nonsense");
    await expect.poll(() => pending.map(({ name }) => name)).toEqual(["good"]);
    await settle(pending);
    await all;
    expect(failures).toEqual(["bad"]);
    await expect.poll(() => pending.map(({ name }) => name)).toEqual(["bad"]);
    await settle(pending);
    reads.close();
  });

  it("are given up by a close, and nobody waits for them", async () => {
    const { reads, started } = setUp(1);
    const all = reads.add(["a", "b"], "urgent");
    reads.close();
    await all;
    await reads.add(["c"], "urgent");
    expect(started).toEqual(["a"]);
  });
});
