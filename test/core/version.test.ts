import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { version } from "../../src/core/version.ts";

it("the version is the one in package.json", () => {
  const manifest = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  expect(manifest).toContain(`"version": "${version}"`);
});
