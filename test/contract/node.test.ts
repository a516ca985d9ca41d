import { describe, expect, test } from "vitest";
import { z } from "zod";
import type { LoadEntry } from "../../src/contract/load.ts";
import { type NodeContract, nodeContractSchema } from "../../src/contract/node.ts";
import { scanNodes } from "../../src/contract/node-scan.ts";
import { type Folder, tempFolder } from "./folder.ts";
import { nodeContract, type NodeWish } from "./nodes.ts";

interface Read {
  readonly entry: LoadEntry;
  readonly contract: NodeContract | undefined;
}

type Options = { readonly env?: Record<string, string>; readonly exposeNodeTypes?: string[] };

async function readIn(folder: Folder, options: Options = {}): Promise<Read> {
  const scan = await scanNodes({ directory: folder.path, env: {}, ...options });
  const [entry] = scan.entries;
  expect(scan.entries).toHaveLength(1);
  return { entry: entry!, contract: scan.contracts.get(entry!.path) };
}

async function read(text: string, options: Options = {}): Promise<Read> {
  await using folder = await tempFolder();
  await folder.write("a/contract.yaml", text);
  return await readIn(folder, options);
}

const readWish = (wish: NodeWish, options?: Options): Promise<Read> => read(nodeContract(wish), options);
const readExecution = (execution: unknown, options?: Options): Promise<Read> =>
  readWish({ mcp: { execution } }, options);

describe("what is exposed", () => {
  test.each(["ORCHESTRATOR_GENERIC", "orchestrator", "MyOrchestratorNode"])("node_type %s", async (type) => {
    expect((await readWish({ node_type: type })).entry).toMatchObject({ outcome: "loaded", name: "weather" });
  });

  test.each([
    ["no mcp section", '{"name": "weather", "node_type": "ORCHESTRATOR"}', "no mcp section"],
    ["expose is absent", nodeContract({ mcp: { expose: undefined } }), "mcp.expose is not true"],
    ["expose is false", nodeContract({ mcp: { expose: false } }), "mcp.expose is not true"],
    [
      "another node type",
      nodeContract({ node_type: "EFFECT" }),
      "node_type EFFECT contains none of ORCHESTRATOR",
    ],
  ])("%s: skipped, and the report says why", async (_, text, reason) => {
    const { entry, contract } = await read(text);
    expect(entry).toMatchObject({ outcome: "skipped", reason: expect.stringContaining(reason) });
    expect(contract).toBeUndefined();
  });

  test("exposeNodeTypes widens it, in any case; an empty type widens nothing", async () => {
    const wish = { node_type: "EFFECT_GENERIC" };
    expect((await readWish(wish, { exposeNodeTypes: ["effect"] })).entry.outcome).toBe("loaded");
    expect((await readWish(wish, { exposeNodeTypes: [""] })).entry.outcome).toBe("skipped");
  });

  test("what is not exposed is not judged", async () => {
    expect(
      (await readWish({ node_version: 7, mcp: { expose: false, timeout_seconds: -1 } })).entry.outcome,
    ).toBe("skipped");
  });
});

describe("a contract", () => {
  test("gives a complete tool", async () => {
    const { contract, entry } = await readWish({
      node_version: { major: 1, minor: 2, patch: 3 },
      contract_version: "9.9.9",
      inputs: { anything: [1] },
      mcp: {
        tool_name: "city_weather",
        title: "Weather",
        description: "Weather of a city.",
        timeout_seconds: 5,
        annotations: { read_only: true, destructive: false, idempotent: true, open_world: false },
        icons: [{ src: "https://example.com/i.png", mime_type: "image/png", sizes: ["48x48"] }],
        tags: ["weather"],
        output_schema: { type: "array" },
      },
    });
    expect(entry).toEqual({
      path: "a/contract.yaml",
      kind: "node",
      name: "weather",
      tool: "city_weather",
      outcome: "loaded",
    });
    expect(contract).toEqual({
      path: "a/contract.yaml",
      toolName: "city_weather",
      title: "Weather",
      description: "Weather of a city.",
      version: "1.2.3",
      timeoutSeconds: 5,
      annotations: { readOnly: true, destructive: false, idempotent: true, openWorld: false },
      icons: [{ src: "https://example.com/i.png", mimeType: "image/png", sizes: ["48x48"] }],
      tags: ["weather"],
      inputSchema: { type: "object", properties: { city: { type: "string" } } },
      outputSchema: { type: "array" },
      execution: { kind: "rest", method: "GET", url: "http://127.0.0.1:1/{city}" },
    });
  });

  test("has defaults: the node's name and description, version 0.0.0, any object as input", async () => {
    const { contract } = await readWish({ mcp: { input_schema: undefined } });
    expect(contract).toMatchObject({
      toolName: "weather",
      description: "Says how the weather is.",
      version: "0.0.0",
      tags: [],
      inputSchema: { type: "object" },
    });
    expect((await readWish({ contract_version: "4.5.6" })).contract?.version).toBe("4.5.6");
  });

  test("never has an empty description", async () => {
    const { contract, entry } = await readWish({ description: "  ", mcp: { description: "" } });
    expect(contract?.description).toBe("The tool weather.");
    expect(entry.informational?.join()).toContain("no description");
  });

  test("has a name that every client takes, stable and unique where it was cut", async () => {
    const long = "x".repeat(70);
    const names = await Promise.all(
      ["wea ther/v1", `${long}a`, `${long}b`, "天气", "天", "ok.name-1_"].map(
        async (name) => (await readWish({ name })).contract!.toolName,
      ),
    );
    expect(names[0]).toBe("wea_ther_v1");
    expect(names[5]).toBe("ok.name-1_");
    expect(new Set(names).size).toBe(6);
    for (const name of names) expect(name).toMatch(/^[A-Za-z0-9_.-]{1,64}$/);
    const again = await readWish({ name: `${long}a` });
    expect(again.contract?.toolName).toBe(names[1]);
    expect(again.entry.informational?.join()).toContain(`is served as ${names[1]!}`);
  });

  test("keys without a value count as absent, one tag need not be a list", async () => {
    const { contract } = await readWish({
      node_version: null,
      mcp: { title: null, annotations: { read_only: null }, tags: "weather" },
    });
    expect(contract).toMatchObject({ version: "0.0.0", annotations: {}, tags: ["weather"] });
    expect(contract).not.toHaveProperty("title");
  });

  test("unknown keys inside mcp are reported with the nearest known one; outside they are the node's own", async () => {
    const { entry } = await readWish({
      descripton: "the node's own",
      mcp: { timeout_second: 4, annotations: { readonly: true }, colour: "red" },
    });
    expect(entry).toMatchObject({
      outcome: "loaded",
      informational: [
        "mcp.timeout_second: unknown key, ignored; did you mean timeout_seconds?",
        "mcp.colour: unknown key, ignored",
        "mcp.annotations.readonly: unknown key, ignored; did you mean read_only?",
      ],
    });
  });

  test("an icon that could run code is left out and reported", async () => {
    const icons = [
      { src: "javascript:alert(1)" },
      { src: "file:///etc/passwd" },
      { src: "data:image/png;base64,AA==" },
    ];
    const { contract, entry } = await readWish({ mcp: { icons } });
    expect(contract?.icons.map((icon) => icon.src)).toEqual(["data:image/png;base64,AA=="]);
    expect(entry.informational).toHaveLength(2);
  });
});

describe("what is wrong with a contract", () => {
  test("is listed whole, each with its path and value", async () => {
    const { entry, contract } = await readWish({
      name: 5,
      node_version: 1,
      mcp: {
        timeout_seconds: 900,
        annotations: { read_only: "yes" },
        icons: [{ src: 1 }],
        execution: { kind: "rest", url: "x", method: "FETCH" },
      },
    });
    expect(contract).toBeUndefined();
    expect(entry).toMatchObject({ outcome: "failed", code: "HANDLER_LOADER_003" });
    for (const part of [
      "name: ",
      "got 5",
      "node_version: ",
      "got 1",
      "mcp.timeout_seconds: ",
      "got 900",
      "mcp.annotations.read_only: ",
      'got "yes"',
      "mcp.icons[0].src: ",
      "mcp.execution.method: ",
      'got "FETCH"',
    ]) {
      expect(entry.reason).toContain(part);
    }
  });

  test("is told as missing fields, code 004, where nothing else is wrong", async () => {
    const { entry } = await readWish({
      name: undefined,
      node_type: undefined,
      mcp: { execution: undefined },
    });
    expect(entry).toMatchObject({ outcome: "failed", code: "HANDLER_LOADER_004" });
    expect(entry.reason).toBe("name: is missing; node_type: is missing; mcp.execution: is missing");
  });

  test.each([
    ["an empty file", "", "the file is empty"],
    ["a list", "- a", 'got ["a"]'],
    ["mcp as text", "mcp: yes", 'mcp: expected an object, got "yes"'],
    ["expose as text", nodeContract({ mcp: { expose: "yes" } }), 'mcp.expose: expected boolean, got "yes"'],
    [
      "a schema that cannot be mended",
      nodeContract({ mcp: { input_schema: { type: "string" } } }),
      "mcp.input_schema: the root's type must be object",
    ],
    [
      "an output schema that is none",
      nodeContract({ mcp: { output_schema: { type: "strin" } } }),
      "mcp.output_schema: /type must be",
    ],
  ])("%s", async (_, text, reason) => {
    const { entry } = await read(text);
    expect(entry).toMatchObject({ outcome: "failed", code: "HANDLER_LOADER_003" });
    expect(entry.reason).toContain(reason);
  });

  test("two contracts that want one name: the first by path is told of, the other says so", async () => {
    await using folder = await tempFolder();
    await folder.write("b/contract.yaml", nodeContract());
    await folder.write("a/contract.yaml", nodeContract());
    const { entries } = await scanNodes({ directory: folder.path, env: {} });
    expect(entries[0]).not.toHaveProperty("informational");
    expect(entries[1]?.informational?.join()).toContain("belongs to a/contract.yaml");
  });
});

describe("execution", () => {
  test("onex: one endpoint or several, path with a default", async () => {
    const one = await readExecution({ kind: "onex", endpoint: "http://a:1/base" });
    expect(one.contract?.execution).toEqual({ kind: "onex", endpoints: ["http://a:1/base"], path: "/" });
    const two = await readExecution({
      kind: "onex",
      endpoints: ["http://a:1", "https://[::1]:2"],
      path: "run",
    });
    expect(two.contract?.execution).toEqual({
      kind: "onex",
      endpoints: ["http://a:1", "https://[::1]:2"],
      path: "/run",
    });
  });

  test("onex: without endpoints the instances of a service are called, which may be named", async () => {
    const named = await readExecution({ kind: "onex", service: "${SERVICE:-orders}", path: "/run" });
    expect(named.contract?.execution).toEqual({
      kind: "onex",
      endpoints: [],
      path: "/run",
      service: "orders",
    });
    const unnamed = await readExecution({ kind: "onex" });
    expect(unnamed.contract?.execution).toEqual({ kind: "onex", endpoints: [], path: "/" });
  });

  test("bus: a topic is enough; the reply topic is named after it", async () => {
    const short = await readExecution({ kind: "bus", topic: "${TOPIC:-orders}.in" });
    expect(short.contract?.execution).toEqual({
      kind: "bus",
      topic: "orders.in",
      replyTopic: "orders.in.replies",
    });
    const whole = await readExecution({
      kind: "bus",
      topic: "a",
      reply_topic: "b",
      key: "{id}",
      operation: "orders.create",
    });
    expect(whole.contract?.execution).toEqual({
      kind: "bus",
      topic: "a",
      replyTopic: "b",
      key: "{id}",
      operation: "orders.create",
    });
  });

  test("rest: everything it can have", async () => {
    const execution = {
      kind: "rest",
      method: "POST",
      url: "https://a/x/{city}?u={unit}",
      query: { q: "{city}", n: [1, true] },
      headers: { "X-Key": "k", "X-Number": 5 },
      body: { deep: ["{city}", null] },
      result: "/data/0",
    };
    const { contract } = await readExecution(execution);
    expect(contract?.execution).toEqual({ ...execution, headers: { "X-Key": "k", "X-Number": "5" } });
  });

  test.each([
    ["no kind", {}, "mcp.execution.kind: is missing"],
    ["an unknown kind", { kind: "grpc" }, "expected one of local, onex, rest, bus"],
    ["the kind upstream", { kind: "upstream" }, "the kind upstream is not available in this release"],
    [
      "onex with a service and an endpoint",
      { kind: "onex", service: "orders", endpoint: "http://a" },
      "mcp.execution.service: names a service and endpoints; give one of them",
    ],
    ["bus without topic", { kind: "bus" }, "mcp.execution.topic: is missing"],
    [
      "a topic with a slash",
      { kind: "bus", topic: "a/b" },
      "mcp.execution.topic: expected the name of a topic",
    ],
    ["the topic ..", { kind: "bus", topic: ".." }, "mcp.execution.topic: expected the name of a topic"],
    [
      "a topic too long for its replies",
      { kind: "bus", topic: "t".repeat(245) },
      "mcp.execution.reply_topic: expected the name of a topic",
    ],
    ["replies on the topic itself", { kind: "bus", topic: "a", reply_topic: "a" }, "is the topic itself"],
    ["an operation without a verb", { kind: "bus", topic: "a", operation: "go" }, "expected <type>.<verb>"],
    ["a relative endpoint", { kind: "onex", endpoint: "/x" }, "absolute http or https URL"],
    ["another scheme", { kind: "rest", url: "file:///etc/passwd" }, "absolute http or https URL"],
    ["an endpoint with port 0", { kind: "onex", endpoint: "http://127.0.0.1:0" }, "endpoint: has port 0"],
    [
      "one of several with port 0",
      { kind: "onex", endpoints: ["http://a:1", "http://a:00/x"] },
      "has port 0",
    ],
    ["a URL with port 0", { kind: "rest", url: "https://a:0/{city}" }, "url: has port 0"],
    ["an endpoint with a query", { kind: "onex", endpoint: "http://a/?x=1" }, "neither query nor fragment"],
    ["a path that names a host", { kind: "onex", endpoint: "http://a", path: "//evil/x" }, "expected a path"],
    ["a placeholder as host", { kind: "rest", url: "http://{host}/x" }, "not in the server's name"],
    ["a placeholder as port", { kind: "rest", url: "http://a:{port}/x" }, "not in the server's name"],
    ["a brace left open", { kind: "rest", url: "http://a/{city" }, "not part of a {placeholder}"],
    ["credentials in a URL", { kind: "rest", url: "http://me:secret@a/" }, "give them in a header"],
    [
      "a bad header name",
      { kind: "rest", url: "http://a", headers: { "a b": "x" } },
      "not a valid header name",
    ],
    [
      "a header with a line break",
      { kind: "rest", url: "http://a", headers: { a: "x\r\nb: y" } },
      "cannot carry",
    ],
    [
      "a header of the connection",
      { kind: "rest", url: "http://a", headers: { Connection: "x" } },
      "set by the runtime",
    ],
    ["a result that is no pointer", { kind: "rest", url: "http://a", result: "data" }, "JSON pointer"],
  ])("%s is refused", async (_, execution, reason) => {
    const { entry } = await readExecution(execution);
    expect(entry.outcome).toBe("failed");
    expect(entry.reason).toContain(reason);
    expect(entry.reason).not.toContain("secret");
  });

  test("an unknown key of an execution is reported", async () => {
    const { entry } = await readExecution({ kind: "rest", url: "http://a", heders: {} });
    expect(entry.informational).toEqual([
      "mcp.execution.heders: unknown key, ignored; did you mean headers?",
    ]);
  });

  describe("local", () => {
    test("the module is found relative to the contract", async () => {
      await using folder = await tempFolder();
      await folder.write(
        "a/contract.yaml",
        nodeContract({ mcp: { execution: { kind: "local", module: "../lib/m.ts", export: "run" } } }),
      );
      await folder.write("lib/m.ts", "export const run = 1;");
      expect((await readIn(folder)).contract?.execution).toEqual({
        kind: "local",
        module: folder.at("lib/m.ts"),
        export: "run",
      });
    });

    test.each([
      ["absent", "./none.ts", "does not exist"],
      ["no ES module", "./m.cjs", "must be an ES module"],
      ["a folder", "./folder.ts", "is not a file"],
      ["outside the directory", "../../outside.ts", "leads out"],
      ["outside by a link", "./link.ts", "leads out"],
      ["outside by an absolute path", "/bin/x.js", "does not exist"],
    ])("a module that is %s is refused", async (_, module, reason) => {
      await using folder = await tempFolder();
      await folder.write(
        "c/a/contract.yaml",
        nodeContract({ mcp: { execution: { kind: "local", module } } }),
      );
      await folder.write("outside.ts", "");
      await folder.write("c/a/folder.ts/x", "");
      await folder.write("c/a/m.cjs", "");
      await folder.link("../../outside.ts", "c/a/link.ts");
      const { entries } = await scanNodes({ directory: folder.at("c"), env: {} });
      expect(entries[0]).toMatchObject({ outcome: "failed", reason: expect.stringContaining(reason) });
      expect(entries[0]?.reason).toMatch(/^mcp\.execution\.module: /);
    });
  });
});

describe("environment variables", () => {
  test("expand in every text of mcp.execution, and nowhere else", async () => {
    const { contract } = await readWish(
      {
        description: "costs ${PRICE}",
        mcp: {
          execution: {
            kind: "rest",
            url: "${API}/x",
            headers: { A: "Bearer ${KEY:-none}" },
            body: ["${KEY:-b}"],
          },
        },
      },
      { env: { API: "http://api:1" } },
    );
    expect(contract).toMatchObject({
      description: "costs ${PRICE}",
      execution: { url: "http://api:1/x", headers: { A: "Bearer none" }, body: ["b"] },
    });
  });

  test("that are missing are named with their place, all at once", async () => {
    const { entry } = await readExecution({ kind: "rest", url: "${API}/x", headers: { A: "${KEY}" } });
    expect(entry.outcome).toBe("failed");
    expect(entry.reason).toContain("mcp.execution.url: the environment variable API is not set");
    expect(entry.reason).toContain("mcp.execution.headers.A: the environment variable KEY is not set");
  });

  test("never show their value in a problem", async () => {
    const env = { KEY: "hunter2\n", URL: "ftp://hunter2", METHOD: "hunter2" };
    const { entry } = await readExecution(
      { kind: "rest", url: "${URL}", method: "${METHOD}", headers: { A: "${KEY}" } },
      { env },
    );
    expect(entry.outcome).toBe("failed");
    expect(entry.reason).not.toContain("hunter2");
    const other = await readExecution({ kind: "rest", url: "${URL}", headers: { A: "${KEY}" } }, { env });
    expect(other.entry.reason).toContain("mcp.execution.headers.A");
    expect(other.entry.reason).not.toContain("hunter2");
  });
});

test("the schema has a JSON Schema, for editors", () => {
  const schema = z.toJSONSchema(nodeContractSchema, { io: "input" });
  expect(schema).toMatchObject({ type: "object", required: ["name", "node_type", "mcp"] });
  expect(JSON.stringify(schema)).toContain("open_world");
});
