import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { readRequirements, unproven, type Requirement } from "./support/requirements.ts";

const text = readFileSync(new URL("../docs/requirements.md", import.meta.url), "utf8");

it("every numbered requirement names at least one test", () => {
  const { lines, rows } = readRequirements(text);
  const numbered = lines.filter((line) => /^\d+$/.test(line));
  expect(numbered).toEqual(Array.from({ length: 29 }, (_, index) => String(index + 1)));
  for (const line of lines) expect(rows.map((row) => row.line)).toContain(line);
});

it("a title that no passing test has is unproven", () => {
  const row = (title: string): Requirement => ({ line: "1", file: "test/a.test.ts", title });
  const outcomes = [
    { file: "test/a.test.ts", title: "suite > works", passed: true },
    { file: "test/a.test.ts", title: "other > works", passed: true },
    { file: "test/a.test.ts", title: "other > is skipped", passed: false },
    { file: "test/b.test.ts", title: "elsewhere", passed: true },
  ];
  const proved = [row("suite > works"), row("suite > …")];
  const not = [
    row("suite > work"),
    row("other > is skipped"),
    row("other > …"),
    row("elsewhere"),
    row("gone > …"),
  ];
  expect(unproven([...proved, ...not], outcomes)).toEqual(not);
});
