import { collectingLog } from "../support/log.ts";
import { describe, expect, test } from "vitest";
import { CancelledError, RuntimeHostError } from "../../src/core/errors.ts";
import { callOf, executorOf, folder, never, textOf, toolOf } from "./helpers.ts";

describe("local modules", () => {
  const localTool = (module: string, name = "default") => toolOf({ kind: "local", module, export: name });

  test("run by export name and see the context", async () => {
    const dir = folder({
      "tool.ts": `export async function greet({ name }: { name: string }, context: { correlationId: string }) {
        return { hello: name, id: context.correlationId };
      }`,
    });
    const result = await executorOf([localTool(dir.file("tool.ts"), "greet")]).call(
      callOf({ name: "Ann" }),
      never,
    );
    expect(result.structuredContent).toEqual({ hello: "Ann", id: "corr-1" });
  });

  test("answer with content blocks made by onex-runtime", async () => {
    const dir = folder({
      "tool.ts": `import { content } from "onex-runtime";
        export default () => content([{ type: "text", text: "one" }, { type: "image", data: "aGk=", mimeType: "image/png" }]);`,
    });
    const result = await executorOf([localTool(dir.file("tool.ts"))]).call(callOf(), never);
    expect(result.content.map(({ type }) => type)).toEqual(["text", "image"]);
  });

  test("an edit takes effect on the next call, a broken one keeps the last good version", async () => {
    const { log, lines } = collectingLog();
    const dir = folder({ "tool.mjs": "export default () => 'one';" });
    const executor = executorOf([localTool(dir.file("tool.mjs"))], { log });
    const run = async () => textOf(await executor.call(callOf(), never));
    expect(await run()).toBe("one");
    dir.write("tool.mjs", "export default () => 'two';");
    expect(await run()).toBe("two");
    dir.write("tool.mjs", "export default () => {");
    expect([await run(), await run()]).toEqual(["two", "two"]);
    expect(lines.filter(({ level }) => level === "error")).toHaveLength(1);
  });

  test.each([
    [
      "is empty",
      "",
      /^tool\.mjs has no export "run"; it exports nothing; its last good version stays in use/,
    ],
    [
      "lacks the export",
      "export const ran = () => 3;",
      /^tool\.mjs has no export "run"; it exports "ran"; did/,
    ],
    [
      "makes the export no function",
      "export const run = 3;",
      /^"run" of tool\.mjs is not a function but number/,
    ],
  ])("an edit that %s keeps the last good function until one that has it", async (_what, edit, message) => {
    const { log, lines } = collectingLog();
    const dir = folder({ "tool.mjs": "export const run = () => 'one';" });
    const executor = executorOf([localTool(dir.file("tool.mjs"), "run")], { log });
    const run = async () => textOf(await executor.call(callOf(), never));
    const errors = () => lines.filter(({ level }) => level === "error").map((line) => line.message);
    expect(await run()).toBe("one");
    dir.write("tool.mjs", edit);
    expect([await run(), await run(), await run()]).toEqual(["one", "one", "one"]);
    expect(errors()).toEqual([expect.stringMatching(message)]);
    dir.write("tool.mjs", "export const run = (");
    expect([await run(), await run()]).toEqual(["one", "one"]);
    expect(errors()).toHaveLength(2);
    dir.write("tool.mjs", "export const run = () => 'two';");
    expect(await run()).toBe("two");
    dir.write("tool.mjs", edit);
    expect(await run()).toBe("two");
    expect(errors()).toHaveLength(3);
  });

  test.each<[string, Record<string, string>, string, string]>([
    [
      "an export that is not there lists those that are",
      { "tool.mjs": "export const greet = () => 1; export const bye = () => 2;" },
      "gret",
      'tool.mjs has no export "gret"; it exports "bye", "greet"; did you mean "greet"?',
    ],
    [
      "an export that is no function says what it is",
      { "tool.mjs": "export const greet = 1;" },
      "greet",
      '"greet" of tool.mjs is not a function but number',
    ],
    [
      "a module that does not load names the file and the reason",
      { "tool.mjs": "throw new Error('no licence');" },
      "greet",
      "The module tool.mjs could not be loaded: Error: no licence (tool.mjs:1)",
    ],
    [
      "an inherited name is no export",
      { "tool.mjs": "export {};" },
      "toString",
      'tool.mjs has no export "toString"; it exports nothing',
    ],
  ])("%s", async (_what, files, name, text) => {
    const dir = folder(files);
    const result = await executorOf([localTool(dir.file("tool.mjs"), name)]).call(callOf(), never);
    expect(textOf(result)).toBe(text);
    expect(result.failure).toBeInstanceOf(RuntimeHostError);
  });

  test("a call that was given up while the module loads never runs the function", async () => {
    const state = globalThis as { onexTestRan?: boolean; onexTestGate?: PromiseWithResolvers<undefined> };
    state.onexTestGate = Promise.withResolvers<undefined>();
    const dir = folder({
      "tool.mjs":
        "await globalThis.onexTestGate.promise; export default () => { globalThis.onexTestRan = true; };",
    });
    const client = new AbortController();
    const executor = executorOf([localTool(dir.file("tool.mjs"))]);
    const given = executor.call(callOf(), client.signal);
    client.abort();
    expect((await given).failure).toBeInstanceOf(CancelledError);
    state.onexTestGate.resolve(undefined);
    const { loadModule } = await import("../../src/execution/modules.ts");
    await loadModule(dir.file("tool.mjs"));
    expect(state.onexTestRan).toBeUndefined();
  });
});
