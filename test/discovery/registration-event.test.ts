import { describe, expect, it } from "vitest";
import { registrationReader, type RegistrationEvent } from "../../src/discovery/registration-event.ts";
import { messageOf, registration } from "./registrations.ts";

const read = registrationReader();

function event(value: unknown, place: Parameters<typeof messageOf>[1] = {}): RegistrationEvent {
  const result = read(messageOf(value, place));
  if (!result.ok) throw new Error(result.reason);
  return result.event;
}

function reason(value: unknown, place: Parameters<typeof messageOf>[1] = {}): string {
  const result = read(messageOf(value, place));
  return result.ok ? "(it was read)" : result.reason;
}

describe("a self-sufficient event", () => {
  it("states all that a tool needs", () => {
    const stated = event(
      registration("orders", {
        event_id: "e-1",
        title: "Orders",
        input_schema: { properties: { id: { type: "string" } } },
        output_schema: { type: "array" },
        annotations: { read_only: true, destructive: false, idempotent: true, open_world: false },
        execution: { kind: "onex", path: "run" },
      }),
    );
    expect(stated).toEqual({
      eventId: "e-1",
      type: "registered",
      serviceId: "orders-1",
      emittedAt: Date.parse("2026-01-31T12:00:00Z"),
      topic: "node.registration.v1",
      partition: 0,
      offset: 7,
      ignored: [],
      instance: {
        source: "event",
        serviceId: "orders-1",
        serviceName: "orders",
        claim: { toolName: "orders" },
        url: "http://127.0.0.1:9/orders",
        live: true,
        definition: {
          title: "Orders",
          description: "Does orders",
          version: "1.2.0",
          inputSchema: { type: "object", properties: { id: { type: "string" } } },
          outputSchema: { type: "array" },
          annotations: { readOnly: true, destructive: false, idempotent: true, openWorld: false },
          tags: ["mcp-enabled", "node-type:orchestrator", "mcp-tool:orders"],
          timeoutSeconds: 20,
          execution: { kind: "onex", path: "/run" },
        },
      },
    });
  });

  it("may be any HTTP API below its endpoint", () => {
    const execution = {
      kind: "rest",
      method: "PUT",
      url: "/orders/{id}?full={full}",
      query: { a: ["{b}", null] },
      headers: { "x-tenant": 7 },
      body: { order: "{order}", none: null },
      result: "/data",
    };
    expect(event(registration("orders", { execution })).instance?.definition.execution).toEqual({
      ...execution,
      headers: { "x-tenant": "7" },
    });
    const plain = event(registration("orders", { execution: { kind: "rest" } }));
    expect(plain.instance?.definition.execution).toEqual({ kind: "rest", method: "GET", url: "" });
  });

  it("keeps ${...} in any text as it is", () => {
    const text = "${HOME} and ${env:HOME} and ${file:/etc/passwd}";
    const { instance } = event(
      registration("orders", {
        title: text,
        description: text,
        service_name: text,
        endpoint: "http://127.0.0.1:9/${HOME}",
        input_schema: { type: "object", description: text },
        execution: { kind: "rest", url: "/x", headers: { "x-home": "${HOME}" }, body: { home: text } },
      }),
    );
    expect(instance).toMatchObject({
      serviceName: text,
      url: "http://127.0.0.1:9/$%7BHOME%7D",
      definition: {
        title: text,
        description: text,
        inputSchema: { description: text },
        execution: { headers: { "x-home": "${HOME}" }, body: { home: text } },
      },
    });
    expect(JSON.stringify(instance)).not.toContain(process.env.HOME);
  });

  it("has its keys without effect named, and works", () => {
    const { ignored, instance } = event(registration("orders", { region: "eu", endpoints: {} }));
    expect(ignored).toEqual(["region", "endpoints"]);
    expect(instance?.claim).toEqual({ toolName: "orders" });
  });
});

describe("a smaller payload", () => {
  it("takes its time, its id and its service from the message", () => {
    const stated = event(
      { event_type: "updated", node_id: "n" },
      { partition: 3, offset: "41", key: "orders-7" },
    );
    expect(stated).toMatchObject({
      eventId: "node.registration.v1/3/41",
      emittedAt: 1_700_000_000_000,
      serviceId: "orders-7",
      type: "updated",
    });
  });

  it("states no more than it says", () => {
    const { instance } = event({ event_type: "registered", service_id: "orders-1" });
    expect(instance).toEqual({ source: "event", serviceId: "orders-1", definition: {}, live: true });
  });

  it("with tags alone claims a tool", () => {
    const tags = ["mcp-enabled", "node-type:orchestrator", "mcp-tool:orders"];
    const { instance } = event(
      { event_type: "registered", node_id: "n", service_id: "orders-1", tags },
      { key: null },
    );
    expect(instance).toEqual({
      source: "event",
      serviceId: "orders-1",
      claim: { toolName: "orders" },
      definition: { tags },
      live: true,
    });
  });

  it("may say null for what it does not know", () => {
    const { instance } = event(
      registration("orders", {
        emitted_at: null,
        service_id: null,
        tags: null,
        endpoint: null,
        description: null,
        timeout_seconds: null,
        annotations: { read_only: null },
        execution: { kind: "onex", path: null },
      }),
      { key: "orders-9" },
    );
    expect(instance).toEqual({
      source: "event",
      serviceId: "orders-9",
      serviceName: "orders",
      definition: { version: "1.2.0", annotations: {}, execution: { kind: "onex", path: "" } },
      live: true,
    });
  });

  it.each([
    ["2026-01-31T12:00:00.5+02:00", "2026-01-31T10:00:00.500Z"],
    ["2026-01-31T12:00:00.123456", "2026-01-31T12:00:00.123Z"],
    ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"],
  ])("was emitted at %s, which is %s", (given, meant) => {
    expect(new Date(event(registration("a", { emitted_at: given })).emittedAt).toISOString()).toBe(meant);
  });

  it("may write its version in parts", () => {
    const version = event(registration("a", { node_version: { major: 2, minor: 0, patch: 1 } })).instance;
    expect(version?.definition.version).toBe("2.0.1");
  });
});

describe("a tag that is not there", () => {
  it("makes it no tool, unlike tags that are not spoken of", () => {
    const { instance } = event(registration("orders", { tags: ["mcp-enabled"], node_type: "EFFECT" }));
    expect(instance?.claim).toEqual({ refused: "the tag node-type:orchestrator is missing" });
    expect(event(registration("orders", { tags: [] })).instance?.claim).toHaveProperty("refused");
  });

  it("may be stood for by the node's type", () => {
    const { instance } = event(registration("orders", { tags: ["mcp-enabled", "mcp-tool:orders"] }));
    expect(instance?.claim).toEqual({ toolName: "orders" });
  });
});

describe("a service that is gone", () => {
  it.each(["deregistered", "expired"])("is %s whatever else its event holds", (type) => {
    const gone = event({ event_type: type, service_id: "a-1", endpoint: 7, timeout_seconds: "x", tags: "?" });
    expect(gone).toMatchObject({ type, serviceId: "a-1" });
    expect(gone).not.toHaveProperty("instance");
  });

  it("is named by the key of a message without a value", () => {
    const gone = event(null, { key: "a-1", offset: "3" });
    expect(gone).toMatchObject({
      type: null,
      serviceId: "a-1",
      eventId: "node.registration.v1/0/3",
      offset: 3,
    });
    expect(gone).not.toHaveProperty("instance");
    expect(reason(null, { key: null })).toBe(
      "a message without a value needs a service_id as its key, got none",
    );
  });
});

describe("an event that cannot be read", () => {
  it.each<[string, unknown, string | RegExp]>([
    ["is not JSON", "{oops", /^the value is not JSON: /],
    ["is not UTF-8", new Uint8Array([0x7b, 0xff]), "the value is not valid UTF-8"],
    ["is a list", [1], "expected a JSON object, got [1]"],
    ["is null", "null", "expected a JSON object, got null"],
    [
      "is a list too deep to show",
      `${"[".repeat(50_000)}${"]".repeat(50_000)}`,
      "expected a JSON object, got an array that is nested too deeply",
    ],
  ])("%s", (_title, value, expected) => {
    expect(reason(value)).toMatch(expected);
  });

  it("says which service is missing", () => {
    const value = registration("a", { service_id: undefined });
    expect(reason(value, { key: null })).toBe("service_id: is missing, and the message has no key");
  });

  it.each<[Record<string, unknown>, string]>([
    [
      { event_type: "born" },
      'event_type: Invalid option: expected one of "registered"|"updated"|"deregistered"|"expired", got "born"',
    ],
    [{ event_type: undefined }, "event_type: is missing"],
    [
      { emitted_at: "yesterday" },
      'emitted_at: expected an ISO 8601 date and time such as "2026-01-31T12:00:00Z", got "yesterday"',
    ],
    [{ timeout_seconds: 301 }, "timeout_seconds: Too big: expected number to be <=300, got 301"],
    [{ timeout_seconds: 0.5 }, "timeout_seconds: Too small: expected number to be >=1, got 0.5"],
    [{ tags: "mcp-enabled" }, 'tags: expected array, got "mcp-enabled"'],
    [{ tags: ["a", 1] }, "tags[1]: expected string, got 1"],
    [
      { service_name: "a\u001b[31m" },
      String.raw`service_name: text without control characters, got "a\u001b[31m"`,
    ],
    [{ service_id: "a\nb" }, String.raw`service_id: text without control characters, got "a\nb"`],
    [{ service_name: "" }, 'service_name: Too small: expected string to have >=1 characters, got ""'],
    [
      { node_version: 1 },
      'node_version: expected a version such as "1.0.0", or {major, minor, patch}, got 1',
    ],
    [{ endpoint: "orders:8080" }, 'endpoint: expected an absolute http or https URL, got "orders:8080"'],
    [{ endpoint: "ftp://a/b" }, 'endpoint: expected an absolute http or https URL, got "ftp://a/b"'],
    [{ endpoint: "http:///a" }, 'endpoint: expected an absolute http or https URL, got "http:///a"'],
    [
      { endpoint: "http://127.0.0.1:0" },
      'endpoint: has port 0, on which nothing listens; name one of 1 to 65535, got "http://127.0.0.1:0"',
    ],
    [
      { endpoint: "http://a/b?c=1" },
      'endpoint: expected a URL without query and fragment, got "http://a/b?c=1"',
    ],
    [{ endpoint: "http://me:hidden@a/" }, "endpoint: expected a URL without user and password"],
    [
      { input_schema: { $ref: "./a.json" } },
      'input_schema: $ref "./a.json" leads out of the schema, and a schema that is not in a file cannot refer to one',
    ],
    [{ input_schema: { $ref: "file:///etc/passwd" } }, /^input_schema: \$ref "file:.*never fetched/.source],
    [{ input_schema: { type: "string" } }, 'input_schema: the root\'s type must be object, got "string"'],
    [{ output_schema: 7 }, "output_schema: expected a JSON Schema: an object, got 7"],
    [{ annotations: { read_only: "yes" } }, 'annotations.read_only: expected boolean, got "yes"'],
    [{ execution: { kind: "onex", path: "//other" } }, "execution.path: expected a path such as /run"],
    [
      { execution: { kind: "rest", url: "http://elsewhere/" } },
      'execution.url: expected what follows the endpoint: nothing, or a path such as "/orders/{id}", got "http://elsewhere/"',
    ],
    [
      { execution: { kind: "rest", url: "/{a" } },
      "execution.url: has a brace that is not part of a {placeholder}",
    ],
    [
      { execution: { kind: "rest", headers: { "Content-Length": 1 } } },
      "execution.headers.Content-Length: is set by the runtime and cannot be given",
    ],
  ])("names field, expectation and value: %j", (fields, expected) => {
    const told = reason(registration("a", fields));
    if (expected.startsWith("^")) expect(told).toMatch(new RegExp(expected));
    else expect(told).toBe(expected);
  });

  it.each(["local", "function", "bus", "upstream"])("has an execution of kind %s", (kind) => {
    const execution = { kind, module: "./a.ts", topic: "t" };
    expect(reason(registration("a", { execution }))).toMatch(
      /^execution(\.kind)?: expected a kind of onex or rest: an event cannot name any other, got /,
    );
  });

  it("has everything that is wrong with it named at once", () => {
    const told = reason(registration("a", { endpoint: "x", input_schema: { type: "string" } }));
    expect(told).toMatch(/^endpoint: .*; input_schema: /);
  });

  it.each(["input_schema", "execution", "unknown", "tags"])(
    "never makes the reader throw: deep %s",
    (name) => {
      const deep = (depth: number): string => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
      for (const depth of [100, 5000, 20_000]) {
        const field = name === "execution" ? `{"kind":"rest","body":${deep(depth)}}` : deep(depth);
        const result = read(messageOf(`{"event_type":"registered","service_id":"a","${name}":${field}}`));
        expect(result.ok, String(depth)).toBe(name === "unknown");
      }
    },
  );
});
