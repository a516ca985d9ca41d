import { collectingLog } from "../support/log.ts";
import { describe, expect, test, vi } from "vitest";
import { MemoryBus } from "../../src/bus/memory.ts";
import { ProtocolConfigurationError, RuntimeHostError } from "../../src/core/errors.ts";
import type { Container } from "../../src/runtime/handler.ts";
import { Contracts, makeHost, startedHost, type Behaviour } from "./support.ts";

const never = (): Promise<never> => new Promise(() => undefined);
const required = { config: {} };

/** A behaviour that writes down what happens to it. */
const recorder =
  (events: string[]) =>
  (name: string, more: Behaviour = {}): Behaviour => ({
    initialize: () => void events.push(`${name} initialize`),
    shutdown: () => void events.push(`${name} shutdown`),
    ...more,
  });

describe("starting", () => {
  test("hands each handler its collaborators and its own configuration only", async () => {
    await using contracts = await Contracts.make();
    const seen: { container?: Container | undefined; config?: unknown } = {};
    const metadata = { transport: { default_host: "a", default_port: 1 } };
    await contracts.handler(
      "one",
      {
        construct: (container) => (seen.container = container),
        initialize: (config) => void (seen.config = config),
      },
      { metadata },
    );
    let other: unknown;
    await contracts.handler("other", { initialize: (config) => void (other = config) });
    const env = { HANDLER_OTHER_LEVEL: "3", HANDLER_ONE_X: "9" };
    await using host = await startedHost(contracts, {
      env,
      handlers: { one: { config: { port: 2, extra: true } } },
    });
    expect(seen.config).toEqual({ host: "a", port: 2, extra: true });
    expect(other).toEqual({ level: 3 });
    expect(seen.container).toMatchObject({ bus: host.bus, env });
    expect(seen.container?.log).toBeDefined();
    expect(seen.container?.clock).toBeDefined();
  });

  test("is idempotent: calls together and later share one start", async () => {
    await using contracts = await Contracts.make();
    const initialize = vi.fn();
    await contracts.handler("one", { initialize });
    await using made = makeHost(contracts);
    await Promise.all([made.host.start(), made.host.start()]);
    await made.host.start();
    expect(initialize).toHaveBeenCalledTimes(1);
    expect(made.host.state.kind).toBe("running");
    expect(made.host.handler("one")?.handlerType).toBe("test");
    expect(made.host.handler("none")).toBeUndefined();
  });

  test("where a required handler fails, undoes all in reverse and rejects with one error", async () => {
    await using contracts = await Contracts.make();
    const events: string[] = [];
    const record = recorder(events);
    await contracts.handler("a", record("a"));
    await contracts.handler("b", record("b"));
    await contracts.handler(
      "c",
      record("c", {
        initialize: () => {
          throw new ProtocolConfigurationError("port 8090 on 127.0.0.1 is taken");
        },
      }),
    );
    await contracts.handler("d", record("d"));
    await using made = makeHost(contracts, { handlers: { c: required } });
    const failed = made.host.start();
    await expect(failed).rejects.toThrow(
      "The runtime host could not start: required handler c did not start: port 8090 on 127.0.0.1 is taken",
    );
    await expect(failed).rejects.toBeInstanceOf(RuntimeHostError);
    expect(events).toEqual(["a initialize", "b initialize", "b shutdown", "a shutdown"]);
    expect(made.host.state.kind).toBe("failed");
    expect(made.bus.health().healthy).toBe(false);
    await expect(made.host.start()).rejects.toThrow(/failed and cannot be started again/);
    expect(await made.host.stop()).toEqual({ forced: false });
  });

  test("where another handler fails, goes on without it, degraded, with the reason", async () => {
    await using contracts = await Contracts.make();
    const shutdown = vi.fn();
    const fail = () => {
      throw new Error("no disk");
    };
    await contracts.handler("bad", { initialize: fail, shutdown });
    await contracts.handler("bad-too", { initialize: fail });
    await contracts.handler("broken", {}, { handler_class: "./broken.mjs#Gone" });
    await contracts.handler("good");
    const handlers = { "bad-too": { required: false, config: {} } };
    await using host = await startedHost(contracts, { handlers });
    const health = await host.host.health();
    expect(health.status).toBe("degraded");
    expect(health.details.failed_handlers).toEqual({
      bad: "no disk",
      "bad-too": "no disk",
      broken: expect.stringContaining("HANDLER_LOADER_011"),
    });
    expect((await host.host.ready()).ready).toBe(true);
    await host.host.stop();
    expect(shutdown).not.toHaveBeenCalled();
  });

  test("a handler that lacks its environment is skipped, which is not degraded", async () => {
    await using contracts = await Contracts.make();
    const initialize = vi.fn();
    await contracts.handler("cloud", { initialize }, { activation: { required_env: ["CLOUD_TOKEN"] } });
    await contracts.handler("good");
    await using host = await startedHost(contracts, { handlers: { cloud: required } });
    const ready = await host.host.ready();
    expect(ready).toMatchObject({ status: "healthy", ready: true });
    expect(ready.details.skipped_handlers.cloud).toContain("CLOUD_TOKEN");
    expect(initialize).not.toHaveBeenCalled();
  });

  test.each([
    [
      "no contract declares it",
      async () => undefined,
      /required handler greet: it is configured, but no handler contract declares proto\.greet; looked at .*handler_contract\.yaml below/,
    ],
    [
      "its class does not load",
      async (contracts: Contracts) => await contracts.handler("greet", {}, { handler_class: "a.b.C" }),
      /required handler greet: HANDLER_LOADER_010.*module#Export/,
    ],
    [
      "its contract is broken",
      async (contracts: Contracts) => await contracts.write("greet/handler_contract.yaml", "name: ["),
      /proto\.greet.*greet\/handler_contract\.yaml: HANDLER_LOADER_002/,
    ],
  ])("a configured handler is required: %s", async (_what, prepare, message) => {
    await using contracts = await Contracts.make();
    await contracts.handler("good");
    await prepare(contracts);
    await using made = makeHost(contracts, { handlers: { greet: required } });
    await expect(made.host.start()).rejects.toThrow(message);
  });

  test("a handler that is configured as not required may be missing altogether", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("good");
    await using host = await startedHost(contracts, { handlers: { greet: { required: false, config: {} } } });
    expect((await host.host.health()).details.failed_handlers.greet).toContain("proto.greet");
  });

  test("without any handler it fails and says where it looked and why", async () => {
    await using contracts = await Contracts.make();
    await using empty = makeHost(contracts);
    await expect(empty.host.start()).rejects.toThrow(
      new RegExp(`no handler could be started; looked at .*handler_contract.yaml below ${contracts.dir}`),
    );
    await contracts.handler("bad", {
      initialize: () => {
        throw new Error("no disk");
      },
    });
    await using bad = makeHost(contracts);
    await expect(bad.host.start()).rejects.toThrow(/bad: no disk/);
    await using absent = makeHost(contracts, { contractsDir: `${contracts.dir}/absent` });
    await expect(absent.host.start()).rejects.toThrow(/HANDLER_LOADER_020/);
  });

  test("a bus that does not start is the error, and no handler is touched", async () => {
    await using contracts = await Contracts.make();
    const construct = vi.fn();
    await contracts.handler("one", { construct });
    const bus = new MemoryBus();
    bus.start = async () => {
      throw new Error("no broker");
    };
    await using made = makeHost(contracts, { bus });
    await expect(made.host.start()).rejects.toThrow("could not start: no broker");
    expect(construct).not.toHaveBeenCalled();
  });

  test("a handler that hangs while a start is undone does not hang it", async () => {
    await using contracts = await Contracts.make();
    const events: string[] = [];
    const record = recorder(events);
    await contracts.handler("a", record("a"));
    await contracts.handler("b", record("b", { shutdown: never }));
    await contracts.handler("c", { initialize: () => Promise.reject(new Error("no disk")) });
    await using made = makeHost(contracts, { handlers: { c: required } });
    await expect(made.host.start()).rejects.toThrow("no disk");
    expect(events).toEqual(["a initialize", "b initialize", "a shutdown"]);
    // A failed start is to end the process within this time.
  }, 5_000);

  test("the load report is logged: every file, with what became of it", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("good");
    await contracts.write("bad/handler_contract.yaml", "name: [");
    const { log, lines } = collectingLog();
    await using host = await startedHost(contracts, { log });
    const text = lines.map((line) => `${line.level} ${line.message}`).join("\n");
    expect(text).toMatch(/error Handler contract bad\/handler_contract\.yaml: HANDLER_LOADER_002/);
    expect(text).toMatch(/info Handler contract good\/handler_contract\.yaml loaded/);
    expect((await host.host.health()).details.load_report?.entries).toHaveLength(2);
  });

  test.each([
    [{ inputTopic: "same", outputTopic: "same" }, /input_topic and output_topic are both "same"/],
    [{ inputTopic: "a b" }, /input_topic: expected .*got "a b"/],
    [{ outputTopic: "" }, /output_topic: expected/],
    [
      { shutdown: { drainTimeoutSeconds: 30, handlerTimeoutSeconds: 10, gracePeriodSeconds: 40 } },
      /grace_period_seconds must exceed .*\(40\), got 40/,
    ],
  ])("options that contradict one another are a configuration error: %j", (options, message) => {
    expect(() => makeHost(undefined, options)).toThrow(ProtocolConfigurationError);
    expect(() => makeHost(undefined, options)).toThrow(message);
  });
});

describe("stopping", () => {
  test("lets what runs and what the bus had taken finish, refuses new calls, then shuts down", async () => {
    await using contracts = await Contracts.make();
    const events: string[] = [];
    const gate = Promise.withResolvers<undefined>();
    await contracts.handler("work", {
      execute: async ({ payload }) => {
        events.push(`run ${String(payload.n)}`);
        await gate.promise;
        return payload.n;
      },
      shutdown: () => void events.push("shutdown"),
    });
    await using host = await startedHost(contracts, { maxConcurrency: 1 });
    for (const n of [1, 2, 3]) await host.send({ operation: "work.x", payload: { n } });
    const direct = host.host.handle({ operation: "work.x", payload: { n: 4 } });
    await vi.waitFor(() => expect(events.length).toBe(1));
    const stopping = host.host.stop();
    expect(host.host.state.kind).toBe("draining");
    expect(await host.host.ready()).toMatchObject({ ready: false, reasons: ["the host is draining"] });
    expect((await host.host.handle({ operation: "work.x" })).error).toMatchObject({
      message: expect.stringContaining("the host is draining"),
      retryable: true,
    });
    gate.resolve(undefined);
    expect(await stopping).toEqual({ forced: false });
    expect((await direct).payload).toBe(4);
    expect(
      host
        .answers()
        .map((answer) => answer.payload)
        .toSorted(),
    ).toEqual([1, 2, 3]);
    expect(events.at(-1)).toBe("shutdown");
    expect(host.host.state.kind).toBe("stopped");
    expect(host.bus.health().healthy).toBe(false);
  });

  test("waits for calls that did not come from the bus as well", async () => {
    await using contracts = await Contracts.make();
    const gate = Promise.withResolvers<undefined>();
    const began = Promise.withResolvers<undefined>();
    let open = true;
    await contracts.handler("work", {
      execute: async () => {
        began.resolve(undefined);
        await gate.promise;
        return open;
      },
      shutdown: () => void (open = false),
    });
    await using host = await startedHost(contracts);
    const answer = host.host.handle({ operation: "work.x" });
    await began.promise;
    const stopping = host.host.stop();
    await new Promise((resolve) => setImmediate(resolve));
    gate.resolve(undefined);
    expect((await answer).payload).toBe(true);
    await stopping;
  });

  test("says that it is stopping while handlers shut down", async () => {
    await using contracts = await Contracts.make();
    const began = Promise.withResolvers<undefined>();
    const gate = Promise.withResolvers<undefined>();
    await contracts.handler("one", {
      shutdown: async () => {
        began.resolve(undefined);
        await gate.promise;
      },
    });
    await using host = await startedHost(contracts);
    const stopping = host.host.stop();
    await began.promise;
    expect((await host.host.ready()).reasons).toEqual(["the host is stopping"]);
    gate.resolve(undefined);
    await stopping;
  });

  test("aborts what is still pending when the drain timeout is over, and answers it", async () => {
    await using contracts = await Contracts.make();
    const began = Promise.withResolvers<AbortSignal>();
    const bus = new MemoryBus();
    const publish = bus.publish.bind(bus);
    // As over a network: publishing takes a while.
    bus.publish = async (topic, message) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      await publish(topic, message);
    };
    let answeredAtShutdown = -1;
    await contracts.handler("stuck", {
      execute: async (_envelope, { signal }) => {
        began.resolve(signal);
        return await never();
      },
      shutdown: () => void (answeredAtShutdown = bus.history("responses").length),
    });
    const shutdown = { drainTimeoutSeconds: 0.05, handlerTimeoutSeconds: 1, gracePeriodSeconds: 8 };
    await using host = await startedHost(contracts, { bus, shutdown, maxConcurrency: 1 });
    await host.send({ operation: "stuck.x", correlation_id: "c-1" });
    await host.send({ operation: "stuck.x", correlation_id: "c-2" });
    const signal = await began.promise;
    expect(await host.host.stop()).toEqual({ forced: false });
    expect(signal.aborted).toBe(true);
    expect(answeredAtShutdown).toBe(2);
    expect(
      host
        .answers()
        .map((answer) => [answer.correlation_id, answer.error?.retryable])
        .toSorted(),
    ).toEqual([
      ["c-1", true],
      ["c-2", true],
    ]);
  });

  test("shuts handlers down by priority: higher first, equal ones together", async () => {
    await using contracts = await Contracts.make();
    const events: string[] = [];
    const both = Promise.withResolvers<undefined>();
    const of = (name: string, priority: number, shutdown?: () => Promise<void>): Behaviour => ({
      shutdownPriority: () => priority,
      shutdown: async () => {
        events.push(`${name} begins`);
        await shutdown?.();
        events.push(`${name} ends`);
      },
    });
    await contracts.handler("a", of("a", 1));
    await contracts.handler(
      "b",
      of("b", 10, () => both.promise),
    );
    await contracts.handler(
      "c",
      of("c", 10, async () => both.resolve(undefined)),
    );
    await contracts.handler("d", of("d", -5));
    const { log, lines } = collectingLog();
    await using host = await startedHost(contracts, { log });
    await host.host.stop();
    expect(lines.filter((line) => line.level !== "info")).toEqual([]);
    expect(events.slice(0, 2)).toEqual(["b begins", "c begins"]);
    expect(events.slice(2, 4).toSorted()).toEqual(["b ends", "c ends"]);
    expect(events.slice(4)).toEqual(["a begins", "a ends", "d begins", "d ends"]);
  });

  test("passes over a handler that hangs or throws, and says so", async () => {
    await using contracts = await Contracts.make();
    const events: string[] = [];
    const record = recorder(events);
    await contracts.handler("hangs", { shutdown: never, shutdownPriority: () => 3 });
    await contracts.handler("throws", {
      shutdownPriority: () => {
        throw new Error("no priority");
      },
      shutdown: () => {
        throw new Error("cannot stop");
      },
    });
    await contracts.handler("last", record("last", { shutdownPriority: () => -1 }));
    const { log, lines } = collectingLog();
    const shutdown = { drainTimeoutSeconds: 1, handlerTimeoutSeconds: 0.05, gracePeriodSeconds: 8 };
    await using host = await startedHost(contracts, { log, shutdown });
    expect(await host.host.stop()).toEqual({ forced: false });
    expect(events).toEqual(["last initialize", "last shutdown"]);
    const text = lines.map((line) => line.message).join("\n");
    expect(text).toMatch(/hangs did not shut down within 0\.05 s/);
    expect(text).toMatch(/throws failed to shut down: cannot stop/);
    expect(text).toMatch(/throws: shutdownPriority failed/);
  });

  test("is forced when the grace period is over: everything is destroyed", async () => {
    await using contracts = await Contracts.make();
    // Three groups that hang, one after the other, take longer than the grace period allows.
    for (const [index, type] of ["a", "b", "c"].entries()) {
      await contracts.handler(type, { shutdown: never, shutdownPriority: () => index });
    }
    const shutdown = { drainTimeoutSeconds: 0.01, handlerTimeoutSeconds: 0.1, gracePeriodSeconds: 0.15 };
    await using host = await startedHost(contracts, { shutdown });
    const destroy = vi.spyOn(host.bus, "destroy");
    expect(await host.host.stop()).toEqual({ forced: true });
    expect(destroy).toHaveBeenCalledTimes(1);
    expect(await host.host.stop()).toEqual({ forced: true });
    expect(host.host.state.kind).toBe("stopped");
  });

  test("ends also where bus and unsubscribing hang", async () => {
    await using contracts = await Contracts.make();
    const shutdownOfOne = vi.fn();
    await contracts.handler("one", { shutdown: shutdownOfOne });
    const bus = new MemoryBus();
    bus.close = never;
    bus.destroy = never;
    bus.subscribe = async () => never;
    const shutdown = { drainTimeoutSeconds: 0.01, handlerTimeoutSeconds: 0.01, gracePeriodSeconds: 0.05 };
    const made = makeHost(contracts, { bus, shutdown });
    await made.host.start();
    expect(await made.host.stop()).toEqual({ forced: true });
    // What goes on behind it does not bring the host back.
    await vi.waitFor(() => expect(shutdownOfOne).toHaveBeenCalled(), 10_000);
    expect(made.host.state.kind).toBe("stopped");
  });

  test("is idempotent: calls together and later get the same outcome", async () => {
    await using contracts = await Contracts.make();
    const shutdown = vi.fn();
    await contracts.handler("one", { shutdown });
    await using host = await startedHost(contracts);
    expect(await Promise.all([host.host.stop(), host.host.stop()])).toEqual([
      { forced: false },
      { forced: false },
    ]);
    expect(await host.host.stop()).toEqual({ forced: false });
    expect(shutdown).toHaveBeenCalledTimes(1);
    await expect(host.host.start()).rejects.toThrow(/stopped and cannot be started again/);
  });

  test("before a start ends it for good", async () => {
    await using contracts = await Contracts.make();
    await using made = makeHost(contracts);
    expect(await made.host.stop()).toEqual({ forced: false });
    await expect(made.host.start()).rejects.toThrow(/stopped/);
  });

  test("during a start gives it up: also a handler whose initialize hangs is shut down", async () => {
    await using contracts = await Contracts.make();
    const events: string[] = [];
    const record = recorder(events);
    const began = Promise.withResolvers<undefined>();
    await contracts.handler("a", record("a"));
    await contracts.handler(
      "b",
      record("b", {
        initialize: async () => {
          began.resolve(undefined);
          return await never();
        },
      }),
    );
    await contracts.handler("c", record("c"));
    await using made = makeHost(contracts);
    const starting = made.host.start();
    starting.catch(() => undefined);
    await began.promise;
    expect(await made.host.stop()).toEqual({ forced: false });
    await expect(starting).rejects.toThrow("stopped while it started");
    expect(events).toEqual(["a initialize", "b shutdown", "a shutdown"]);
  });

  test("a hundred starts and stops leave no timer or handle behind", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("one");
    const count = (): number =>
      process.getActiveResourcesInfo().filter((kind) => kind === "Timeout" || kind.startsWith("FS")).length;
    const before = count();
    for (let cycle = 0; cycle < 100; cycle += 1) {
      const made = makeHost(contracts);
      await made.host.start();
      await made.host.handle({ operation: "one.x" });
      await made.host.stop();
    }
    await vi.waitFor(() => expect(count()).toBeLessThanOrEqual(before));
  });
});
