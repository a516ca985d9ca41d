/** The package's own version. */
import { readFileSync } from "node:fs";

const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

/** As in package.json. Both `src/core` and `dist/core` are two folders below it. */
export const version: string = manifest.version;
