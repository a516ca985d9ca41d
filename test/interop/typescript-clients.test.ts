import { readFile, writeFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { sdk1, sdk2, type InteropClient } from "./clients.ts";
import { serveSamples, type Samples } from "./samples.ts";

const clients = {
  "SDK 1.x": sdk1,
  "SDK 2.x legacy": sdk2("legacy"),
  "SDK 2.x 2026-07-28": sdk2("modern"),
};

let samples: Samples;

beforeAll(async () => {
  samples = await serveSamples();
});

afterAll(async () => {
  await samples[Symbol.asyncDispose]();
});

describe.each(Object.entries(clients))("%s", (client, connect) => {
  describe.each(["http", "stdio"] as const)("over %s", (transport) => {
    const titled = (title: string) => `${client} over ${transport}: ${title}`;
    let open: InteropClient;

    beforeEach(async () => {
      open = await connect(samples.targets[transport]);
    });

    afterEach(() => open.close());

    it(titled("lists the tools across pages"), async () => {
      expect(await open.pages()).toEqual([
        ["get_order", "greet", "hang"],
        ["quote_shipping", "text_statistics", "wait"],
      ]);
    });

    it(titled("calls each sample"), async () => {
      expect(await open.call("text_statistics", { text: "One. Two three." })).toMatchObject({
        structuredContent: { words: 3, sentences: 2 },
      });
      expect(await open.call("get_order", { order_id: "A-1001", currency: "USD" })).toMatchObject({
        structuredContent: { order_id: "A-1001", state: "shipped", currency: "USD", total: 65.89 },
      });
      expect(await open.call("quote_shipping", { weight_kg: 2, country: "DE" })).toMatchObject({
        structuredContent: { price: 6.4, days: 4 },
      });
      expect(await open.call("wait", { seconds: 0.01 })).toMatchObject({
        content: [{ type: "text", text: "Waited 0.01 s." }],
      });
    });

    it(titled("bad arguments are an error result that names the path and what was expected"), async () => {
      const result = await open.call("quote_shipping", { weight_kg: "two", country: "DE" });
      expect(result).toMatchObject({ isError: true });
      expect(JSON.stringify(result["content"])).toMatch(/weight_kg.*number/);
    });

    it(titled("an unknown tool is a protocol error -32602"), async () => {
      await expect(open.call("no_such_tool", {})).rejects.toMatchObject({ code: -32602 });
    });

    it(titled("progress arrives while the call runs"), async () => {
      const seen: number[] = [];
      await open.call("wait", { seconds: 0.2 }, { onprogress: ({ progress }) => seen.push(progress) });
      // The answer may overtake the last notification on its way through a client.
      expect(seen.slice(0, 9)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    });

    it(titled("a cancelled call ends in the runtime"), async () => {
      const notes = samples.notes();
      const cancel = new AbortController();
      const call = open.call(
        "hang",
        { file: notes.file },
        { signal: cancel.signal, onprogress: () => undefined },
      );
      call.catch(() => undefined);
      await expect.poll(notes.read).toBe("started ");
      cancel.abort(new Error("changed my mind"));
      await expect(call).rejects.toThrow();
      await expect.poll(notes.read).toBe("started aborted ");
    });

    it(titled("an edit of a contract is one list_changed, and the list is the new one"), async () => {
      let changes = 0;
      await open.pages();
      await open.onToolsChanged(() => (changes += 1));
      const file = samples.contract;
      const before = await readFile(file, "utf8");
      await writeFile(file, before.replace("tool_name: wait", "tool_name: pause"));
      try {
        await expect.poll(() => changes, { timeout: 10_000 }).toBe(1);
        expect((await open.pages()).flat()).toContain("pause");
      } finally {
        await writeFile(file, before);
      }
      await expect.poll(() => changes, { timeout: 10_000 }).toBe(2);
      expect((await open.pages()).flat()).toContain("wait");
    });
  });
});
