import { collectingLog } from "../support/log.ts";
import { describe, expect, test, vi } from "vitest";
import {
  CancelledError,
  InfraTimeoutError,
  InfraUnavailableError,
  ProtocolConfigurationError,
  RuntimeHostError,
  ToolNotFoundError,
} from "../../src/core/errors.ts";
import { Executor } from "../../src/execution/executor.ts";
import type { Progress, ToolContext, ToolLogLevel } from "../../src/tools/tool.ts";
import {
  callOf,
  connectionsTo,
  executorOf,
  functionTool,
  json,
  never,
  once,
  service,
  snapshotOf,
  textOf,
  toolOf,
} from "./helpers.ts";

/** A tool that says when it runs and never returns, whatever its signal says. */
function stuckTool(timeoutSeconds?: number) {
  const started = Promise.withResolvers<ToolContext>();
  const tool = functionTool(
    (_input: unknown, context: ToolContext) => {
      started.resolve(context);
      return new Promise(() => {});
    },
    timeoutSeconds === undefined ? {} : { timeoutSeconds },
  );
  return { tool, started: started.promise };
}

describe("a call", () => {
  test("of a function gets its arguments and answers with what it returns", async () => {
    const executor = executorOf([functionTool(({ a, b }: { a: number; b: number }) => ({ sum: a + b }))]);
    expect(await executor.call(callOf({ a: 1, b: 2 }), never)).toEqual({
      content: [{ type: "text", text: '{"sum":3}' }],
      structuredContent: { sum: 3 },
      isError: false,
    });
  });

  test("of an unknown tool is a failure that cannot be retried", async () => {
    const result = await executorOf([]).call(callOf(), never);
    expect(result).toMatchObject({ isError: true });
    expect(result.failure).toBeInstanceOf(ToolNotFoundError);
    expect(result.failure?.retryable).toBe(false);
    expect(textOf(result)).toBe("Unknown tool: sample");
  });

  test("with bad arguments never reaches the tool, and its failure's message holds no values", async () => {
    const fn = vi.fn();
    const inputSchema = { type: "object", properties: { city: { type: "string" } } };
    const result = await executorOf([functionTool(fn, { inputSchema })]).call(callOf({ city: 42 }), never);
    expect(textOf(result)).toBe('Invalid arguments for "sample": /city: expected string, got number (42)');
    expect(result.failure).toBeInstanceOf(ProtocolConfigurationError);
    expect(result.failure?.message).toBe('Invalid arguments for "sample" at /city');
    expect(fn).not.toHaveBeenCalled();
  });

  test("of a tool with an unusable schema is a failure that says so", async () => {
    const tool = functionTool(() => 1, { inputSchema: { $ref: "#/$defs/none" } });
    const result = await executorOf([tool]).call(callOf(), never);
    expect(result.failure).toBeInstanceOf(RuntimeHostError);
    expect(textOf(result)).toContain('The input schema of "sample" cannot be used');
  });

  test("that meets an error of nobody's making is a failure: its words are for the log, not for the client", async () => {
    const { log, lines } = collectingLog();
    const snapshot = () => {
      throw new Error("cannot open /srv/secret/catalog");
    };
    const result = await new Executor({ snapshot, timeoutSeconds: 1, log }).call(callOf(), never);
    expect(result.failure).toBeInstanceOf(RuntimeHostError);
    expect(textOf(result)).toBe("The operation failed.");
    expect(lines[0]?.message).toContain("/srv/secret/catalog");
  });

  test("sees the snapshot of its moment", async () => {
    let snapshot = snapshotOf();
    const executor = new Executor({ snapshot: () => snapshot, timeoutSeconds: 1 });
    expect((await executor.call(callOf(), never)).failure).toBeInstanceOf(ToolNotFoundError);
    snapshot = snapshotOf(functionTool(() => "here"));
    expect(textOf(await executor.call(callOf(), never))).toBe("here");
    await executor.close();
  });
});

describe("the output schema", () => {
  const outputSchema = { type: "object", properties: { temp: { type: "number" } }, required: ["temp"] };
  const answer = async (fn: () => unknown) =>
    executorOf([functionTool(fn, { outputSchema })]).call(callOf(), never);

  test("lets conforming content pass", async () => {
    expect(await answer(() => ({ temp: 1 }))).toMatchObject({
      structuredContent: { temp: 1 },
      isError: false,
    });
  });

  test.each<[string, () => unknown, string]>([
    ["another type", () => ({ temp: "abc" }), '/temp: expected number, got string ("abc")'],
    ["a missing member", () => ({}), 'missing required property "temp"'],
    ["text", () => "abc", 'expected object, got string ("abc")'],
    ["nothing", () => undefined, "there is no structured content"],
  ])("turns %s into an error that names it, without the content", async (_what, fn, reason) => {
    const result = await answer(fn);
    expect(textOf(result)).toBe(
      `The tool "sample" answered something its output schema does not allow: ${reason}`,
    );
    expect(result.failure).toBeInstanceOf(RuntimeHostError);
    expect(result.structuredContent).toBeUndefined();
  });

  test("does not apply to a tool's own error", async () => {
    const result = await answer(() => {
      throw new Error("no such city");
    });
    expect(result).toEqual({ content: [{ type: "text", text: "no such city" }], isError: true });
  });
});

describe("a tool that misbehaves answers with an error, and the next call works", () => {
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  const wrong: Record<string, () => unknown> = {
    throws: () => {
      throw new Error("out of paper");
    },
    rejects: () => Promise.reject(new Error("out of ink")),
    "throws null": () => {
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- tools do
      throw null;
    },
    "throws text": () => {
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- tools do
      throw "just text";
    },
    "returns a cycle": () => cycle,
    "returns a BigInt": () => 10n,
    "returns 50 MB": () => "x".repeat(50_000_000),
  };
  test.each<[string, string]>([
    ["throws", "out of paper"],
    ["rejects", "out of ink"],
    ["throws null", "null"],
    ["throws text", "just text"],
    ["returns a cycle", "a cycle at $.self"],
    ["returns a BigInt", "a BigInt at $"],
    ["returns 50 MB", "the limit is 10485760 bytes"],
  ])("%s", async (how, text) => {
    const executor = executorOf([functionTool(({ ok }: { ok?: boolean }) => (ok ? "fine" : wrong[how]?.()))]);
    const result = await executor.call(callOf(), never);
    expect(result.isError).toBe(true);
    expect(textOf(result)).toContain(text);
    expect(textOf(await executor.call(callOf({ ok: true }), never))).toBe("fine");
    expect(executor.active).toBe(0);
  });

  test("its message is shown, without stack, absolute paths and addresses", async () => {
    const { readFile } = await import("node:fs/promises");
    const { connect } = await import("node:net");
    const answer = async (fn: () => unknown) =>
      textOf(await executorOf([functionTool(fn)]).call(callOf(), never));
    expect(await answer(() => readFile("/srv/secret/config.json"))).toBe(
      "ENOENT: no such file or directory, open 'config.json'",
    );
    expect(
      await answer(() => new Promise((_resolve, reject) => connect(1, "127.0.0.1").on("error", reject))),
    ).toBe("connect ECONNREFUSED the server");
    expect(
      await answer(() => {
        throw new Error("bad\n    at run (/home/me/tool.ts:1:1)");
      }),
    ).toBe("bad");
    expect(
      await answer(() => {
        throw new Error("GET /users/42 failed, see file:///home/me/tool.ts?v=0123456789abcdef");
      }),
    ).toBe("GET /users/42 failed, see tool.ts");
  });
});

describe("the deadline", () => {
  test("answers for a tool that never returns and aborts its signal", async () => {
    const { tool, started } = stuckTool(0.02);
    const executor = executorOf([tool]);
    const result = await executor.call(callOf(), never);
    expect(result.failure).toBeInstanceOf(InfraTimeoutError);
    expect(result.failure?.facts.timeout_seconds).toBe(0.02);
    expect(textOf(result)).toBe('The tool "sample" took longer than 0.02 s.');
    const { signal } = await started;
    expect(signal.reason).toBe(result.failure);
    expect(executor.active).toBe(0);
  });

  test("is the runtime's where the tool has none", async () => {
    const result = await executorOf([stuckTool().tool], { timeoutSeconds: 0.02 }).call(callOf(), never);
    expect(result.failure?.facts.timeout_seconds).toBe(0.02);
  });
});

describe("cancellation", () => {
  test("answers at once though the function ignores its signal, and aborts that signal", async () => {
    const { tool, started } = stuckTool();
    const executor = executorOf([tool]);
    const client = new AbortController();
    const answer = executor.call(callOf(), client.signal);
    const { signal } = await started;
    client.abort();
    const result = await answer;
    expect(result.failure).toBeInstanceOf(CancelledError);
    expect(signal.aborted).toBe(true);
    expect(executor.active).toBe(0);
  });

  test("before the call starts never reaches the tool", async () => {
    const fn = vi.fn();
    const result = await executorOf([functionTool(fn)]).call(callOf(), AbortSignal.abort());
    expect(result.failure).toBeInstanceOf(CancelledError);
    expect(fn).not.toHaveBeenCalled();
  });

  test("drops what the function reports and returns afterwards", async () => {
    const onProgress = vi.fn();
    const onLog = vi.fn();
    const release = Promise.withResolvers<undefined>();
    const late = Promise.withResolvers<undefined>();
    const tool = functionTool(async (_input: unknown, context: ToolContext) => {
      context.progress(1);
      await release.promise;
      context.progress(2);
      context.log("info", "late");
      late.resolve(undefined);
      throw new Error("late");
    });
    const client = new AbortController();
    const answer = executorOf([tool]).call(callOf({}, { onProgress, onLog }), client.signal);
    await vi.waitFor(() => expect(onProgress).toHaveBeenCalledOnce());
    client.abort();
    expect((await answer).failure).toBeInstanceOf(CancelledError);
    release.resolve(undefined);
    await late.promise;
    expect(onProgress).toHaveBeenCalledOnce();
    expect(onLog).not.toHaveBeenCalled();
  });

  test("leaves no listener on a signal that many calls share", async () => {
    const { signal } = new AbortController();
    const add = vi.spyOn(signal, "addEventListener");
    const remove = vi.spyOn(signal, "removeEventListener");
    const executor = executorOf([functionTool(() => 1)]);
    for (let call = 0; call < 5; call++) await executor.call(callOf(), signal);
    expect(add).toHaveBeenCalledTimes(5);
    expect(remove.mock.calls.map(([, listener]) => listener)).toEqual(
      add.mock.calls.map(([, listener]) => listener),
    );
  });
});

describe("what a function reports while it runs", () => {
  const reported = async (fn: (context: ToolContext) => unknown) => {
    const progress: Progress[] = [];
    const logs: [ToolLogLevel, unknown][] = [];
    const { log, lines } = collectingLog();
    const tool = functionTool((_input: unknown, context: ToolContext) => fn(context));
    const call = callOf(
      {},
      {
        meta: { traceparent: "x" },
        onProgress: (step) => progress.push(step),
        onLog: (level, data) => logs.push([level, data]),
      },
    );
    const result = await executorOf([tool], { log }).call(call, never);
    return { progress, logs, lines, result };
  };

  test("progress reaches the caller, strictly increasing", async () => {
    const { progress } = await reported(({ progress: step }) => {
      step(1, 3, "one");
      step(1, 3, "again");
      step(0.5);
      step(2);
      step(3, 3);
    });
    expect(progress).toEqual([{ done: 1, total: 3, message: "one" }, { done: 2 }, { done: 3, total: 3 }]);
  });

  test("progress that is no number is ignored with one warning", async () => {
    const { progress, lines } = await reported(({ progress: step }) => {
      for (const bad of ["1", Number.NaN, undefined]) step(bad as number);
      step(1, "2" as never);
      step(2);
    });
    expect(progress).toEqual([{ done: 2 }]);
    expect(lines.filter(({ level }) => level === "warn")).toHaveLength(1);
  });

  test("log lines are JSON, with a known level", async () => {
    const { logs } = await reported(({ log }) => {
      log("warning", { at: new Date(0) });
      log("loud" as never, "text");
      log("error", new Error("wrong"));
      log("debug", 1n);
    });
    expect(logs).toEqual([
      ["warning", { at: "1970-01-01T00:00:00.000Z" }],
      ["info", "text"],
      ["error", "wrong"],
      ["debug", expect.stringContaining("a BigInt at $")],
    ]);
  });

  test("the context has the call's correlation id and meta", async () => {
    const { result } = await reported(({ correlationId, meta }) => ({ correlationId, meta }));
    expect(result.structuredContent).toEqual({ correlationId: "corr-1", meta: { traceparent: "x" } });
  });
});

describe("stopping", () => {
  test("close refuses new calls and lets running ones finish", async () => {
    const release = Promise.withResolvers<string>();
    const executor = executorOf([functionTool(() => release.promise)]);
    const running = executor.call(callOf(), never);
    expect(executor.active).toBe(1);
    let closed = false;
    const closing = executor.close().then(() => (closed = true));
    const refused = await executor.call(callOf(), never);
    expect(refused.failure).toBeInstanceOf(InfraUnavailableError);
    expect(textOf(refused)).toContain("draining");
    expect(closed).toBe(false);
    release.resolve("done");
    expect(textOf(await running)).toBe("done");
    await closing;
    await executor.close();
  });

  test("close gives the connections up", async () => {
    const { origin, server } = await service((_request, response) => json(response, 1));
    const executor = executorOf([toolOf({ kind: "rest", method: "GET", url: origin })]);
    await executor.call(callOf(), never);
    await executor.close();
    await vi.waitFor(async () => expect(await connectionsTo(server)).toBe(0));
  });

  test("destroy ends running calls now, and a close that waits for them", async () => {
    const { tool, started } = stuckTool();
    const executor = executorOf([tool]);
    const running = executor.call(callOf(), never);
    const { signal } = await started;
    const closing = executor.close();
    const closingAgain = executor.close();
    await executor.destroy(new Error("over"));
    expect((await running).failure).toBeInstanceOf(InfraUnavailableError);
    expect(signal.aborted).toBe(true);
    await closing;
    await closingAgain;
    await executor.destroy(new Error("again"));
    expect((await executor.call(callOf(), never)).failure).toBeInstanceOf(InfraUnavailableError);
  });
});

test("a new snapshot frees the breaker and the connections of a target that is gone, and only these", async () => {
  const [kept, gone] = await Promise.all(
    [1, 2].map(() => service((_request, response) => json(response, {}))),
  );
  const tools = [kept!, gone!].map(({ origin }, index) =>
    toolOf({ kind: "rest", method: "GET", url: `${origin}/x` }, { name: `t${index}` }),
  );
  const executor = executorOf(tools);
  for (const { name } of tools) await executor.call(callOf({}, { name }), never);
  expect([...executor.circuits.circuitStates().keys()]).toEqual([kept!.origin, gone!.origin]);
  executor.onSnapshot(snapshotOf({ ...tools[0]! }));
  expect([...executor.circuits.circuitStates().keys()]).toEqual([kept!.origin]);
  await vi.waitFor(async () => expect(await connectionsTo(gone!.server)).toBe(0));
  expect(await connectionsTo(kept!.server)).toBe(1);
});

test("failures of services and of the runtime are logged with their facts, callers' mistakes are not warnings", async () => {
  const { log, lines } = collectingLog();
  const executor = executorOf(
    [toolOf({ kind: "rest", method: "GET", url: "http://127.0.0.1:1/x" }, { name: "dead" })],
    { log, retry: once },
  );
  await executor.call(callOf({}, { name: "dead" }), never);
  await executor.call(callOf({}, { name: "unknown" }), never);
  expect(lines).toMatchObject([
    {
      level: "warn",
      fields: {
        tool: "dead",
        correlation_id: "corr-1",
        target: "http://127.0.0.1:1",
        reason: "ECONNREFUSED",
      },
      message: '[ONEX_CORE_090_NETWORK_ERROR] The service behind "dead" could not be reached.',
    },
    { level: "debug", fields: { tool: "unknown" } },
  ]);
});
