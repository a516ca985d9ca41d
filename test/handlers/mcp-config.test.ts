import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { ProtocolConfigurationError } from "../../src/core/errors.ts";
import { parseMcpConfig } from "../../src/handlers/mcp-config.ts";

const required = { consul_host: "localhost", consul_port: 8500, kafka_enabled: false, dev_mode: true };

const messagesOf = (raw: unknown): string[] => {
  try {
    parseMcpConfig(raw);
  } catch (error) {
    if (error instanceof ProtocolConfigurationError) return error.message.split("\n");
    throw error;
  }
  return [];
};

describe("the four required keys", () => {
  test.each(Object.keys(required))("%s has no fallback", (key) => {
    const missing = [`Missing required config: '${key}'. Must be set in .env or the runtime config.`];
    expect(messagesOf({ ...required, [key]: undefined })).toEqual(missing);
    expect(messagesOf({ ...required, [key]: null })).toEqual(missing);
  });

  test("all that are missing are named at once", () => {
    expect(messagesOf({})).toHaveLength(4);
    expect(messagesOf(undefined)).toHaveLength(4);
  });

  test.each([
    ["consul_host", 5, "expected string, got number"],
    ["consul_port", "8500", "expected integer, got string"],
    ["consul_port", 8500.5, "expected integer, got number"],
    ["kafka_enabled", "false", "expected boolean, got string"],
    ["dev_mode", 1, "expected boolean, got number"],
    ["dev_mode", [true], "expected boolean, got array"],
  ])("%s: %j is of the wrong type, with skip_server too", (key, value, expected) => {
    const message = `Invalid config type for '${key}': ${expected}`;
    expect(messagesOf({ ...required, [key]: value })).toEqual([message]);
    expect(messagesOf({ skip_server: true, [key]: value })).toEqual([message]);
  });

  test("with skip_server they may be absent", () => {
    const config = parseMcpConfig({ skip_server: true });
    expect(config.skipServer).toBe(true);
    expect(config.consul).toBeUndefined();
  });
});

test.each(["true", 1, null, []])("skip_server: %j is an error", (value) => {
  expect(messagesOf({ ...required, skip_server: value })[0]).toMatch(
    /^Invalid config type for 'skip_server': expected boolean, got /,
  );
});

test("the defaults", () => {
  expect(parseMcpConfig(required)).toEqual({
    skipServer: false,
    host: "127.0.0.1",
    port: 8090,
    path: "/mcp",
    stateless: false,
    jsonResponse: true,
    sessionTtlSeconds: 3600,
    maxSessions: 1000,
    pageSize: 100,
    timeoutSeconds: 30,
    limits: { toolConcurrency: 128, toolQueue: 512, instanceConcurrency: 256, instanceQueue: 256 },
    maxTools: 100,
    requiredTags: [],
    excludedTags: ["internal", "deprecated", "unsafe"],
    exposeNodeTypes: [],
    allowedNetworks: [],
    allowedHosts: [],
    allowedOrigins: [],
    apiKeys: [],
    allowUnauthenticated: false,
    kafkaEnabled: false,
    devMode: true,
    register: expect.objectContaining({ enabled: false }) as unknown,
  });
});

test.each([
  ["port", -1, "at least 0"],
  ["port", 65_536, "at most 65535"],
  ["timeout_seconds", 0.5, "at least 1"],
  ["timeout_seconds", 301, "at most 300"],
  ["tool_concurrency", 0, "at least 1"],
  ["tool_concurrency", 10_001, "at most 10000"],
  ["tool_queue", -1, "at least 0"],
  ["tool_queue", 100_001, "at most 100000"],
  ["instance_concurrency", 1, "at least 2"],
  ["instance_concurrency", 10_001, "at most 10000"],
  ["instance_queue", -1, "at least 0"],
  ["instance_queue", 100_001, "at most 100000"],
  ["max_tools", 0, "at least 1"],
  ["max_tools", 100_001, "at most 100000"],
  ["page_size", 1001, "at most 1000"],
  ["max_sessions", 0, "at least 1"],
  ["registration_partitions", 0, "at least 1"],
  ["consul_host", "http://consul", "a host name or an address, without scheme and port"],
  ["consul_host", "consul:8500", "a host name or an address, without scheme and port"],
  ["consul_datacenter", "a b/c", "letters, digits, '-' and '_'"],
  ["registration_topics", ["a b"], "a topic: 1 to 249 of a-z A-Z 0-9 . _ -"],
  ["session_ttl_seconds", 0, "at least 1"],
  ["path", "mcp", "a path such as /mcp that is none of the server's own routes"],
  ["path", "/mcp/tools", "a path such as /mcp that is none of the server's own routes"],
  ["allowed_networks", ["10.0.0.0/33"], "a network such as 10.0.0.0/8 or fd00::/8"],
  ["allowed_origins", ["https://a.example/x"], "an origin such as https://example.com"],
])("%s: %j is out of range", (key, value, expected) => {
  const [message, ...others] = messagesOf({ ...required, [key]: value });
  expect(others).toEqual([]);
  expect(message).toContain(
    `expected ${expected}, got ${JSON.stringify(Array.isArray(value) ? value[0] : value)}`,
  );
});

test.each([
  [{ tool_concurrency: 256 }, 256, 256],
  [{ instance_concurrency: 128 }, 128, 128],
  [{ tool_concurrency: 20, instance_concurrency: 10 }, 20, 10],
])("%j would let one tool use up an instance: an error that says so", (keys, tool, instance) => {
  expect(messagesOf({ ...required, ...keys })).toEqual([
    `Config key 'tool_concurrency' is ${tool}, and must be below instance_concurrency (${instance}), or one slow tool could use up an instance that other tools share.`,
  ]);
});

test("an unknown key is refused and the nearest known one named", () => {
  expect(messagesOf({ ...required, prot: 1 })).toEqual(["Unknown config key 'prot'. Did you mean 'port'?"]);
  expect(messagesOf({ ...required, something_else: 1 })).toEqual(["Unknown config key 'something_else'."]);
});

describe("what is followed outside the process", () => {
  const live = { ...required, dev_mode: false };

  test("nothing with dev_mode or skip_server, whatever else is set", () => {
    for (const section of [required, { ...live, skip_server: true }]) {
      const config = parseMcpConfig({ ...section, kafka_enabled: true, consul_token: "t", state_dir: "s" });
      expect(config.consul).toBeUndefined();
      expect(config.registrations).toBeUndefined();
    }
  });

  test("Consul as its keys say", () => {
    expect(parseMcpConfig(live).consul).toEqual({ host: "localhost", port: 8500, scheme: "http" });
    const keys = { consul_scheme: "https", consul_token: "t", consul_datacenter: "dc2", consul_ca: "ca.pem" };
    expect(parseMcpConfig({ ...live, ...keys }).consul).toEqual({
      host: "localhost",
      port: 8500,
      scheme: "https",
      token: "t",
      datacenter: "dc2",
      ca: "ca.pem",
    });
  });

  test("registration events where kafka_enabled says so, from the topic's beginning", () => {
    expect(parseMcpConfig(live).registrations).toBeUndefined();
    expect(parseMcpConfig({ ...live, kafka_enabled: true }).registrations).toEqual({
      topics: ["node.registration.v1"],
      replay: true,
      partitions: 3,
    });
  });

  test.each(["one\ntwo", "one\n", "one two", "\u00fcml"])(
    "a consul_token of %j is refused, and not shown",
    (token) => {
      const [message, ...others] = messagesOf({ ...live, consul_token: token });
      expect(others).toEqual([]);
      expect(message).toMatch(/consul_token.*a token without line breaks and spaces/);
      expect(message).not.toContain(token);
    },
  );

  test.each([
    "state_dir",
    "consul_token",
    "consul_datacenter",
    "consul_ca",
    "service_ca",
    "service_cert",
    "service_key",
  ])("an empty %s is none", (key) => {
    expect(messagesOf({ ...live, [key]: "" })).toEqual([]);
    expect(parseMcpConfig({ ...live, [key]: "" })).toEqual(parseMcpConfig(live));
  });
});

describe("TLS of services", () => {
  test("is what its keys name; none leaves Node's own", () => {
    expect(parseMcpConfig(required)).not.toHaveProperty("serviceTls");
    const files = { service_ca: "ca.pem", service_cert: "a.pem", service_key: "a.key" };
    expect(parseMcpConfig({ ...required, ...files }).serviceTls).toEqual({
      ca: "ca.pem",
      cert: "a.pem",
      key: "a.key",
    });
    expect(parseMcpConfig({ ...required, service_ca: "ca.pem" }).serviceTls).toEqual({ ca: "ca.pem" });
  });

  test.each([
    ["service_cert", "service_key"],
    ["service_key", "service_cert"],
  ])("%s without %s is refused", (given, missing) => {
    expect(messagesOf({ ...required, [given]: "file.pem" })).toEqual([
      `Config key '${given}' needs '${missing}' as well: a client certificate is a pair. Set both, or neither.`,
    ]);
  });
});

test("upstreams is refused while it has no effect, unless it is empty", () => {
  expect(messagesOf({ ...required, upstreams: { a: {} } })[0]).toContain(
    "Config key 'upstreams' has no effect",
  );
  for (const empty of ["", null, {}]) expect(messagesOf({ ...required, upstreams: empty })).toEqual([]);
});

describe("another address than loopback", () => {
  test.each(["0.0.0.0", "::", "192.168.1.5", "example.com"])("%s needs keys or a word", (host) => {
    expect(messagesOf({ ...required, host })[0]).toContain("allow_unauthenticated: true");
    expect(messagesOf({ ...required, host, allow_unauthenticated: true })).toEqual([]);
    const api_keys = [{ name: "a", key: "opensesame" }];
    expect(messagesOf({ ...required, host, api_keys })).toEqual([]);
  });

  test.each(["127.0.0.1", "127.1.2.3", "localhost", "::1"])("%s is loopback", (host) => {
    expect(messagesOf({ ...required, host })).toEqual([]);
  });
});

describe("API keys", () => {
  const sha256 = createHash("sha256").update("opensesame").digest("hex");

  test("are kept as SHA-256, given either way", () => {
    const { apiKeys } = parseMcpConfig({
      ...required,
      api_keys: [
        { name: "a", role: "admin", key: "opensesame" },
        { name: "b", sha256: sha256.toUpperCase() },
      ],
    });
    expect(apiKeys).toEqual([
      { name: "a", role: "admin", sha256 },
      { name: "b", role: "user", sha256 },
    ]);
  });

  test.each([
    [{ name: "a" }, "needs exactly one of 'key' and 'sha256'"],
    [{ name: "a", key: "opensesame", sha256 }, "needs exactly one of 'key' and 'sha256'"],
    [{ key: "opensesame" }, "Missing required config: 'api_keys[0].name'"],
    [{ name: "a", key: "opensesame", role: "root" }, "expected user or admin"],
    [{ name: "a", key: "short" }, 'expected a length of at least 8, got "[redacted]"'],
    [{ name: "a", sha256: "xyz" }, 'expected 64 hexadecimal digits, got "[redacted]"'],
  ])("%j is refused", (entry, message) => {
    expect(messagesOf({ ...required, api_keys: [entry] }).join("\n")).toContain(message);
  });

  test("a name is used once", () => {
    const entry = { name: "a", key: "opensesame" };
    expect(messagesOf({ ...required, api_keys: [entry, entry] })[0]).toContain("a name used once");
  });
});
