import { describe, expect, test } from "vitest";
import { handlerConfig } from "../../src/runtime/settings.ts";

describe("a handler's configuration", () => {
  test("its section wins over its contract, key by key", () => {
    const config = handlerConfig("mcp", ["mcp"], { host: "a", port: 1 }, { port: 2, path: "/x" }, {});
    expect(config).toEqual({ host: "a", port: 2, path: "/x" });
    expect(Object.isFrozen(config)).toBe(true);
  });

  test("the environment wins over the contract of a handler that is not configured", () => {
    const env = {
      HANDLER_MCP_PORT: "2",
      HANDLER_OTHER_PORT: "3",
      MCP_PORT: "4",
      HANDLER_MCP_: "5",
      HANDLER_MCP_PATH: "",
    };
    expect(handlerConfig("mcp", ["mcp", "other"], { host: "a", port: 1, path: "/" }, undefined, env)).toEqual(
      {
        host: "a",
        port: 2,
        path: "/",
      },
    );
  });

  test("a section has the environment in it already", () => {
    expect(handlerConfig("mcp", ["mcp"], {}, { port: 2 }, { HANDLER_MCP_PORT: "3" })).toEqual({ port: 2 });
  });

  test("of two types where one begins like the other the longer one is meant", () => {
    const env = { HANDLER_MCP_PROXY_PORT: "1", HANDLER_MCP_PORT: "2" };
    const types = ["mcp", "mcp-proxy"];
    expect(handlerConfig("mcp", types, {}, undefined, env)).toEqual({ port: 2 });
    expect(handlerConfig("mcp-proxy", types, {}, undefined, env)).toEqual({ port: 1 });
  });

  test.each([
    ["8090", 8090],
    ["true", true],
    ["1.5", 1.5],
    ["text", "text"],
    ["[a, b]", ["a", "b"]],
    ["{a: 1}", { a: 1 }],
    ['"8090"', "8090"],
    ["two words", "two words"],
    ["a #not a comment", "a #not a comment"],
    ["name: value", "name: value"],
    ["*star", "*star"],
    ["!tag", "!tag"],
    ["&anchor", "&anchor"],
    ["[broken", "[broken"],
    ["null", "null"],
    ["http://a:1/b", "http://a:1/b"],
  ])("the variable %s is %j", (text, value) => {
    expect(handlerConfig("x", ["x"], {}, undefined, { HANDLER_X_KEY: text })).toEqual({ key: value });
  });
});
