/** Problems of a contract as text: where in the document, what is wrong, and the value that was found. */
import type { z } from "zod";
import { nearestKey, valueAt } from "../core/config-issues.ts";
import { typeName } from "../core/json.ts";

export interface Problem {
  /** Keys from the document's root. */
  readonly path: readonly PropertyKey[];
  readonly message: string;
  /** The key is required and absent. */
  readonly missing?: boolean;
}

const maxShown = 80;

/** `mcp.execution.urls[0]`; the document itself is `(root)`. */
export function pathText(path: readonly PropertyKey[]): string {
  if (path.length === 0) return "(root)";
  return path
    .map((key, index) => (typeof key === "number" ? `[${key}]` : `${index === 0 ? "" : "."}${String(key)}`))
    .join("");
}

/** A value as short JSON; what has no JSON, and what is too deep for it, by its kind. */
export function valueText(value: unknown): string {
  const text = jsonText(value);
  return text.length > maxShown ? `${text.slice(0, maxShown)}…` : text;
}

function jsonText(value: unknown): string {
  const kind = typeName(value);
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (thrown) {
    if (thrown instanceof RangeError) return `an ${kind} that is nested too deeply`;
  }
  return text ?? kind;
}

/** What zod found, one problem each; an absent required key is told from a wrong value. */
export function problemsOf(error: z.ZodError, document: unknown): Problem[] {
  return error.issues.map((issue) => problemOf(issue, document));
}

function problemOf(issue: z.core.$ZodIssue, document: unknown): Problem {
  const path = issue.path.map((part) => (typeof part === "number" ? part : String(part)));
  const value = valueAt(document, path);
  if (value === undefined && issue.code !== "custom") return { path, message: "is missing", missing: true };
  const message = issue.message.replace(/^Invalid input: /, "").replace(/, received .*$/, "");
  if (issue.code === "unrecognized_keys") return { path, message };
  return { path, message: `${message}, got ${valueText(value)}` };
}

/** All problems of one file in one line each, joined. */
export const problemText = (problems: readonly Problem[]): string =>
  problems.map((problem) => `${pathText(problem.path)}: ${problem.message}`).join("; ");

/** 004 where nothing but required keys is wrong, else 003. */
export const problemCode = (problems: readonly Problem[]): string =>
  problems.every((problem) => problem.missing === true) ? "HANDLER_LOADER_004" : "HANDLER_LOADER_003";

/** `unknown key, ignored` with the nearest known key where one is near. */
export function unknownKeyText(path: readonly PropertyKey[], known: readonly string[]): string {
  const near = nearestKey(String(path.at(-1)), known);
  const hint = near === undefined ? "" : `; did you mean ${near}?`;
  return `${pathText(path)}: unknown key, ignored${hint}`;
}
