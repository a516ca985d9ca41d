/**
 * Holds docs/requirements.md against what ran: every numbered line names the titles of the tests that prove it, and
 * each title must be that of a test which passed. Checked at the end of a whole run; a run of some files checks nothing.
 */
import { readFileSync } from "node:fs";
import type { Reporter, TestModule, Vitest } from "vitest/node";

export interface Requirement {
  /** `1` … or a letter for what has no number. */
  readonly line: string;
  readonly file: string;
  readonly title: string;
}

/** Rows `- \`test/file.test.ts\`: title`, under headings `## 1. …`. */
export function readRequirements(text: string): {
  readonly lines: readonly string[];
  readonly rows: readonly Requirement[];
} {
  const lines: string[] = [];
  const rows: Requirement[] = [];
  for (const row of text.split("\n")) {
    const heading = /^## ([0-9A-Z]+)\. /.exec(row);
    if (heading?.[1] !== undefined) lines.push(heading[1]);
    const proof = /^- `(test\/[^`]+)`: (.+)$/.exec(row);
    if (proof?.[1] === undefined || proof[2] === undefined) continue;
    rows.push({ line: lines.at(-1) ?? "", file: proof[1], title: proof[2].trim() });
  }
  return { lines, rows };
}

/** Fails the run where a title of docs/requirements.md matches no test that passed. */
export class RequirementsReporter implements Reporter {
  #whole = false;

  onInit(vitest: Vitest): void {
    const { related, testNamePattern, changed, shard } = vitest.config;
    const filters = process.argv.slice(2).filter((argument) => argument !== "run");
    this.#whole = !related && !testNamePattern && !changed && !shard && filters.length === 0;
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    if (!this.#whole) return;
    const passed = new Set<string>();
    for (const module of modules) {
      for (const test of module.children.allTests("passed"))
        passed.add(`${module.relativeModuleId} ${test.fullName}`);
    }
    const { rows } = readRequirements(
      readFileSync(new URL("../../docs/requirements.md", import.meta.url), "utf8"),
    );
    const unproven = rows.filter(({ file, title }) => !passed.has(`${file} ${title}`));
    for (const { line, file, title } of unproven)
      console.error(`requirement ${line}: no passing test "${title}" in ${file}`);
    if (unproven.length > 0) process.exitCode = 1;
    else console.log(`requirements: ${rows.length} titles, all passed`);
  }
}
