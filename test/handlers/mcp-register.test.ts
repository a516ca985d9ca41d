import { describe, expect, test } from "vitest";
import { mcpConfigIssues, parseMcpConfig } from "../../src/handlers/mcp-config.ts";
import { required } from "./mcp.ts";

const config = (register: object, more: object = {}) => ({ ...required, dev_mode: false, register, ...more });
const issues = (register: object, more: object = {}): string[] =>
  mcpConfigIssues(config(register, more)).map(({ path, message }) => `${path.join(".")}: ${message}`);

describe("the register block", () => {
  test("by default says how to register, and not to", () => {
    expect(parseMcpConfig(required).register).toEqual({
      enabled: false,
      name: "onex-runtime",
      check: "http",
      ttlSeconds: 15,
      intervalSeconds: 10,
      deregisterAfterSeconds: 3600,
      tools: true,
      events: { topic: "node.registration.v1", partitions: 3 },
    });
  });

  test("takes what it is given, and the first topic of registrations", () => {
    const block = {
      enabled: true,
      name: "edge",
      id: "edge-1",
      address: "10.0.0.7",
      port: 80,
      check: "ttl",
      ttl_seconds: 30,
      interval_seconds: 5,
      deregister_after_seconds: 0,
      tools: false,
    };
    const more = { registration_topics: ["a.v1", "b.v1"], registration_partitions: 7 };
    expect(parseMcpConfig(config(block, more)).register).toEqual({
      enabled: true,
      name: "edge",
      id: "edge-1",
      address: "10.0.0.7",
      port: 80,
      check: "ttl",
      ttlSeconds: 30,
      intervalSeconds: 5,
      deregisterAfterSeconds: 0,
      tools: false,
      events: { topic: "a.v1", partitions: 7 },
    });
    expect(parseMcpConfig(config({ events: false })).register).not.toHaveProperty("events");
  });

  test("a key that a variable left empty is absent", () => {
    const { register } = parseMcpConfig(config({ enabled: true, id: "", address: "", port: "" }));
    expect(register).not.toHaveProperty("address");
    expect(register).not.toHaveProperty("id");
    expect(register).not.toHaveProperty("port");
  });

  test.each<[object, string]>([
    [{ adress: "x" }, "Did you mean 'address'?"],
    [{ check: "udp" }, "register.check"],
    [{ port: 0 }, "register.port"],
    [{ deregister_after_seconds: 59 }, "0, or 60 and more"],
    [{ ttl_seconds: 2 }, "register.ttl_seconds"],
  ])("refuses %j", (register, message) => {
    expect(issues(register)).toEqual([expect.stringContaining(message)]);
  });
});

describe("a server on every interface", () => {
  const open = { host: "0.0.0.0", allow_unauthenticated: true };

  test("is registered under an address that is given, and not without one", () => {
    expect(issues({ enabled: true }, open)).toEqual([
      expect.stringMatching(/^register\.address: .*"0\.0\.0\.0".*Say where they reach this runtime\./),
    ]);
    expect(issues({ enabled: true, address: "10.0.0.7" }, open)).toEqual([]);
  });

  test("needs none where it is not registered", () => {
    expect(issues({}, open)).toEqual([]);
    expect(issues({ enabled: true }, { ...open, dev_mode: true })).toEqual([]);
    expect(issues({ enabled: true }, { ...open, skip_server: true })).toEqual([]);
  });
});
