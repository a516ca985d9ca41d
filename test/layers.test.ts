import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import {
  containmentComplaints,
  cycleComplaints,
  dependencyComplaints,
  environmentComplaints,
  extensionComplaints,
  layerComplaints,
  layerRows,
  lengthComplaints,
  parseSource,
  readSources,
  type Containment,
  type LayerTable,
} from "./source-files.ts";

/** The same table is in docs/architecture.md. */
// prettier-ignore
const table: LayerTable = {
  core:         [],
  contract:     ["core"],
  resilience:   ["core"],
  tools:        ["core"],
  bus:          ["core", "resilience"],
  discovery:    ["core", "contract", "resilience", "tools", "bus"],
  execution:    ["core", "resilience", "tools"],
  runtime:      ["core", "contract", "bus", "resilience", "tools"],
  mcp:          ["core", "tools"],
  http:         ["core", "tools"],
  admin:        ["core", "tools"],
  handlers:     ["core", "contract", "tools", "resilience", "bus", "runtime", "execution", "mcp", "http", "gateway.ts"],
  config:       ["core", "contract", "resilience", "tools", "bus", "discovery", "execution", "runtime", "mcp", "http", "admin", "handlers", "gateway.ts"],
  "gateway.ts": ["core", "contract", "resilience", "tools", "bus", "discovery", "execution", "mcp", "http", "admin"],
  // The command line is where a process is put together: it hands the host its bus, its routes and its module loader.
  cli:          ["core", "contract", "tools", "bus", "discovery", "execution", "runtime", "mcp", "http", "admin", "handlers", "config", "gateway.ts"],
  "index.ts":   "anything",
};

const containment: readonly Containment[] = [
  { packages: /^@modelcontextprotocol\//, onlyIn: ["mcp/"] },
  { packages: /^(hono|@hono\/.*)$/, onlyIn: ["gateway.ts", "admin/", "http/"] },
  { packages: /^kafkajs$/, onlyIn: ["bus/kafka*"] },
  { packages: /^consul$/, onlyIn: ["discovery/"] },
];

const root = new URL("../", import.meta.url);
const files = readSources(fileURLToPath(new URL("src/", root)));
const manifest = JSON.parse(readFileSync(new URL("package.json", root), "utf8")) as {
  dependencies: Record<string, string>;
};

describe("the source", () => {
  it("was found", () => {
    expect(files.map((file) => file.path)).toContain("core/errors.ts");
    expect(files.flatMap((file) => file.imports).length).toBeGreaterThan(files.length);
  });

  it("imports only what the layer table allows", () => {
    expect(layerComplaints(files, table)).toEqual([]);
  });

  it("has no cycle of imports between its files", () => {
    expect(cycleComplaints(files)).toEqual([]);
  });

  it("names every file it imports with the .ts extension", () => {
    expect(extensionComplaints(files)).toEqual([]);
  });

  it("keeps each foreign library in its place", () => {
    expect(containmentComplaints(files, containment)).toEqual([]);
  });

  it("imports no package that an installation would lack", () => {
    expect(dependencyComplaints(files, manifest.dependencies)).toEqual([]);
  });

  it("reads the environment in one file only", () => {
    expect(environmentComplaints(files, "config/load.ts")).toEqual([]);
  });

  it("has no file of more than 500 lines", () => {
    expect(lengthComplaints(files, 500)).toEqual([]);
  });
});

it("no test file has more than 500 lines", () => {
  const tests = readSources(fileURLToPath(new URL("test/", root)));
  expect(tests.map((file) => file.path)).toContain("layers.test.ts");
  expect(lengthComplaints(tests, 500)).toEqual([]);
});

const architecture = new URL("docs/architecture.md", root);

it.runIf(existsSync(architecture))(
  "the layer table in docs/architecture.md is the one that is tested",
  () => {
    const expected = Object.entries(table).map(([layer, allowed]) => [
      layer,
      allowed === "anything" ? allowed : allowed.join(", ") || "nothing",
    ]);
    expect(layerRows(readFileSync(architecture, "utf8"))).toEqual(expected);
  },
);

describe("the rules", () => {
  const file = (path: string, text: string) => parseSource(path, text);

  it("see every form of import and no import in a comment or a text", () => {
    const forms = `
      import a from "./a.ts"; import type { B } from "./b.ts"; import c, { type C } from "./c.ts"; import "./d.ts";
      export * from "./e.ts"; export * as f from "./f.ts"; export type { G } from "./g.ts"; export { h } from "./h.ts";
      const i = await import("./i.ts"); type J = import("./j.ts").J; type K = typeof import("./k.ts");
      // import "./x.ts"
      const text = 'import "./y.ts"'; export const z = 1;`;
    expect(file("core/forms.ts", forms).imports.join(" ")).toBe(
      "./a.ts ./b.ts ./c.ts ./d.ts ./e.ts ./f.ts ./g.ts ./h.ts ./i.ts ./j.ts ./k.ts",
    );
  });

  it("complain about an import against the table, of types too, and about a folder without a row", () => {
    const complaints = layerComplaints(
      [
        file("core/a.ts", 'import type { Tool } from "../tools/tool.ts";'),
        file("http/a.ts", 'import "../core/a.ts"; import "./b.ts"; export * from "../mcp/front.ts";'),
        file("tools/a.ts", 'const gateway = await import("../gateway.ts");'),
        file("index.ts", 'export * from "./mcp/front.ts";'),
        file("utils/a.ts", ""),
      ],
      table,
    );
    expect(complaints).toEqual([
      "core/a.ts imports tools/tool.ts: core may import nothing",
      "http/a.ts imports mcp/front.ts: http may import core, tools",
      "tools/a.ts imports gateway.ts: tools may import core",
      "utils/a.ts: utils has no row in the table",
    ]);
  });

  it("complain about a cycle, with the way round, and not about a file that only leads to one", () => {
    const complaints = cycleComplaints([
      file("core/start.ts", 'import "./a.ts";'),
      file("core/a.ts", 'import "./b.ts"; import "./leaf.ts";'),
      file("core/b.ts", 'import type { C } from "./c.ts";'),
      file("core/c.ts", 'import "./a.ts";'),
      file("core/leaf.ts", ""),
      file("core/self.ts", 'import "./self.ts";'),
    ]);
    expect(complaints).toEqual([
      "a cycle: core/a.ts -> core/b.ts -> core/c.ts -> core/a.ts",
      "a cycle: core/b.ts -> core/c.ts -> core/a.ts -> core/b.ts",
      "a cycle: core/c.ts -> core/a.ts -> core/b.ts -> core/c.ts",
      "a cycle: core/self.ts -> core/self.ts",
    ]);
  });

  it("complain about a relative import without .ts, or out of the source", () => {
    const complaints = extensionComplaints([
      file("core/a.ts", 'import "./b"; import "./b.js"; import "./b.ts"; import "../../test/x.ts";'),
      file("core/b.ts", ""),
    ]);
    expect(complaints).toEqual(
      ["./b", "./b.js", "../../test/x.ts"].map((name) => `core/a.ts imports "${name}": no such .ts file`),
    );
  });

  it("complain about a library out of its place or out of package.json", () => {
    const sources = [
      file(
        "execution/a.ts",
        'import type { Hono } from "hono/types"; import { Server } from "@modelcontextprotocol/server";',
      ),
      file(
        "http/a.ts",
        'import { serve } from "@hono/node-server"; import { Kafka } from "kafkajs"; import "node:fs";',
      ),
      file("bus/kafka.ts", 'import { Kafka } from "kafkajs";'),
    ];
    expect(containmentComplaints(sources, containment)).toEqual([
      "execution/a.ts imports hono: only gateway.ts, admin/, http/ may",
      "execution/a.ts imports @modelcontextprotocol/server: only mcp/ may",
      "http/a.ts imports kafkajs: only bus/kafka* may",
    ]);
    expect(
      dependencyComplaints(sources.slice(0, 2), {
        "@modelcontextprotocol/server": "2",
        "@hono/node-server": "2",
        hono: "4",
      }),
    ).toEqual(["http/a.ts imports kafkajs, which package.json does not have as a dependency"]);
  });

  it.each([
    "const a = process.env.HOME;",
    'const a = process["env"];',
    "const a = globalThis.process.env;",
    "const { env } = process;",
    "const { env: a } = process;",
    'import { env } from "node:process";',
    'import { env as a } from "process";',
  ])("complain about an environment read as %s", (text) => {
    expect(environmentComplaints([file("core/a.ts", text)], "config/load.ts")).toHaveLength(1);
    expect(environmentComplaints([file("config/load.ts", text)], "config/load.ts")).toEqual([]);
  });

  it.each([
    "// process.env",
    'const a = "process.env";',
    "const a = container.env;",
    "const { env } = container;",
    'import { env } from "./process.ts";',
  ])("do not complain about %s", (text) => {
    expect(environmentComplaints([file("core/a.ts", text)], "config/load.ts")).toEqual([]);
  });

  it("are read from the right table of a document", () => {
    const markdown = [
      "| folder | owns |",
      "| --- | --- |",
      "| core | errors |",
      "",
      "| folder       | may import  |",
      "| ------------ | ----------- |",
      "| `core`       | nothing     |",
      "| `gateway.ts` | core, tools |",
      "",
      "| other | table |",
    ].join("\n");
    expect(layerRows(markdown)).toEqual([
      ["core", "nothing"],
      ["gateway.ts", "core, tools"],
    ]);
    expect(layerRows("no table")).toEqual([]);
  });

  it("complain about a long file", () => {
    expect(lengthComplaints([file("core/a.ts", "\n".repeat(2) + "x\n")], 2)).toEqual([
      "core/a.ts has 3 lines: at most 2",
    ]);
  });
});
