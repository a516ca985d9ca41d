import { describe, expect, it } from "vitest";
import * as errors from "../../src/core/errors.ts";
import { errorTable, messageOf, OnexError, toOnexError, type ErrorName } from "../../src/core/errors.ts";

/** One of each class, made as the code makes it. */
const samples: Record<ErrorName, (options?: errors.ErrorOptions) => OnexError> = {
  ProtocolConfigurationError: (options) => new errors.ProtocolConfigurationError("text", options),
  RuntimeHostError: (options) => new errors.RuntimeHostError("text", options),
  HandlerLoadError: (options) => new errors.HandlerLoadError("HANDLER_LOADER_001", "text", options),
  InfraConnectionError: (options) => new errors.InfraConnectionError("text", options),
  InfraTimeoutError: (options) =>
    new errors.InfraTimeoutError("text", { ...options, facts: { ...options?.facts, timeout_seconds: 1 } }),
  InfraAuthenticationError: (options) => new errors.InfraAuthenticationError("text", options),
  AuthorizationError: (options) => new errors.AuthorizationError("text", options),
  InfraUnavailableError: (options) => new errors.InfraUnavailableError("text", options),
  ToolNotFoundError: (options) => new errors.ToolNotFoundError("text", options),
  EnvelopeValidationError: (options) => new errors.EnvelopeValidationError("text", options),
  UnknownHandlerTypeError: (options) => new errors.UnknownHandlerTypeError("text", options),
  SecretResolutionError: (options) => new errors.SecretResolutionError("text", options),
  CancelledError: (options) => new errors.CancelledError("text", options),
};

describe("the error table", () => {
  it("is as agreed, cell by cell", () => {
    const cells = Object.entries(errorTable).map(([name, row]) => [
      name,
      row.code.replace("ONEX_CORE_", ""),
      row.httpStatus,
      row.rpcCode,
      row.retryable ? "retryable" : "final",
      row.countsForBreaker ? "counts" : "ignored",
      row.publicMessage,
    ]);
    // prettier-ignore
    expect(cells).toEqual([
      ["ProtocolConfigurationError", "041_INVALID_CONFIGURATION", 400, -32602, "final", "ignored", "The request or the configuration is not valid."],
      ["RuntimeHostError", "081_OPERATION_FAILED", 500, -32603, "final", "ignored", "The operation failed."],
      ["HandlerLoadError", "081_OPERATION_FAILED", 500, -32603, "final", "ignored", "A handler could not be loaded."],
      ["InfraConnectionError", "090_NETWORK_ERROR", 502, -32603, "retryable", "counts", "The service could not be reached."],
      ["InfraTimeoutError", "092_TIMEOUT_ERROR", 504, -32603, "retryable", "counts", "The operation took too long."],
      ["InfraAuthenticationError", "163_AUTHENTICATION_ERROR", 401, -32603, "final", "ignored", "Authentication failed."],
      ["AuthorizationError", "163_AUTHENTICATION_ERROR", 403, -32603, "final", "ignored", "Not permitted."],
      ["InfraUnavailableError", "205_SERVICE_UNAVAILABLE", 503, -32603, "retryable", "ignored", "The service is not available at the moment."],
      ["ToolNotFoundError", "205_SERVICE_UNAVAILABLE", 404, -32602, "final", "ignored", "Unknown tool."],
      ["EnvelopeValidationError", "007_INVALID_INPUT", 400, -32602, "final", "ignored", "The envelope is not valid."],
      ["UnknownHandlerTypeError", "007_INVALID_INPUT", 404, -32602, "final", "ignored", "No handler serves this operation."],
      ["SecretResolutionError", "085_RESOURCE_NOT_FOUND", 500, -32603, "final", "ignored", "A secret could not be resolved."],
      ["CancelledError", "081_OPERATION_FAILED", 499, -32603, "final", "ignored", "The call was cancelled."],
    ]);
    expect(Object.values(errorTable).every((row) => row.code.startsWith("ONEX_CORE_"))).toBe(true);
  });

  it("has a row for every error class, and a class for every row", () => {
    const classes = Object.entries(errors)
      .filter(([, value]) => typeof value === "function" && value.prototype instanceof OnexError)
      .map(([name]) => name);
    expect(classes.sort()).toEqual(Object.keys(errorTable).sort());
  });
});

describe.each(Object.keys(errorTable) as ErrorName[])("%s", (name) => {
  it("is what its row says", () => {
    const error = samples[name]();
    expect(error).toBeInstanceOf(OnexError);
    expect(error.constructor.name).toBe(name);
    expect(error).toMatchObject({ name, ...errorTable[name] });
  });

  it("keeps its facts frozen and its cause", () => {
    const cause = new Error("deeper");
    const facts = { operation: "ping", target: "billing", timeout_seconds: 1 };
    const error = samples[name]({ cause, facts });
    expect(error.cause).toBe(cause);
    expect(error.facts).toMatchObject(facts);
    expect(Object.isFrozen(error.facts)).toBe(true);
    expect(Object.hasOwn(samples[name](), "cause")).toBe(false);
  });

  it("takes further facts on its way", () => {
    const error = samples[name]({ facts: { operation: "ping", attempts: 1, timeout_seconds: 1 } });
    error.note({ attempts: 2 });
    expect(error.facts).toMatchObject({ operation: "ping", attempts: 2 });
    expect(Object.isFrozen(error.facts)).toBe(true);
  });

  it("describes itself with its code in front of its message", () => {
    const error = samples[name]();
    expect(error.message).toContain("text");
    expect(error.describe()).toBe(`[${errorTable[name].code}] ${error.message}`);
  });

  it("can differ from its row in one occurrence: retryable", () => {
    const retryable = !errorTable[name].retryable;
    expect(samples[name]({ retryable }).retryable).toBe(retryable);
  });
});

describe("an InfraConnectionError", () => {
  it.each([
    ["http", "ONEX_CORE_090_NETWORK_ERROR"],
    ["local", "ONEX_CORE_090_NETWORK_ERROR"],
    ["kafka", "ONEX_CORE_205_SERVICE_UNAVAILABLE"],
    ["consul", "ONEX_CORE_205_SERVICE_UNAVAILABLE"],
    ["mcp", "ONEX_CORE_205_SERVICE_UNAVAILABLE"],
  ] as const)("over %s has the code %s", (transport, code) => {
    const error = new errors.InfraConnectionError("refused", { facts: { transport } });
    expect(error.code).toBe(code);
    expect(error.describe()).toBe(`[${code}] refused`);
  });
});

describe("a ToolNotFoundError", () => {
  it("is an InfraUnavailableError that names the tool", () => {
    const error = new errors.ToolNotFoundError("greet", { facts: { correlation_id: "c1" } });
    expect(error).toBeInstanceOf(errors.InfraUnavailableError);
    expect(error.message).toBe("Unknown tool: greet");
    expect(error.facts).toEqual({ correlation_id: "c1", tool_name: "greet" });
  });
});

describe("a HandlerLoadError", () => {
  it("carries the loader's code, also in its message", () => {
    const error = new errors.HandlerLoadError("HANDLER_LOADER_010", "module not found: ./x.ts");
    expect(error.loaderCode).toBe("HANDLER_LOADER_010");
    expect(error.message).toBe("HANDLER_LOADER_010: module not found: ./x.ts");
  });
});

describe("messageOf", () => {
  const hostile = {
    toString(): string {
      throw new Error("no");
    },
  };
  const withoutText = new Error("x");
  Object.defineProperty(withoutText, "message", { value: undefined });

  it.each<[string, unknown, string]>([
    ["an error's message", new Error("broken"), "broken"],
    ["an error's name where it has no message", new TypeError(), "TypeError"],
    ["an error's name where its message is no text", withoutText, "Error"],
    [
      "the messages of several refused addresses",
      new AggregateError([new Error("refused ::1"), new Error("refused 127.0.0.1")]),
      "refused ::1; refused 127.0.0.1",
    ],
    ["an AggregateError's own message", new AggregateError([new Error("a")], "all failed"), "all failed"],
    ["the message of an object that is no error", { message: "I am obj" }, "I am obj"],
    ["the string form of an object whose message is no text", { message: 1 }, "[object Object]"],
    ["a string itself", "broken", "broken"],
    ["undefined", undefined, "undefined"],
    ["a symbol", Symbol("s"), "Symbol(s)"],
    ["a value that refuses", hostile, "a value that has no text form"],
    ["an object without a prototype", Object.create(null), "a value that has no text form"],
  ])("gives %s", (_what, thrown, text) => {
    expect(messageOf(thrown)).toBe(text);
  });
});

describe("toOnexError", () => {
  it("leaves an OnexError as it is", () => {
    const error = new errors.CancelledError();
    expect(toOnexError(error)).toBe(error);
  });

  it("makes a RuntimeHostError of anything else, with the thrown value as its cause", () => {
    const thrown = new TypeError("x is not a function");
    expect(toOnexError(thrown)).toMatchObject({
      name: "RuntimeHostError",
      message: "x is not a function",
      cause: thrown,
    });
    expect(toOnexError("text").cause).toBe("text");
  });
});
