/** Operations of handlers as tools: through a running host, into a catalog, called by an executor. */
import { describe, expect, test, vi } from "vitest";
import type { Envelope } from "../../src/bus/envelope.ts";
import { ProtocolConfigurationError } from "../../src/core/errors.ts";
import { Executor } from "../../src/execution/executor.ts";
import type { Container } from "../../src/runtime/handler.ts";
import type { HostOptions } from "../../src/runtime/options.ts";
import { Catalog } from "../../src/tools/catalog.ts";
import { collectingLog } from "../support/log.ts";
import { Contracts, descriptor, startedHost, type Behaviour } from "./support.ts";

/** A handler that serves tools, as HandlerMCP does: it starts the source that its container holds. */
async function serving(contracts: Contracts, type = "front", contract: Record<string, unknown> = {}) {
  const catalog = new Catalog();
  const executor = new Executor({ snapshot: () => catalog.snapshot(), timeoutSeconds: 5 });
  let container: Container = {};
  const front: Behaviour = {
    construct: (given) => {
      container = given ?? {};
    },
    initialize: async () => await container.tools?.start((change) => catalog.apply("handlers", change)),
    shutdown: async () => {
      await executor.close();
      await container.tools?.close();
    },
    execute: async ({ payload, correlation_id: correlationId }, { signal }) =>
      await executor.call({ name: String(payload.tool), arguments: {}, correlationId }, signal),
  };
  await contracts.handler(type, front, contract);
  return {
    catalog,
    source: () => container.tools,
    names: () => catalog.snapshot().tools.map(({ name }) => name),
    call: async (name: string, args: Record<string, unknown> = {}, signal = new AbortController().signal) =>
      await executor.call({ name, arguments: args, correlationId: "c-1" }, signal),
  };
}

const exposed = (more: Record<string, unknown> = {}) => ({
  mcp: { expose: true, operation: "run", ...more },
});
const text = (value: string) => [{ type: "text", text: value }];

async function started(contracts: Contracts, more: Partial<HostOptions> = {}) {
  return await startedHost(contracts, more);
}

describe("a handler whose contract says mcp.expose", () => {
  test("is served as a tool once it runs, also to a handler that was initialized before it", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    let seen: string[] = ["not asked"];
    const initialize = () => {
      seen = front.names();
    };
    await contracts.handler("work", { initialize }, exposed({ tool_name: "do_work", tags: ["x"] }));
    await contracts.handler("quiet", {}, { mcp: { expose: false, operation: "run" } });
    await using _host = await started(contracts);
    expect(seen).toEqual([]);
    expect(front.names()).toEqual(["do_work"]);
    expect(front.catalog.snapshot().byName.get("do_work")).toMatchObject({
      source: "handler",
      owner: "effect.work.handler",
      tags: ["x"],
      version: "1.0.0",
    });
    expect(front.source()?.status()).toMatchObject({ name: "handlers", kind: "handler", state: "ready" });
  });

  test("is called by an envelope; the answer's payload is the result", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    const envelopes: Envelope[] = [];
    const execute = (envelope: Envelope) => {
      envelopes.push(envelope);
      return { sum: 3 };
    };
    await contracts.handler("work", { execute }, exposed());
    await using _host = await started(contracts);
    const result = await front.call("work_run", { a: 1, b: 2 });
    expect(result).toEqual({ content: text('{"sum":3}'), structuredContent: { sum: 3 }, isError: false });
    expect(envelopes).toEqual([
      expect.objectContaining({
        operation: "work.run",
        payload: { a: 1, b: 2 },
        correlation_id: "c-1",
        metadata: { tool_name: "work_run" },
      }),
    ]);
  });

  test("answers every call anew, however equal: no call is another one's duplicate", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    const execute = vi.fn(() => "done");
    await contracts.handler("work", { execute }, exposed());
    await using _host = await started(contracts);
    for (let time = 0; time < 3; time += 1) expect((await front.call("work_run")).isError).toBe(false);
    expect(execute).toHaveBeenCalledTimes(3);
  });

  test("an error answer is a result with isError and its public message, without code, path or stack", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    const errors = [
      new ProtocolConfigurationError("payload.a must be a number"),
      new Error(`cannot read ${contracts.dir}/secret.txt`),
    ];
    const execute = () => {
      throw errors.shift() ?? new Error("called too often");
    };
    await contracts.handler("work", { execute }, exposed());
    await using _host = await started(contracts);
    expect(await front.call("work_run")).toEqual({
      content: text("payload.a must be a number"),
      isError: true,
    });
    expect(await front.call("work_run")).toEqual({ content: text("cannot read secret.txt"), isError: true });
  });

  test("a caller who gives up aborts the handler's signal", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    const began = Promise.withResolvers<AbortSignal>();
    const execute = async (_envelope: Envelope, { signal }: { signal: AbortSignal }) => {
      began.resolve(signal);
      await new Promise(() => undefined);
    };
    await contracts.handler("work", { execute }, exposed());
    await using _host = await started(contracts);
    const caller = new AbortController();
    const call = front.call("work_run", {}, caller.signal);
    const signal = await began.promise;
    caller.abort();
    expect((await call).isError).toBe(true);
    await vi.waitFor(() => expect(signal.aborted).toBe(true));
  });
});

describe("a tool call has the policies of its handler's contract", () => {
  test("the deadline, the retries and the breaker", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    const slow = descriptor({ timeout_ms: 20 });
    await contracts.handler(
      "slow",
      { execute: () => new Promise(() => undefined) },
      { ...slow, ...exposed() },
    );
    let calls = 0;
    const flaky = () => {
      calls += 1;
      if (calls < 3) throw new Error("not now");
      return "at last";
    };
    const retry_policy = { max_retries: 2, base_delay_ms: 1, backoff_strategy: "fixed" };
    const patient = descriptor({ idempotent: true, retry_policy });
    await contracts.handler("flaky", { execute: flaky }, { ...patient, ...exposed() });
    const fragile = descriptor({ circuit_breaker: { enabled: true, failure_threshold: 1 } });
    const execute = vi.fn(() => {
      throw new Error("down");
    });
    await contracts.handler("fragile", { execute }, { ...fragile, ...exposed() });
    await using _host = await started(contracts);
    expect((await front.call("slow_run")).content).toEqual(text("slow.run took longer than 0.02 s"));
    expect((await front.call("flaky_run")).content).toEqual(text("at last"));
    await front.call("fragile_run");
    expect((await front.call("fragile_run")).content).toEqual([
      expect.objectContaining({ text: expect.stringContaining("circuit breaker") }),
    ]);
    expect(execute).toHaveBeenCalledTimes(1);
  });

  test("serialized, together with envelopes; and max_concurrency", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    let running = 0;
    let most = 0;
    const execute = async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
    };
    const one = descriptor({ concurrency_policy: "serialized" });
    await contracts.handler("one", { execute }, { ...one, ...exposed() });
    await contracts.handler("many", { execute }, exposed());
    await using host = await started(contracts, { maxConcurrency: 2 });
    await Promise.all([
      front.call("one_run"),
      host.host.handle({ operation: "one.run" }),
      front.call("one_run"),
    ]);
    expect(most).toBe(1);
    await Promise.all(Array.from({ length: 6 }, async () => await front.call("many_run")));
    expect(most).toBe(2);
  });

  test("an envelope that calls a tool does not wait for the slot that it holds itself", async () => {
    await using contracts = await Contracts.make();
    await serving(contracts);
    await contracts.handler("work", { execute: () => "done" }, exposed());
    await using host = await started(contracts, { maxConcurrency: 1 });
    const answer = await host.host.handle({ operation: "front.call", payload: { tool: "work_run" } });
    expect(answer.payload).toEqual({ content: text("done"), isError: false });
  });
});

describe("tools come and go with their handlers", () => {
  test("a handler that did not start is no tool", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    const initialize = () => {
      throw new Error("no luck");
    };
    await contracts.handler("work", { initialize }, exposed());
    await using _host = await started(contracts);
    expect(front.names()).toEqual([]);
  });

  test("while the host drains a call is refused; before the handlers stop their tools are gone", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    const gate = Promise.withResolvers<undefined>();
    let atShutdown: string[] = ["not asked"];
    await contracts.handler(
      "work",
      {
        execute: async () => await gate.promise,
        shutdown: () => {
          atShutdown = front.names();
        },
        shutdownPriority: () => 1,
      },
      exposed(),
    );
    await using host = await started(contracts);
    const pending = front.call("work_run");
    await vi.waitFor(async () => expect((await host.host.ready()).details.pending).toBe(1));
    const stopped = host.host.stop();
    const refused = await front.call("work_run");
    expect(refused).toEqual({ content: text("the host is draining"), isError: true });
    gate.resolve(undefined);
    expect((await pending).isError).toBe(false);
    await stopped;
    expect(atShutdown).toEqual([]);
  });

  test("a handler that serves tools is none itself, so no tool can call itself; the log says why", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts, "front", exposed());
    await contracts.handler("work", {}, exposed());
    const { log, lines } = collectingLog();
    await using _host = await started(contracts, { log });
    expect(front.names()).toEqual(["work_run"]);
    expect(lines.map(({ message }) => message)).toContainEqual(
      expect.stringMatching(/Handler effect\.front\.handler serves tools.*remove mcp\.expose/),
    );
  });

  test("two handlers that serve tools have the same ones, and one that closes leaves the other's alone", async () => {
    await using contracts = await Contracts.make();
    const first = await serving(contracts, "first");
    const second = await serving(contracts, "second");
    await contracts.handler("work", { execute: () => "done" }, exposed());
    await using _host = await started(contracts);
    expect([first.names(), second.names()]).toEqual([["work_run"], ["work_run"]]);
    await first.source()?.close();
    expect(first.source()?.status().state).toBe("closed");
    expect((await second.call("work_run")).content).toEqual(text("done"));
  });

  test("a handler that is initialized again while the host runs has them again", async () => {
    await using contracts = await Contracts.make();
    const front = await serving(contracts);
    await contracts.handler("work", { execute: () => "done" }, exposed());
    await using _host = await started(contracts);
    await front.source()?.close();
    const catalog = new Catalog();
    await front.source()?.start((change) => catalog.apply("handlers", change));
    expect(catalog.snapshot().tools.map(({ name }) => name)).toEqual(["work_run"]);
  });
});
