/** Tools and catalogs for tests. */
import { Catalog } from "../../src/tools/catalog.ts";
import type { Tool } from "../../src/tools/tool.ts";

const answer = (): string => "done";

/** A tool of source `handler`, with what a test needs changed. */
export function makeTool(name: string, changes: Partial<Tool> = {}): Tool {
  return {
    name,
    description: `The tool ${name}.`,
    version: "1.0.0",
    inputSchema: { type: "object" },
    annotations: {},
    tags: [],
    execution: { kind: "function", fn: answer },
    source: "handler",
    owner: name,
    revision: "1",
    ...changes,
  };
}

/** Puts tools into a catalog under one source. */
export function put(catalog: Catalog, ...tools: readonly Tool[]): void {
  catalog.apply("test", { put: tools.map((tool) => ({ key: tool.name, tool })), remove: [] });
}

export function catalogOf(...tools: readonly Tool[]): Catalog {
  const catalog = new Catalog({ maxTools: 100_000 });
  put(catalog, ...tools);
  return catalog;
}
