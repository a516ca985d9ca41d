import { describe, expect, it } from "vitest";
import { catalogOf, makeTool } from "../support/tools.ts";
import { call, makeFront, send } from "./requests.ts";

describe("tools/list", () => {
  it("shows title, icons and hints under the protocol's names", async () => {
    const tool = makeTool("a", {
      title: "A",
      icons: [{ src: "https://example.com/a.png", mimeType: "image/png", sizes: ["48x48"] }],
      annotations: { readOnly: true, destructive: false, idempotent: true, openWorld: false },
    });
    const answer = (await (await send(makeFront(catalogOf(tool)), call(1, "tools/list"))).json()) as any;
    expect(answer.result.tools).toEqual([
      {
        name: "a",
        title: "A",
        description: "The tool a.",
        inputSchema: { type: "object" },
        annotations: {
          readOnlyHint: true,
          destructiveHint: false,
          idempotentHint: true,
          openWorldHint: false,
        },
        icons: [{ src: "https://example.com/a.png", mimeType: "image/png", sizes: ["48x48"] }],
      },
    ]);
  });

  it.each(["", "e30", Buffer.from('{"after":5}').toString("base64url"), "\u0000", "W10"])(
    "the cursor %j, which this runtime did not make, is -32602",
    async (cursor) => {
      const answer = await send(makeFront(catalogOf(makeTool("a"))), call(1, "tools/list", { cursor }));
      expect(await answer.json()).toMatchObject({ error: { code: -32602, message: "Invalid cursor" } });
    },
  );
});

describe("pages", () => {
  it("every tool is on exactly one page, and a cursor outlives a change of the list", async () => {
    const names = Array.from({ length: 25 }, (_, index) => `tool-${String(index).padStart(2, "0")}`);
    const catalog = catalogOf(...names.map((name) => makeTool(name)));
    const front = makeFront(catalog, { pageSize: 10 });
    const page = async (cursor?: string) => {
      const response = await send(front, call(1, "tools/list", cursor === undefined ? {} : { cursor }));
      return ((await response.json()) as any).result as { tools: { name: string }[]; nextCursor?: string };
    };
    const first = await page();
    expect(first.tools.map((tool) => tool.name)).toEqual(names.slice(0, 10));
    catalog.apply("test", { put: [], remove: ["tool-09", "tool-20"] });
    const second = await page(first.nextCursor);
    expect(second.tools.map((tool) => tool.name)).toEqual(names.slice(10, 20));
    const third = await page(second.nextCursor);
    expect(third.tools.map((tool) => tool.name)).toEqual(names.slice(21));
    expect(third.nextCursor).toBeUndefined();
  });
});
