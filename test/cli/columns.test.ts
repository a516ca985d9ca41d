import { expect, test } from "vitest";
import { columns, plain } from "../../src/cli/columns.ts";
import { explanationText } from "../../src/cli/explanation.ts";

const hostile = "a\u001b]0;title\u0007\n+ b\u202e";

test("text of others is on one line and holds nothing that a terminal obeys", () => {
  expect(plain(hostile)).toBe("a\ufffd]0;title\ufffd\ufffd+ b\ufffd");
  expect(columns([[hostile, "x"]]).split("\n")).toHaveLength(2);
});

test("nor does an explanation", () => {
  const record = {
    source: "events",
    key: hostile,
    version: null,
    revision: null,
    url: hostile,
    used: false,
    reason: hostile,
  };
  const text = explanationText({ name: hostile, served: false, reason: hostile, records: [record] });
  expect(text).not.toMatch(/[\p{Cc}\p{Cf}](?<!\n)/u);
  expect(text.trimEnd().split("\n")).toHaveLength(3);
});
