import { describe, expect, onTestFinished, test, vi } from "vitest";
import {
  InfraConnectionError,
  InfraUnavailableError,
  ProtocolConfigurationError,
  RuntimeHostError,
} from "../../src/core/errors.ts";
import type { Executor } from "../../src/execution/executor.ts";
import { Routes } from "../../src/execution/routes.ts";
import { Validators } from "../../src/execution/validate.ts";
import { Catalog } from "../../src/tools/catalog.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { consulRecord } from "../support/instances.ts";
import {
  atRun,
  callOf,
  connectionsTo,
  deadOrigin,
  endpoint,
  executorOf,
  functionTool,
  json,
  never,
  rest,
  served,
  service,
  showing,
  snapshotOf,
  textOf,
  toolOf,
  type Reply,
} from "./helpers.ts";

const echo: Reply = (request, response) => json(response, { url: request.url });
const ask = (executor: Executor) => executor.call(callOf(), never);

describe("the tool of a service", () => {
  test("is called at its instances: all get calls, by their weights", async () => {
    const [a, b] = await Promise.all([service(echo), service(echo)]);
    const tool = served([], { endpoints: [endpoint(a.origin), endpoint(`${b.origin}/base`, 3)] });
    const { executor } = showing(tool);
    for (let n = 0; n < 200; n++) expect((await ask(executor)).isError).toBe(false);
    expect(a.requests.length + b.requests.length).toBe(200);
    expect(a.requests.length).toBeGreaterThan(15);
    expect(b.requests.length).toBeGreaterThan(100);
    expect(a.requests[0]?.url).toBe("/run");
    expect(b.requests[0]?.url).toBe("/base/run");
  });

  test.each([
    ["", "/base"],
    ["/", "/base"],
    ["/run?x=1", "/base/run?x=1"],
  ])("of kind onex with the path %j is called at %s", async (path, url) => {
    const { origin } = await service(echo);
    const { executor } = showing(served([`${origin}/base`], {}, { kind: "onex", endpoints: [], path }));
    expect((await ask(executor)).structuredContent).toEqual({ url });
  });

  test.each([
    ["", "/base?id=7"],
    ["/items/{id}", "/base/items/7"],
    ["/items?of={id}&n=1", "/base/items?of=7&n=1"],
  ])("of kind rest with the url %j is called at %s", async (url, wanted) => {
    const { origin } = await service(echo);
    const { executor } = showing(served([`${origin}/base`], {}, { kind: "rest", method: "GET", url }));
    const result = await executor.call(callOf({ id: 7 }), never);
    expect(result.structuredContent).toEqual({ url: wanted });
  });

  test("of kind rest never leaves its instances, and braces of an address are no placeholders", async () => {
    const { origin, requests } = await service(echo);
    for (const url of ["http://127.0.0.1:1/x", "@127.0.0.1:1/x", ":1/x"]) {
      const { executor } = showing(served([origin], {}, { kind: "rest", method: "GET", url }));
      expect((await ask(executor)).failure).toBeInstanceOf(ProtocolConfigurationError);
    }
    expect(requests).toHaveLength(0);
    const { executor } = showing(served([`${origin}/{id}`], {}, { kind: "rest", method: "GET", url: "/x" }));
    const result = await executor.call(callOf({ id: 7 }), never);
    expect(result.structuredContent).toEqual({ url: "/%7Bid%7D/x?id=7" });
  });

  test("without a live instance is unavailable, for seconds that it names", async () => {
    for (const tool of [served([]), toolOf({ ...atRun, service: "svc" })]) {
      const { executor } = showing(tool);
      expect(executor.available(tool)).toBe(false);
      const result = await ask(executor);
      expect(result.failure).toBeInstanceOf(InfraUnavailableError);
      expect(result.failure).toMatchObject({ retryable: true, facts: { retry_after_seconds: 5 } });
      expect(textOf(result)).toBe(
        'No instance of the service behind "sample" is available at the moment; try again in 5 s.',
      );
    }
  });

  test("that is a contract's with several endpoints is balanced over them in the same way", async () => {
    const services = await Promise.all([service(echo), service(echo), service(echo)]);
    const tool = toolOf({ kind: "onex", endpoints: services.map(({ origin }) => origin), path: "/run" });
    const { executor } = showing(tool);
    await Promise.all(Array.from({ length: 90 }, () => ask(executor)));
    expect(services.map(({ requests }) => requests.length > 15)).toEqual([true, true, true]);
  });
});

test("a contract without endpoints is called at the instances that the catalog has now", async () => {
  const [a, b] = await Promise.all([service(echo), service(echo)]);
  const catalog = new Catalog();
  const executor = executorOf([], { snapshot: () => catalog.snapshot() });
  onTestFinished(catalog.onSnapshot(executor.onSnapshot));
  const tool = toolOf({ ...atRun, service: "shipping" });
  catalog.apply("contracts", { put: [{ key: "c", tool }], remove: [] });
  const record = (id: string, url: string) =>
    consulRecord(id, { tool: "sample", serviceName: "shipping", url });
  const state = () => [...executor.circuits.circuitStates().keys()];

  expect((await ask(executor)).failure).toBeInstanceOf(InfraUnavailableError);
  const [one, two] = [record("a", a.origin), record("b", b.origin)];
  catalog.apply("consul", { put: [one], remove: [] });
  expect((await ask(executor)).structuredContent).toEqual({ url: "/run" });
  expect(a.requests).toHaveLength(1);
  catalog.apply("consul", { put: [two], remove: [one.key] });
  expect(state()).toEqual([]);
  await ask(executor);
  expect(b.requests).toHaveLength(1);
  catalog.apply("consul", { put: [{ ...two, instance: { ...two.instance, live: false } }], remove: [] });
  expect((await ask(executor)).failure?.facts.retry_after_seconds).toBe(5);
  expect(state()).toEqual([]);
});

describe("an instance that cannot be reached", () => {
  test("is passed over: while another is there no call fails, and the caller waits for nothing", async () => {
    const { origin, requests } = await service(echo);
    const dead = await deadOrigin();
    const { executor } = showing(served([dead, origin]));
    for (let n = 0; n < 50; n++) expect((await ask(executor)).isError).toBe(false);
    expect(requests).toHaveLength(50);
    expect(executor.circuits.circuitState(dead)).toMatchObject({ kind: "open" });
    expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "closed", failures: 0 });
  });

  test("is tried once before one is tried again, and a call to none that answers is over with the last reason", async () => {
    const origins = await Promise.all([deadOrigin(), deadOrigin(), deadOrigin(), deadOrigin()]);
    const { executor } = showing(served(origins));
    const result = await ask(executor);
    expect(result.failure).toBeInstanceOf(InfraConnectionError);
    expect(textOf(result)).toBe('The service behind "sample" could not be reached.');
    for (const origin of origins)
      expect(executor.circuits.circuitState(origin)).toMatchObject({ failures: 1 });
  });

  test("takes the tool out only when the breakers of all its instances are open", async () => {
    const [one, two] = await Promise.all([deadOrigin(), deadOrigin()]);
    const tool = served([one, two]);
    const { executor } = showing(tool, { breaker: { failureThreshold: 1 } });
    executor.circuits.resetCircuit(one);
    expect(executor.available(tool)).toBe(true);
    await ask(executor);
    expect(executor.available(tool)).toBe(false);
    const result = await ask(executor);
    expect(result.failure).toMatchObject({ retryable: true, facts: { retry_after_seconds: 60 } });
    expect(textOf(result)).toBe(
      'The service behind "sample" is not available at the moment; try again in 60 s.',
    );
  });

  test("names the seconds until the first of several breakers lets a call through", async () => {
    let now = 0;
    const [one, two] = await Promise.all([deadOrigin(), deadOrigin()]);
    const options = { breaker: { failureThreshold: 1 }, clock: { now: () => now } };
    const { executor, show } = showing(served([one]), options);
    await ask(executor);
    now = 20_000;
    show(served([one, two]));
    await ask(executor);
    const result = await ask(executor);
    expect(result.failure?.facts.retry_after_seconds).toBe(40);
  });

  test("whose trial calls are in use sends the others on to another instance", async () => {
    let now = 0;
    const release = Promise.withResolvers<undefined>();
    let broken = true;
    const half = await service((_request, response) => {
      if (broken) json(response, {}, 500);
      else void release.promise.then(() => json(response, "half"));
    });
    const whole = await service((_request, response) => json(response, "whole"));
    const { executor, show } = showing(served([half.origin]), {
      breaker: { failureThreshold: 1, halfOpenRequests: 1 },
      clock: { now: () => now },
    });
    await ask(executor);
    broken = false;
    now = 60_000;
    const trial = ask(executor);
    await vi.waitFor(() => expect(half.requests).toHaveLength(2));
    show(served([half.origin, whole.origin]));
    const results = await Promise.all(Array.from({ length: 30 }, () => ask(executor)));
    expect(results.map(textOf)).toEqual(Array.from({ length: 30 }, () => "whole"));
    release.resolve(undefined);
    expect(textOf(await trial)).toBe("half");
  });

  test("or that may not be called is passed over as well", async () => {
    const { origin } = await service(echo);
    const refused = "http://169.254.169.254";
    const { executor } = showing(served([refused, origin]));
    for (let n = 0; n < 20; n++) expect((await ask(executor)).isError).toBe(false);
    const { executor: other } = showing(served([refused]));
    expect((await ask(other)).failure).toBeInstanceOf(RuntimeHostError);
  });

  test("does not make a cancelled call go on", async () => {
    const { origin, requests } = await service(echo);
    const dead = await deadOrigin();
    const client = new AbortController();
    const { executor } = showing(served([dead, origin]), { random: () => 0 });
    const answer = executor.call(callOf(), client.signal);
    client.abort();
    expect((await answer).failure?.name).toBe("CancelledError");
    await new Promise((resolve) => setImmediate(resolve));
    expect(executor.circuits.circuitState(origin)).toBeUndefined();
    expect(requests).toHaveLength(0);
  });
});

describe("a connection that is lost after the request was sent", () => {
  const hangUp: Reply = (_request, _response, raw) => raw.socket.destroy();

  test.each([
    ["is not repeated", {}, true],
    ["of a read_only tool goes to another instance", { readOnly: true }, false],
    ["of an idempotent tool goes to another instance", { idempotent: true }, false],
  ])("%s", async (_title, annotations, fails) => {
    const [bad, good] = await Promise.all([service(hangUp), service(echo)]);
    // Always the first of the two.
    const { executor } = showing(served([bad.origin, good.origin], { annotations }), { random: () => 0 });
    const result = await ask(executor);
    expect(result.isError).toBe(fails);
    expect([bad.requests.length, good.requests.length]).toEqual([1, fails ? 0 : 1]);
  });
});

describe("instances that come and go", () => {
  test("a call under way at one that goes ends normally, and then its connections and its breaker are gone", async () => {
    const release = Promise.withResolvers<undefined>();
    const going = await service((_request, response) => {
      void release.promise.then(() => json(response, "done"));
    });
    const other = await service(echo);
    const { executor, show } = showing(served([going.origin]));
    const running = ask(executor);
    await vi.waitFor(() => expect(going.requests).toHaveLength(1));
    show(served([other.origin]));
    expect((await ask(executor)).structuredContent).toEqual({ url: "/run" });
    expect([...executor.circuits.circuitStates().keys()]).toEqual([other.origin]);
    release.resolve(undefined);
    expect(textOf(await running)).toBe("done");
    await vi.waitFor(async () => expect(await connectionsTo(going.server)).toBe(0));
    expect([...executor.circuits.circuitStates().keys()]).toEqual([other.origin]);
  });

  test("a call whose instance has gone before it was reached goes to one that came in the meantime", async () => {
    const dead = await deadOrigin();
    const { origin } = await service(echo);
    const { executor, show } = showing(served([dead]));
    const answer = ask(executor);
    // Another version of the tool that means the same.
    show(served([origin], { version: "2.0.0", revision: "2" }));
    expect((await answer).isError).toBe(false);
    expect([...executor.circuits.circuitStates().keys()]).toEqual([origin]);
  });

  test.each([
    [
      "another meaning",
      (origin: string) => served([origin], { revision: "2", inputSchema: { type: "object", a: 1 } }),
    ],
    ["another service", (origin: string) => served([origin], { owner: "other" })],
    ["another path", (origin: string) => served([origin], { revision: "2" }, { ...atRun, path: "/else" })],
  ])("but never to an instance of %s", async (_title, replacing) => {
    const { origin, requests } = await service(echo);
    const { executor, show } = showing(served([await deadOrigin()]));
    const answer = ask(executor);
    show(replacing(origin));
    expect((await answer).failure).toBeInstanceOf(InfraConnectionError);
    expect(requests).toHaveLength(0);
  });

  test("nor where the tool itself has gone: nothing is opened again", async () => {
    const { origin } = await service(echo);
    const { executor, show } = showing(served([await deadOrigin(), origin]), { random: () => 0 });
    const answer = ask(executor);
    show();
    expect((await answer).failure).toBeInstanceOf(InfraConnectionError);
    expect(executor.circuits.circuitStates().size).toBe(0);
  });

  test("two services at one host are apart by their ports, and two tools of one instance share its breaker", async () => {
    const [a, b] = await Promise.all([service(echo), service(echo)]);
    const tools = [
      served([a.origin], { name: "a1" }),
      served([`${a.origin}/x`], { name: "a2" }),
      served([b.origin], { name: "b", owner: "other" }),
    ];
    const executor = executorOf(tools);
    for (const { name } of tools) await executor.call(callOf({}, { name }), never);
    expect([...executor.circuits.circuitStates().keys()]).toEqual([a.origin, b.origin]);
  });
});

describe("what is worked out once", () => {
  test("a plan outlives a change of the other instances, and goes with its own", () => {
    const routes = new Routes({ now: () => 0 });
    const plans = (tool: Tool) =>
      routes.of(tool, () => snapshotOf(tool))?.targets.map(({ plan }) => plan) ?? [];
    const first = plans(served(["http://a", "http://b"]));
    const second = plans(served(["http://b", "http://c"]));
    expect(second[0]).toBe(first[1]);
    expect(plans(served(["http://a", "http://c"]))[0]).not.toBe(first[0]);
    expect(plans(served(["http://a", "http://c"], { revision: "2" }))[1]).not.toBe(second[1]);
  });

  test("is given up with the tool", () => {
    const routes = new Routes({ now: () => 0 });
    for (const tool of [served(["http://a"], { name: "a" }), served(["http://b"], { name: "b" })])
      routes.of(tool, () => snapshotOf(tool));
    routes.retain(snapshotOf(served(["http://c"], { name: "b" })));
    expect(routes.size).toBe(1);
    routes.retain(snapshotOf(functionTool(() => 1, { name: "b" })));
    expect(routes.size).toBe(0);
  });

  test("one bad address does not keep the others from being called", async () => {
    const { origin } = await service(echo);
    const tool = served(["not a url", "http://user:pw@127.0.0.1:1", origin]);
    const { executor } = showing(tool);
    for (let n = 0; n < 20; n++) expect((await ask(executor)).isError).toBe(false);
    expect(executor.available(tool)).toBe(true);
    const none = served(["not a url"]);
    const { executor: other } = showing(none);
    expect(other.available(none)).toBe(false);
    expect((await ask(other)).failure).toBeInstanceOf(ProtocolConfigurationError);
  });

  test("a validator stays when only the instances change", () => {
    const validators = new Validators();
    const inputSchema = { type: "object", required: ["a"] };
    validators.checkArguments(served(["http://a"], { inputSchema }), { a: 1 });
    const changed = served(["http://b"], { inputSchema });
    validators.retain([changed]);
    expect(validators.size).toBe(1);
    validators.retain([rest({ method: "GET", url: "http://a" })]);
    expect(validators.size).toBe(0);
  });
});
