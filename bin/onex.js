#!/usr/bin/env node
import { existsSync } from "node:fs";

const major = Number(process.versions.node.split(".")[0]);
if (major < 24) {
  console.error(
    "onex-runtime needs Node 24 or newer, this is " +
      process.versions.node +
      ". Install it from https://nodejs.org, or: npx -p node@24 -p onex-runtime onex",
  );
  process.exit(1);
}
const built = new URL("../dist/cli/main.js", import.meta.url);
const entry = existsSync(built) ? built : new URL("../src/cli/main.ts", import.meta.url);
import(entry)
  .then(({ main }) => main(process.argv.slice(2)))
  .then((code) => {
    process.exitCode = code;
  });
