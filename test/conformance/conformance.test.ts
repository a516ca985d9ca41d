import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { root } from "../support/runtime.ts";
import { expectedFailuresFile, runSuite, type Check, type Report, type Revision } from "./suite.ts";

const revisions = ["2025-11-25", "2026-07-28"] as const;

/** Passed by runtimes that serve tools, in full. */
const passing: Readonly<Record<Revision, readonly string[]>> = {
  "2025-11-25": [
    "server-initialize",
    "ping",
    "dns-rebinding-protection",
    "server-sse-multiple-streams",
    "tools-list",
    "logging-set-level",
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-mixed-content",
    "tools-call-error",
    "tools-call-with-progress",
    "tools-call-with-logging",
    // Run, but not scored.
    "server-session-lifecycle",
    "json-schema-2020-12",
  ],
  "2026-07-28": [
    "dns-rebinding-protection",
    "server-sse-multiple-streams",
    "tools-list",
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-mixed-content",
    "tools-call-error",
    "tools-call-with-progress",
    // Run, but not scored.
    "http-header-validation",
    "http-custom-header-server-validation",
    "json-schema-2020-12",
  ],
};

const failed = (checks: readonly Check[]): readonly Check[] =>
  checks.filter(({ status }) => status === "FAILURE" || status === "WARNING");

/** A scenario's own successes: that its messages fit the protocol's schema is true of refusals too. */
const succeeded = (checks: readonly Check[]): readonly Check[] =>
  checks.filter(({ id, status }) => status === "SUCCESS" && id !== "wire-schema-valid");

let reports: ReadonlyMap<Revision, Report>;
const checksOf = (revision: Revision, scenario: string): readonly Check[] => {
  const checks = reports.get(revision)?.scenarios.get(scenario);
  expect(checks, `${scenario} did not run`).toBeDefined();
  return checks!;
};

const expectedText = await readFile(expectedFailuresFile, "utf8");
const expectedNames = parse(expectedText).server as readonly string[];

describe("the official conformance suite", () => {
  beforeAll(async () => {
    reports = await runSuite(revisions);
  }, 120_000);

  for (const revision of revisions) {
    test.for(passing[revision])(`${revision}: %s passes`, (scenario) => {
      const checks = checksOf(revision, scenario);
      // A skipped check is one that the suite could not make: it proves nothing.
      expect(checks.filter(({ status }) => status !== "SUCCESS" && status !== "INFO")).toEqual([]);
      expect(succeeded(checks)).not.toEqual([]);
    });

    test(`${revision}: no scored scenario fails but where it is expected, and nothing expected to fail passes`, () => {
      const { exitCode, output } = reports.get(revision)!;
      expect(exitCode, output.slice(output.lastIndexOf("=== SUMMARY ==="))).toBe(0);
    });
  }

  test("2026-07-28: server-stateless passes but for tools that ask the client", () => {
    const checks = checksOf("2026-07-28", "server-stateless");
    expect(failed(checks).map(({ id }) => `server-stateless:${id}`)).toEqual(
      expectedNames.filter((name) => name.startsWith("server-stateless:")),
    );
    expect(succeeded(checks).length).toBeGreaterThan(20);
    expect(succeeded(checks).map(({ id }) => id)).toContain(
      "sep-2575-server-sends-tools-list-changed-on-subscription",
    );
  });

  test("2026-07-28: caching passes for tools", () => {
    const checks = checksOf("2026-07-28", "caching");
    expect(succeeded(checks).map(({ id }) => id)).toEqual([
      "sep-2549-tools-list-caching-hints",
      "sep-2549-ttl-non-negative",
      "sep-2549-cache-scope-valid",
    ]);
    for (const { id } of failed(checks)) expect(expectedNames).toContain(`caching:${id}`);
  });

  test("every expected failure names a scenario or check that failed", () => {
    const failures = [...reports.values()].flatMap(({ scenarios }) =>
      [...scenarios].flatMap(([scenario, checks]) =>
        failed(checks).flatMap(({ id }) => [scenario, `${scenario}:${id}`]),
      ),
    );
    expect(expectedNames.filter((name) => !failures.includes(name))).toEqual([]);
  });

  test("docs/conformance.md has the results of every scenario as measured", async () => {
    const text = await readFile(join(root, "docs/conformance.md"), "utf8");
    const written = [...text.matchAll(/^\| `(.+?)` +\| (.+?) +\| (.+?) +\|/gm)].map(
      ([, scenario, ...cells]) => [scenario, ...cells],
    );
    const names = new Set([...reports.values()].flatMap(({ scenarios }) => [...scenarios.keys()]));
    const measured = [...names].map((scenario) => [
      scenario,
      ...revisions.map((revision) => {
        const checks = reports.get(revision)?.scenarios.get(scenario);
        if (checks === undefined) return "-";
        const successes = checks.filter(({ status }) => status === "SUCCESS").length;
        return `${successes}/${successes + failed(checks).length}`;
      }),
    ]);
    expect(written.sort()).toEqual(measured.sort());
  });
});

describe("the official conformance suite where every answer is a stream", () => {
  let streamed: ReadonlyMap<Revision, Report>;
  beforeAll(async () => {
    streamed = await runSuite(revisions, { HANDLER_MCP_JSON_RESPONSE: "false" });
  }, 120_000);

  test.for(revisions)("%s: the same passes with json_response: false", (revision) => {
    const { exitCode, output, scenarios } = streamed.get(revision)!;
    expect(exitCode, output.slice(output.lastIndexOf("=== SUMMARY ==="))).toBe(0);
    const streams = scenarios.get("server-sse-multiple-streams") ?? [];
    expect(succeeded(streams).map(({ id }) => id)).toContain("server-sse-streams-functional");
  });
});

/** What the runtime does not offer, and the names in the suite that stand for it. */
const needs: Readonly<Record<string, RegExp>> = {
  resources: /^(resources-|sep-2164-resource-|caching:sep-2549-resources-)/,
  prompts: /^(prompts-|caching:sep-2549-prompts-)/,
  completion: /^completion-/,
  sampling: /^(tools-call-sampling|server-stateless:sep-2575-.*-capability)/,
  elicitation:
    /^(tools-call-elicitation|elicitation-|server-stateless:sep-2575-http-server-no-independent-requests-on-stream$)/,
  input_required: /^input-required-result-/,
};

test("only what needs resources, prompts, completion, sampling, elicitation or input_required is expected to fail", () => {
  const lines = expectedText.split("\n").filter((line) => line.trimStart().startsWith("-"));
  expect(lines).toHaveLength(expectedNames.length);
  for (const line of lines) {
    const [, name, need] = /^ {2}- (\S+) # needs (\w+): \S/.exec(line) ?? [];
    expect(name, `no reason in: ${line}`).toBeDefined();
    expect(name).toMatch(needs[need!] ?? /(?!)/);
  }
});
