import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { errorTable } from "../../src/core/errors.ts";
import { readPages, root, tableOf } from "./markdown.ts";

const page = readPages(join(root, "docs")).find(({ path }) => path === "docs/errors.md")!;

it("the table of errors is the one that the code has", () => {
  const yes = (value: boolean): string => (value ? "yes" : "no");
  expect(tableOf(page, "class", "code")).toEqual(
    Object.entries(errorTable).map(([name, row]) => [
      name,
      row.code,
      String(row.httpStatus),
      String(row.rpcCode),
      yes(row.retryable),
      yes(row.countsForBreaker),
      row.publicMessage,
    ]),
  );
});

it("the table of loader codes has each code that the code raises", () => {
  const raised = new Set<string>();
  for (const folder of ["contract", "runtime"]) {
    for (const name of readdirSync(join(root, "src", folder))) {
      const text = readFileSync(join(root, "src", folder, name), "utf8");
      for (const [, number] of text.matchAll(/HANDLER_LOADER_(\d{3})/g))
        raised.add(`HANDLER_LOADER_${number}`);
      // `failure("011", …)` and `invalid("040", …)` add the prefix themselves.
      for (const [, number] of text.matchAll(/\b(?:failure|invalid)\(\s*(?:.*\? )?"(\d{3})"/g))
        raised.add(`HANDLER_LOADER_${number}`);
    }
  }
  const listed = tableOf(page, "code", "means").map(([code]) => code);
  expect(listed).toEqual([...raised].sort());
});
