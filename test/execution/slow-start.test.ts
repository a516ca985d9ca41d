import { describe, expect, test } from "vitest";
import { Routes } from "../../src/execution/routes.ts";
import { shareAt } from "../../src/execution/slow-start.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { callOf, endpoint, json, never, served, service, showing, snapshotOf } from "./helpers.ts";

/** Routes of one tool over time. */
function routesOver(first: Tool) {
  let now = 1_000_000;
  let tool = first;
  const routes = new Routes({ now: () => now });
  const picker = () => routes.of(tool, () => snapshotOf(tool))!.picker;
  picker();
  return {
    routes,
    picker,
    show: (next: Tool) => {
      tool = next;
      routes.retain(snapshotOf(next));
    },
    pass: (ms: number) => void (now += ms),
    /** Weight of each instance now, by its address. */
    weights: () =>
      Object.fromEntries(
        picker().items.map(({ key, weight }) => [key.replace("http://", ""), Math.round(weight * 100)]),
      ),
  };
}

describe("an instance that joins others", () => {
  test("starts with a tenth of its share and has all of it after 30 s", () => {
    expect([0, 10_000, 20_000, 30_000, 90_000].map((age) => Math.round(shareAt(age) * 100))).toEqual([
      10, 40, 70, 100, 100,
    ]);
    const over = routesOver(served(["http://a"]));
    over.show(served(["http://a", "http://b"]));
    expect(over.weights()).toEqual({ a: 100, b: 10 });
    over.pass(10_000);
    expect(over.weights()).toEqual({ a: 100, b: 40 });
    over.pass(10_000);
    expect(over.weights()).toEqual({ a: 100, b: 70 });
    over.pass(10_000);
    expect(over.weights()).toEqual({ a: 100, b: 100 });
  });

  test("has a tenth of its own weight", () => {
    const over = routesOver(served(["http://a"]));
    over.show(served([], { endpoints: [endpoint("http://a", 2), endpoint("http://b", 5)] }));
    expect(over.weights()).toEqual({ a: 200, b: 50 });
  });

  test("goes on warming up while others come and go and the tool's definition changes", () => {
    const over = routesOver(served(["http://a"]));
    over.show(served(["http://a", "http://b"]));
    over.pass(10_000);
    over.show(served(["http://a", "http://b", "http://c"]));
    expect(over.weights()).toEqual({ a: 100, b: 40, c: 10 });
    over.pass(10_000);
    over.show(served(["http://b", "http://c"], { revision: "2" }));
    expect(over.weights()).toEqual({ b: 70, c: 40 });
    over.pass(20_000);
    expect(over.weights()).toEqual({ b: 100, c: 100 });
  });

  test("and leaves and joins again is new once more", () => {
    const over = routesOver(served(["http://a", "http://b"]));
    over.show(served(["http://a"]));
    over.show(served(["http://a", "http://b"]));
    expect(over.weights()).toEqual({ a: 100, b: 10 });
  });

  test("costs nothing once it is warm: the picker is the whole one again", () => {
    const over = routesOver(served(["http://a"]));
    over.show(served(["http://a", "http://b"]));
    const cold = over.picker();
    // One picker serves a whole step.
    expect(over.picker()).toBe(cold);
    over.pass(30_000);
    const warm = over.picker();
    expect(warm).not.toBe(cold);
    over.pass(30_000);
    expect(over.picker()).toBe(warm);
  });

  test("gets few of the calls at first, and all of them where the others have gone", async () => {
    const now = 5000;
    const [a, b] = await Promise.all([0, 1].map(() => service((_request, response) => json(response, 1))));
    const { executor, show } = showing(served([a!.origin]), { clock: { now: () => now } });
    const call = () => executor.call(callOf(), never);
    await call();
    show(served([a!.origin, b!.origin]));
    for (let n = 0; n < 200; n++) await call();
    expect(b!.requests.length).toBeLessThan(60);
    expect(b!.requests.length).toBeGreaterThan(0);
    show(served([b!.origin]));
    expect((await call()).isError).toBe(false);
  });
});

describe("no instance is new", () => {
  test("where all of them are: at first sight, and after a time without any", () => {
    const over = routesOver(served(["http://a", "http://b"]));
    expect(over.weights()).toEqual({ a: 100, b: 100 });
    over.show(served([]));
    over.show(served(["http://b", "http://c"]));
    expect(over.weights()).toEqual({ b: 100, c: 100 });
    over.show(served(["http://d", "http://e"]));
    expect(over.weights()).toEqual({ d: 100, e: 100 });
  });

  test("of a tool that nobody has called yet", () => {
    const routes = new Routes({ now: () => 0 });
    routes.retain(snapshotOf(served(["http://a"])));
    const both = served(["http://a", "http://b"]);
    routes.retain(snapshotOf(both));
    expect(routes.size).toBe(0);
    expect(routes.of(both, () => snapshotOf(both))?.picker.items.map(({ weight }) => weight)).toEqual([1, 1]);
  });
});

test("a call that held its tool through a change finds the instances of now, and does not bring the old ones back", () => {
  const old = served(["http://a"]);
  const present = served(["http://b"], { version: "2" });
  const routes = new Routes({ now: () => 0 });
  routes.of(old, () => snapshotOf(old));
  const now = () => snapshotOf(present);
  routes.retain(now());
  expect(routes.of(old, now)).toBe(routes.of(present, now));
  expect(routes.of(old, now)?.targets.map(({ key }) => key)).toEqual(["http://b"]);
  const another = () => snapshotOf(served(["http://b"], { owner: "another" }));
  expect(routes.of(old, another)).toBeUndefined();
  expect(routes.of(old, () => snapshotOf())).toBeUndefined();
});
