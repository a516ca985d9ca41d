import { expect, describe, it, onTestFinished, vi } from "vitest";
import type { Front } from "../../src/mcp/front.ts";
import { textResult, type CallTool } from "../../src/tools/call.ts";
import { catalogOf, makeTool, put } from "../support/tools.ts";
import { call, makeFront, modernHeaders, modernMeta, send } from "./requests.ts";

describe("calls", () => {
  const inBothEras = async (front: Front, params: object): Promise<string[]> => {
    const older = await send(front, call(1, "tools/call", { name: "a", ...params }));
    const meta = { ...modernMeta, ...(params as any)._meta };
    const modern = await send(front, call(1, "tools/call", { name: "a", ...params, _meta: meta }), {
      headers: modernHeaders("tools/call", "a"),
    });
    return [await older.text(), await modern.text()];
  };

  it("an executor that breaks its promise is an internal error that says no more", async () => {
    const broken: CallTool = () => Promise.reject(new Error("/secret/path"));
    for (const answer of await inBothEras(makeFront(catalogOf(makeTool("a")), { call: broken }), {})) {
      expect(JSON.parse(answer)).toMatchObject({ id: 1, error: { code: -32603, message: "Internal error" } });
    }
  });

  it("progress goes out where it increases, and nothing goes out after the answer", async () => {
    const { promise: reported, resolve } = Promise.withResolvers<undefined>();
    const tool: CallTool = async ({ onProgress, onLog }) => {
      for (const done of [1, 1, 0.5, NaN, 2]) onProgress?.({ done, total: Infinity });
      setImmediate(() => {
        onProgress?.({ done: 3 });
        onLog?.("error", "late");
        resolve(undefined);
      });
      return textResult("done");
    };
    const front = makeFront(catalogOf(makeTool("a")), { call: tool });
    const answers = await inBothEras(front, { _meta: { progressToken: 0 } });
    await reported;
    for (const answer of answers) {
      expect(answer.match(/"progressToken":0,.*?\}/g)).toEqual([
        '"progressToken":0,"progress":1}',
        '"progressToken":0,"progress":2}',
      ]);
      expect(answer).not.toContain("late");
    }
  });

  it("a long call of a service gives signs of life, where the client asked for progress", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    onTestFinished(() => void vi.useRealTimers());
    const release: (() => void)[] = [];
    const slow: CallTool = () => new Promise((resolve) => release.push(() => resolve(textResult("done"))));
    const execution = { kind: "rest", method: "GET", url: "http://127.0.0.1:9" } as const;
    const front = makeFront(catalogOf(makeTool("a", { execution, timeoutSeconds: 12 })), { call: slow });
    const answers = inBothEras(front, { _meta: { progressToken: "p" } });
    for (let era = 0; era < 2; era++) {
      await expect.poll(() => release.length).toBe(era + 1);
      vi.advanceTimersByTime(15_500);
      release[era]?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (const answer of await answers) {
      expect(answer.match(/"progress":.*?\}/g)).toEqual([
        '"progress":5,"total":12,"message":"waiting for a (5 s)"}',
        '"progress":10,"total":12,"message":"waiting for a (10 s)"}',
        '"progress":15,"message":"waiting for a (15 s)"}',
      ]);
    }
    vi.advanceTimersByTime(60_000);
    const quiet = inBothEras(front, {});
    for (let era = 2; era < 4; era++) {
      await expect.poll(() => release.length).toBe(era + 1);
      vi.advanceTimersByTime(10_000);
      release[era]?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (const answer of await quiet) expect(answer).not.toContain("progress");
  });

  it("a request of 2026-07-28 gets log messages only where it names a level, from that level on", async () => {
    const tool: CallTool = async ({ onLog }) => {
      onLog?.("info", "quiet");
      onLog?.("error", "loud");
      return textResult("done");
    };
    const front = makeFront(catalogOf(makeTool("a")), { call: tool });
    const [, silent] = await inBothEras(front, {});
    expect(silent).not.toMatch(/quiet|loud/);
    const level = "io.modelcontextprotocol/logLevel";
    const [, errors] = await inBothEras(front, { _meta: { [level]: "error" } });
    expect(errors).toContain("loud");
    expect(errors).not.toContain("quiet");
    const [, refused] = await inBothEras(front, { _meta: { [level]: "shout" } });
    expect(JSON.parse(refused ?? "")).toMatchObject({ id: 1, error: { code: -32602 } });
  });

  it("a result that is no object is wrapped for older clients, as its schema is", async () => {
    const outputSchema = { type: "array", items: { type: "string" } };
    const catalog = catalogOf(makeTool("a", { outputSchema }));
    const tool: CallTool = async () => {
      // Another version, whose schema says nothing of the answer that is on its way.
      put(catalog, makeTool("a", { revision: "2" }));
      return { content: [], structuredContent: ["x"], isError: false };
    };
    const front = makeFront(catalog, { call: tool });
    const list = await (await send(front, call(1, "tools/list"))).json();
    expect((list as any).result.tools[0].outputSchema).toEqual({
      type: "object",
      properties: { result: outputSchema },
      required: ["result"],
    });
    const [older, modern] = (await inBothEras(front, {})).map((text) => JSON.parse(text).result);
    expect(older.structuredContent).toEqual({ result: ["x"] });
    expect(modern.structuredContent).toEqual(["x"]);
    for (const result of [older, modern]) expect(result.content).toEqual([{ type: "text", text: '["x"]' }]);
  });

  it("a wrapped object stays wrapped when its schema changes while the call runs", async () => {
    const catalog = catalogOf(
      makeTool("a", { outputSchema: { anyOf: [{ type: "object" }, { type: "null" }] } }),
    );
    const tool: CallTool = async () => {
      put(catalog, makeTool("a", { revision: "2" }));
      return { content: [], structuredContent: { x: 1 }, isError: false };
    };
    const answer = await send(makeFront(catalog, { call: tool }), call(1, "tools/call", { name: "a" }));
    expect(((await answer.json()) as any).result.structuredContent).toEqual({ result: { x: 1 } });
  });

  it("a long call is kept alive by comments in both eras, and becomes a stream", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    onTestFinished(() => void vi.useRealTimers());
    const { promise: gate, resolve } = Promise.withResolvers<undefined>();
    let running = 0;
    const tool: CallTool = async () => {
      running += 1;
      await gate;
      return textResult("done");
    };
    const front = makeFront(catalogOf(makeTool("a")), { call: tool });
    const older = send(front, call(1, "tools/call", { name: "a" }));
    const modern = send(front, call(1, "tools/call", { name: "a", _meta: modernMeta }), {
      headers: modernHeaders("tools/call", "a"),
    });
    await expect.poll(() => running).toBe(2);
    vi.advanceTimersByTime(15_000);
    for (const answer of await Promise.all([older, modern]))
      expect(answer.headers.get("content-type")).toBe("text/event-stream");
    resolve(undefined);
    for (const answer of [await older, await modern])
      expect(await answer.text()).toMatch(/^: keepalive\n\n(.|\n)*"result"/);
  });
});
