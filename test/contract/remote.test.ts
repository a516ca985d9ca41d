import { describe, expect, it } from "vitest";
import { readRemoteContract, type RemoteDefinition } from "../../src/contract/remote.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function read(text: string): RemoteDefinition {
  const reading = readRemoteContract(bytes(text));
  if (!reading.ok) throw new Error(reading.reason);
  return reading.definition;
}

function reasonOf(text: string): string {
  const reading = readRemoteContract(bytes(text));
  if (reading.ok) throw new Error(`it was taken: ${JSON.stringify(reading.definition)}`);
  return reading.reason;
}

const withMcp = (mcp: string, rest = ""): string =>
  `name: orders\nnode_type: ORCHESTRATOR_GENERIC\n${rest}\nmcp: ${mcp}`;

describe("a contract from Consul", () => {
  it("says all that a contract file may say of its tool", () => {
    const definition = read(`
name: orders
node_type: ORCHESTRATOR_GENERIC
node_version: {major: 2, minor: 1, patch: 0}
description: The node.
anything_else: {is: kept to itself}
mcp:
  expose: true
  title: Orders
  description: Finds orders.
  timeout_seconds: 12
  annotations: {read_only: true, idempotent: true}
  tags: shop
  icons: [{src: "https://x.test/i.png", mime_type: image/png}, {src: "file:///etc/passwd"}]
  input_schema: {properties: {id: {type: string}}}
  output_schema: {type: object}
  execution: {kind: onex, path: run}
`);
    expect(definition).toEqual({
      title: "Orders",
      description: "Finds orders.",
      version: "2.1.0",
      timeoutSeconds: 12,
      annotations: { readOnly: true, idempotent: true },
      tags: ["shop"],
      icons: [{ src: "https://x.test/i.png", mimeType: "image/png" }],
      inputSchema: { type: "object", properties: { id: { type: "string" } } },
      outputSchema: { type: "object" },
      execution: { kind: "onex", path: "/run" },
    });
  });

  it("is silent on what it does not say", () => {
    expect(read("name: n\nnode_type: ORCHESTRATOR\nmcp:")).toEqual({});
    expect(read("name: n\nnode_type: ORCHESTRATOR")).toEqual({});
    expect(read(withMcp("{title: null, input_schema: null, execution: null}"))).toEqual({});
  });

  it("may be JSON, and has the node's description and the contract's version where mcp has none", () => {
    const document = {
      name: "n",
      node_type: "ORCHESTRATOR",
      contract_version: "3.0.0",
      description: "Node.",
      mcp: {},
    };
    expect(read(JSON.stringify(document))).toEqual({ version: "3.0.0", description: "Node." });
  });

  it("is never expanded", () => {
    const definition = read(
      withMcp(
        "{title: '${HOME}', execution: {kind: rest, url: '/x', headers: {authorization: 'Bearer ${TOKEN:-none}'}}}",
      ),
    );
    expect(definition.title).toBe("${HOME}");
    expect(definition.execution).toEqual({
      kind: "rest",
      method: "GET",
      url: "/x",
      headers: { authorization: "Bearer ${TOKEN:-none}" },
    });
  });

  it("describes a REST call below the instance's address", () => {
    expect(read(withMcp("{execution: {kind: rest, method: POST}}")).execution).toEqual({
      kind: "rest",
      method: "POST",
      url: "",
    });
    expect(read(withMcp("{execution: {kind: rest, url: /}}")).execution).toMatchObject({ url: "" });
    expect(
      read(
        withMcp(
          "{execution: {kind: rest, url: '/orders/{id}?full=1', query: {a: 1}, body: {x: '{id}'}, result: /data}}",
        ),
      ).execution,
    ).toEqual({
      kind: "rest",
      method: "GET",
      url: "/orders/{id}?full=1",
      query: { a: 1 },
      body: { x: "{id}" },
      result: "/data",
    });
    expect(read(withMcp("{execution: {kind: onex}}")).execution).toEqual({ kind: "onex", path: "" });
  });

  it.each([
    [
      "names code of this machine",
      "{execution: {kind: local, module: ./x.mjs}}",
      /mcp\.execution\.kind: local is for contract files only/,
    ],
    [
      "goes over the bus",
      "{execution: {kind: bus, topic: t}}",
      /mcp\.execution\.kind: bus is for contract files only/,
    ],
    [
      "names an endpoint",
      "{execution: {kind: onex, endpoint: 'http://evil.test'}}",
      /mcp\.execution\.endpoint: leave it out: the instances come/,
    ],
    [
      "names endpoints",
      "{execution: {kind: onex, endpoints: ['http://evil.test']}}",
      /mcp\.execution\.endpoints: leave it out/,
    ],
    [
      "names another service",
      "{execution: {kind: onex, service: other}}",
      /mcp\.execution\.service: leave it out/,
    ],
    [
      "names a server",
      "{execution: {kind: rest, url: 'http://169.254.169.254/latest'}}",
      /mcp\.execution\.url: expected a path.*169/,
    ],
    [
      "names a server without a scheme",
      "{execution: {kind: rest, url: '//evil.test/x'}}",
      /mcp\.execution\.url: expected a path/,
    ],
    [
      "continues the server's name",
      "{execution: {kind: rest, url: '.evil.test/x'}}",
      /mcp\.execution\.url: expected a path/,
    ],
    [
      "puts a user before the server",
      "{execution: {kind: rest, url: '@evil.test/x'}}",
      /mcp\.execution\.url: expected a path/,
    ],
    [
      "has a path that is none",
      "{execution: {kind: onex, path: '/a?b'}}",
      /mcp\.execution\.path: expected a path/,
    ],
    [
      "has a header of the connection",
      "{execution: {kind: rest, url: /, headers: {Connection: close}}}",
      /headers\.Connection: is set by the runtime/,
    ],
    ["refers to a file", "{input_schema: {$ref: ./schema.json}}", /mcp\.input_schema: /],
    [
      "has a schema that is none",
      "{input_schema: {type: string}}",
      /mcp\.input_schema: the root's type must be object/,
    ],
    ["has a timeout out of range", "{timeout_seconds: 301}", /mcp\.timeout_seconds: .*301/],
    ["says that it is no tool", "{expose: false}", /mcp\.expose: is false, but the instance is tagged/],
    ["has another mcp", "[1]", /mcp: .*\[1\]/],
  ])("that %s is refused, with the reason", (_title, mcp, reason) => {
    expect(reasonOf(withMcp(mcp))).toMatch(reason);
  });

  it("lists everything that is wrong with it at once", () => {
    const reason = reasonOf(
      withMcp("{expose: false, execution: {kind: local, module: x}, output_schema: {type: 7}}"),
    );
    for (const part of ["mcp.expose", "mcp.execution.kind", "mcp.output_schema"])
      expect(reason).toContain(part);
  });

  it.each([
    ["", /expected the keys of a node contract/],
    ["- a\n- b", /expected the keys of a node contract/],
    ["name: [", /line 1/],
    ["node_type: ORCHESTRATOR", /name: is missing/],
  ])("that is no contract (%j) is refused", (text, reason) => {
    expect(reasonOf(text)).toMatch(reason);
  });

  it("that is not UTF-8 is refused", () => {
    expect(readRemoteContract(new Uint8Array([0xff, 0xfe, 0x00]))).toEqual({
      ok: false,
      reason: "the file is not UTF-8 text",
    });
  });

  it("mentions what was mended", () => {
    const reading = readRemoteContract(
      bytes(withMcp("{input_schema: {properties: {}}, icons: [{src: 'javascript:x'}]}")),
    );
    expect(reading).toMatchObject({
      ok: true,
      notes: [expect.stringContaining("type: object is added"), expect.stringContaining("javascript:x")],
    });
  });

  it("that would cost the parser too much is refused before", () => {
    expect(reasonOf("#".repeat(1024 * 1024 + 1))).toBe("it has 1048577 bytes, at most 1048576 are read");
    for (const bracket of ["[", "]", "{", "}", "[[],"])
      expect(reasonOf(bracket.repeat(5000))).toBe("more than 1000 of its brackets have no partner");
    for (const mark of ["- ", "? ", "-\t"])
      expect(reasonOf(mark.repeat(5000))).toBe("a line of it begins with more than 200 marks of a list");
    const rule = "-".repeat(500);
    expect(read(withMcp("", `description: |\n  ${rule}\n  ${"- x ".repeat(300)}`)).description).toContain(
      rule,
    );
  });
});
