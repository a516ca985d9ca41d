import { expect, test } from "vitest";
import { expandVariables } from "../../src/contract/expand.ts";

const env = { HOST: "example.com", EMPTY: "", BRACES: "${HOST}", UNSET: undefined };

test.each([
  ["${HOST}", "example.com"],
  ["http://${HOST}:80/{id}/${HOST}", "http://example.com:80/{id}/example.com"],
  ["${NONE:-fallback}", "fallback"],
  ["${EMPTY:-fallback}", "fallback"],
  ["${HOST:-fallback}", "example.com"],
  ["${EMPTY}", ""],
  ["${NONE:-}", ""],
  ["${NONE:-${HOST}}", "example.com"],
  ["${NONE:-a{b}c}", "a{bc}"],
  ["${BRACES}", "${HOST}"],
  ["${env:HOST} $HOST ${} ${1A} ${HOST", "${env:HOST} $HOST ${} ${1A} ${HOST"],
  ["", ""],
])("%j becomes %j", (text, expected) => {
  expect(expandVariables(text, env)).toEqual({ text: expected, missing: [] });
});

test("a variable without value and default is named once and stays as it was written", () => {
  expect(expandVariables("${NONE}/${UNSET}/${NONE}/${HOST}", env)).toEqual({
    text: "${NONE}/${UNSET}/${NONE}/example.com",
    missing: ["NONE", "UNSET"],
  });
});

test("a default that is not used is not judged", () => {
  expect(expandVariables("${HOST:-${NONE}}", env)).toEqual({ text: "example.com", missing: [] });
  expect(expandVariables("${OTHER:-${NONE}}", env).missing).toEqual(["NONE"]);
});

test("what objects inherit is no variable", () => {
  expect(expandVariables("${constructor}", {}).missing).toEqual(["constructor"]);
});
