import { expect, test } from "vitest";
import { isSecretPath, redact, redactText } from "../../src/core/redact.ts";

test.each([
  "token",
  "consul_token",
  "password",
  "sessionSecret",
  "key",
  "api_key",
  "apiKey",
  "apikey",
  "X-Api-Key",
  "cookie",
  "sha256",
  "authorization",
])("%s is a secret, whatever its type", (key) => {
  expect(redact({ [key]: "x" })).toEqual({ [key]: "[redacted]" });
  expect(redact({ a: [{ [key]: 5 }] })).toEqual({ a: [{ [key]: "[redacted]" }] });
});

test.each(["keyword", "tokens_used", "port", "name", "secretary"])("%s is none", (key) => {
  expect(redact({ [key]: "x" })).toEqual({ [key]: "x" });
});

test("of a list of keys the names stay, of headers only their names", () => {
  expect(
    redact({ api_keys: ["bare", { name: "a", key: "x" }], headers: { accept: "y", deep: { z: 1 } } }),
  ).toEqual({
    api_keys: ["[redacted]", { name: "a", key: "[redacted]" }],
    headers: { accept: "[redacted]", deep: { z: "[redacted]" } },
  });
});

test("credentials in URLs and values known to be secret go wherever they stand", () => {
  expect(redact({ url: "redis://user:pass@host/1", note: "it is hunter2!" }, ["hunter2", ""])).toEqual({
    url: "redis://[redacted]@host/1",
    note: "it is [redacted]!",
  });
  expect(redactText("hunter2", ["hunter2"])).toBe("[redacted]");
});

test("a value without a value, and a path above the value, are seen", () => {
  expect(redact({ token: null })).toEqual({ token: null });
  expect(redact("x", [], ["headers", "accept"])).toBe("[redacted]");
  expect(isSecretPath(["headers", "accept"])).toBe(true);
});
