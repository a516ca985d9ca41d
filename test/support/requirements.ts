/**
 * Holds docs/requirements.md against what ran: every numbered line names the titles of the tests that prove it, and
 * each title must be that of a test which passed. Checked at the end of a whole run; a run of some files checks nothing.
 */
import { readFileSync } from "node:fs";
import type { Reporter, TestModule, Vitest } from "vitest/node";

export interface Requirement {
  /** The number of the line, or a letter. */
  readonly line: string;
  readonly file: string;
  /** Suites and title joined by ` > `; a `…` at the end stands for any rest. */
  readonly title: string;
}

/** Rows like `test/file.test.ts`: title, under headings like 1. Name. */
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

export interface Outcome {
  readonly file: string;
  readonly title: string;
  readonly passed: boolean;
  readonly skipped?: boolean;
}

/** The requirements that no passing test proves, or that one which did not pass speaks against. */
export function unproven(rows: readonly Requirement[], outcomes: readonly Outcome[]): readonly Requirement[] {
  return rows.filter(({ file, title }) => {
    const begins = title.endsWith("…") ? title.slice(0, -1) : undefined;
    const meant = outcomes.filter(
      (outcome) =>
        outcome.file === file &&
        (begins === undefined ? outcome.title === title : outcome.title.startsWith(begins)),
    );
    return meant.length === 0 || meant.some((outcome) => !outcome.passed);
  });
}

/** Fails the run where a title of docs/requirements.md matches no test that passed. */
export class RequirementsReporter implements Reporter {
  #whole = false;

  onInit(vitest: Vitest): void {
    const { related, testNamePattern, changed, shard } = vitest.config;
    const named = process.argv.slice(2).some((argument) => argument !== "run" && !argument.startsWith("-"));
    this.#whole = !related && !testNamePattern && !changed && !shard && !named;
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    if (!this.#whole) return;
    const outcomes = modules.flatMap((module) =>
      [...module.children.allTests()].map((test) => ({
        file: module.relativeModuleId,
        title: test.fullName,
        passed: test.result().state === "passed",
        skipped: test.result().state === "skipped",
      })),
    );
    const { rows } = readRequirements(
      readFileSync(new URL("../../docs/requirements.md", import.meta.url), "utf8"),
    );
    const skipped = process.env["ONEX_REQUIRE_SERVICES"] === "1" ? [] : withSkipped(outcomes);
    const missing = unproven(rows, outcomes).filter(({ file }) => !skipped.includes(file));
    if (skipped.length > 0) console.warn(`skipped, and so not proved: ${skipped.join(", ")}`);
    for (const { line, file, title } of missing) {
      console.error(`requirement ${line}: no passing test "${title}" in ${file}`);
    }
    if (missing.length > 0) process.exitCode = 1;
    else if (skipped.length === 0)
      console.log(`requirements: all ${rows.length} are proved by tests that passed`);
  }
}

/** Files of which tests were skipped, for want of a part that this machine lacks. */
const withSkipped = (outcomes: readonly Outcome[]): readonly string[] => [
  ...new Set(outcomes.filter(({ skipped }) => skipped === true).map(({ file }) => file)),
];
