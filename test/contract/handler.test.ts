import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  handlerContractSchema,
  richHandlerContractSchema,
  shortHandlerContractSchema,
} from "../../src/contract/handler-schema.ts";
import { parseHandlerContract, type HandlerContract } from "../../src/contract/handler.ts";

const short = {
  name: "handler-greet",
  handler_class: "./greet.mjs#Greet",
  handler_type: "effect",
};
const rich = {
  handler_id: "effect.mcp.handler",
  name: "MCP Handler",
  contract_version: { major: 2, minor: 1, patch: 0 },
  descriptor: { node_archetype: "effect" },
  handler_class: "onex-runtime#HandlerMCP",
};

function contractOf(data: unknown): HandlerContract {
  const result = parseHandlerContract(data);
  if (!result.ok) throw new Error(`${result.code}: ${result.problems.join("; ")}`);
  return result.contract;
}
function problemsOf(data: unknown): { code: string; text: string } {
  const result = parseHandlerContract(data);
  if (result.ok) throw new Error("expected problems");
  return { code: result.code, text: result.problems.join("; ") };
}

describe("the short form", () => {
  test("has a default for all but name, class and type", () => {
    expect(contractOf(short)).toEqual({
      form: "short",
      id: "proto.greet",
      name: "handler-greet",
      protocolType: "greet",
      handlerClass: "./greet.mjs#Greet",
      version: "1.0.0",
      tags: [],
      idempotent: false,
      timeoutMs: 30_000,
      concurrency: "parallel_ok",
      requiredEnv: [],
      configDefaults: {},
      tools: [],
      informational: [],
    });
  });

  test("takes every key, and says which ones have no effect", () => {
    const contract = contractOf({
      ...short,
      protocol_type: "hello",
      tags: ["a", "b"],
      security: { trusted_namespace: "acme", audit_logging: true, requires_authentication: false },
      handler_version: { major: 3, minor: 2, patch: 1 },
      schema_version: "1.0",
      owner: "team",
    });
    expect(contract).toMatchObject({
      id: "proto.hello",
      protocolType: "hello",
      version: "3.2.1",
      tags: ["a", "b"],
      informational: ["security", "schema_version", "owner"],
    });
  });

  test("handler_name and capability_tags are other names of name and tags", () => {
    const { name: _name, ...rest } = short;
    expect(contractOf({ ...rest, handler_name: "handler-x", capability_tags: "one" })).toMatchObject({
      name: "handler-x",
      protocolType: "x",
      tags: ["one"],
    });
  });

  test.each([
    [null, []],
    ["one", ["one"]],
    [
      ["a", "b"],
      ["a", "b"],
    ],
  ])("tags may be %j", (tags, expected) => {
    expect(contractOf({ ...short, tags }).tags).toEqual(expected);
  });

  test("a name that makes no routing key needs protocol_type", () => {
    expect(problemsOf({ ...short, name: "Greeting handler" })).toEqual({
      code: "HANDLER_LOADER_003",
      text: expect.stringMatching(/"Greeting handler".*protocol_type/),
    });
    expect(contractOf({ ...short, name: "Greeting handler", protocol_type: "greet" }).protocolType).toBe(
      "greet",
    );
  });

  test("what is missing is named, all of it", () => {
    expect(problemsOf({ tags: [] })).toEqual({
      code: "HANDLER_LOADER_004",
      text: expect.stringMatching(/name is missing.*handler_class is missing.*handler_type is missing/),
    });
  });

  test("a wrong value is named with what was expected and what is there", () => {
    expect(problemsOf({ ...short, handler_type: "magic" })).toEqual({
      code: "HANDLER_LOADER_003",
      text: expect.stringMatching(/^handler_type: .*"compute".*got "magic"$/),
    });
  });
});

describe("the rich form", () => {
  test("has a default for all but id, name, class and archetype", () => {
    expect(contractOf(rich)).toEqual({
      form: "rich",
      id: "effect.mcp.handler",
      name: "MCP Handler",
      protocolType: "mcp",
      handlerClass: "onex-runtime#HandlerMCP",
      version: "2.1.0",
      tags: [],
      idempotent: false,
      timeoutMs: 30_000,
      concurrency: "parallel_ok",
      requiredEnv: [],
      configDefaults: {},
      tools: [],
      informational: [],
    });
  });

  const whole = {
    ...rich,
    description: "Serves tools.",
    descriptor: {
      node_archetype: "effect",
      purity: "side_effecting",
      idempotent: true,
      timeout_ms: 45_500,
      retry_policy: {
        enabled: true,
        max_retries: 2,
        backoff_strategy: "linear",
        base_delay_ms: 500,
        max_delay_ms: 10_000,
        jitter_factor: 0.2,
      },
      circuit_breaker: {
        enabled: true,
        failure_threshold: 7,
        success_threshold: 3,
        timeout_ms: 1500,
        half_open_requests: 4,
      },
      concurrency_policy: "serialized",
      isolation_policy: "none",
      observability_level: "standard",
      capability_inputs: [],
      capability_outputs: [],
    },
    capability_inputs: ["mcp.request"],
    capability_outputs: ["mcp.list_tools"],
    input_model: "acme.Input",
    output_model: { name: "Output" },
    execution_constraints: { requires_before: [] },
    supports_lifecycle: true,
    supports_health_check: true,
    supports_provisioning: false,
    activation: { required_env: ["ACME_TOKEN"] },
    tags: ["mcp"],
    metadata: {
      transport: {
        type: "streamable_http",
        default_host: "127.0.0.1",
        default_port: 8090,
        default_path: "/mcp",
        stateless: false,
        json_response: true,
      },
      security: {
        authentication: { required: false },
        tool_access: { max_tools: 100, required_tags: ["public"], excluded_tags: ["internal"] },
        rate_limiting: { enabled: false },
        input_validation: { max_nesting_depth: 10 },
        audit_logging: { required_events: [] },
      },
      author: "someone",
    },
  };

  test("takes every key: policies, and what becomes handler configuration", () => {
    expect(contractOf(whole)).toEqual({
      form: "rich",
      id: "effect.mcp.handler",
      name: "MCP Handler",
      protocolType: "mcp",
      handlerClass: "onex-runtime#HandlerMCP",
      version: "2.1.0",
      tags: ["mcp"],
      idempotent: true,
      timeoutMs: 45_500,
      retry: { maxRetries: 2, backoff: "linear", baseDelayMs: 500, maxDelayMs: 10_000, jitterFactor: 0.2 },
      breaker: { failureThreshold: 7, successThreshold: 3, resetSeconds: 1.5, halfOpenRequests: 4 },
      concurrency: "serialized",
      requiredEnv: ["ACME_TOKEN"],
      configDefaults: {
        host: "127.0.0.1",
        port: 8090,
        path: "/mcp",
        stateless: false,
        json_response: true,
        timeout_seconds: 45.5,
        max_tools: 100,
        required_tags: ["public"],
        excluded_tags: ["internal"],
      },
      tools: [],
      informational: expect.any(Array),
    });
  });

  test("keys without effect are listed by their path, unknown ones too", () => {
    expect(contractOf(whole).informational).toEqual([
      "descriptor.purity",
      "descriptor.observability_level",
      "descriptor.capability_inputs",
      "descriptor.capability_outputs",
      "capability_inputs",
      "capability_outputs",
      "input_model",
      "output_model",
      "execution_constraints",
      "supports_lifecycle",
      "supports_health_check",
      "supports_provisioning",
      "metadata.transport.type",
      "metadata.security.authentication",
      "metadata.security.rate_limiting",
      "metadata.security.input_validation",
      "metadata.security.audit_logging",
      "metadata.author",
    ]);
  });

  test("retry and breaker have defaults of their own; the breaker is off unless enabled", () => {
    const descriptor = { node_archetype: "effect", retry_policy: {}, circuit_breaker: {} };
    const off = contractOf({ ...rich, descriptor });
    expect(off.retry).toEqual({
      maxRetries: 3,
      backoff: "exponential",
      baseDelayMs: 1000,
      maxDelayMs: 30_000,
      jitterFactor: 0.1,
    });
    expect(off.breaker).toBeUndefined();
    const on = contractOf({ ...rich, descriptor: { ...descriptor, circuit_breaker: { enabled: true } } });
    expect(on.breaker).toEqual({
      failureThreshold: 5,
      successThreshold: 2,
      resetSeconds: 60,
      halfOpenRequests: 3,
    });
    const disabled = contractOf({ ...rich, descriptor: { ...descriptor, retry_policy: { enabled: false } } });
    expect(disabled.retry).toBeUndefined();
  });

  test.each([
    ["effect.mcp.handler", "mcp"],
    ["effect.infra.consul.handler", "consul"],
    ["proto.greet", "greet"],
  ])("the routing key of %s is %s", (handlerId, type) => {
    expect(contractOf({ ...rich, handler_id: handlerId }).protocolType).toBe(type);
  });

  test("protocol_type is the routing key where it is given", () => {
    expect(contractOf({ ...rich, protocol_type: "tools" })).toMatchObject({
      id: "effect.mcp.handler",
      protocolType: "tools",
    });
  });

  test("null stands for a key that is not there", () => {
    const nulls = { ...rich, description: null, activation: null, metadata: null, tags: null };
    const descriptor = {
      node_archetype: "effect",
      timeout_ms: null,
      retry_policy: null,
      circuit_breaker: null,
    };
    expect(contractOf({ ...nulls, descriptor })).toMatchObject({
      timeoutMs: 30_000,
      tags: [],
      requiredEnv: [],
    });
  });

  test("an isolation that cannot be given is refused with the value", () => {
    expect(
      problemsOf({ ...rich, descriptor: { node_archetype: "effect", isolation_policy: "container" } }),
    ).toEqual({
      code: "HANDLER_LOADER_003",
      text: expect.stringMatching(/descriptor\.isolation_policy: "container" demands an isolation/),
    });
  });

  test.each([
    ["handler_id", "mcp"],
    ["handler_id", `a.${"b".repeat(256)}`],
    ["contract_version", "1"],
    ["descriptor", { node_archetype: "wizard" }],
    ["descriptor", { node_archetype: "effect", timeout_ms: 0 }],
    ["descriptor", { node_archetype: "effect", retry_policy: { max_retries: 11 } }],
    ["descriptor", { node_archetype: "effect", concurrency_policy: "chaotic" }],
    ["metadata", { transport: { default_port: 70_000 } }],
    ["activation", { required_env: "TOKEN" }],
  ])("a bad %s (%j) is a schema error that names it", (key, value) => {
    const { code, text } = problemsOf({ ...rich, [key]: value });
    expect(code).toBe("HANDLER_LOADER_003");
    expect(text).toContain(key);
    expect(text).toContain("got");
  });

  test("what is missing is named, all of it", () => {
    expect(problemsOf({ handler_id: "a.b" })).toEqual({
      code: "HANDLER_LOADER_004",
      text: "name is missing; descriptor is missing; handler_class is missing",
    });
  });
});

describe("what is neither form", () => {
  test.each([[null], [[]], ["text"], [7], [undefined]])("%j is a schema error", (data) => {
    expect(problemsOf(data).code).toBe("HANDLER_LOADER_003");
  });

  test("keys of both forms are ambiguous", () => {
    expect(problemsOf({ ...short, ...rich })).toEqual({
      code: "HANDLER_LOADER_040",
      text: expect.stringMatching(/handler_type.*handler_id/),
    });
  });

  test("two names that disagree are ambiguous, two that agree are not", () => {
    expect(problemsOf({ ...short, handler_name: "other" })).toEqual({
      code: "HANDLER_LOADER_040",
      text: expect.stringMatching(/"handler-greet".*"other"/),
    });
    expect(contractOf({ ...short, handler_name: short.name }).name).toBe(short.name);
  });
});

test("both forms have a JSON Schema, in which what has a default is not required", () => {
  const schema = z.toJSONSchema(handlerContractSchema, { io: "input" });
  expect(schema.anyOf).toHaveLength(2);
  const required = (form: z.ZodType) => z.toJSONSchema(form, { io: "input" }).required;
  expect(required(shortHandlerContractSchema)).toEqual(["handler_class", "handler_type"]);
  expect(required(richHandlerContractSchema)).toEqual(["handler_id", "name", "descriptor", "handler_class"]);
});
