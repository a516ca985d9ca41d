/** YAML as contracts use it: core schema of YAML 1.2 with merge keys, one document, no surprises. */
import { LineCounter, parseDocument } from "yaml";
import { messageOf } from "../core/errors.ts";

/** Uses of anchors in one document: far above any contract's, far below what could exhaust memory. */
const maxAliases = 1000;
/** Containers within each other: deeper text is not a contract, and walking it would exhaust the stack. */
const maxDepth = 200;
/** Problems listed of one file. */
const maxProblems = 5;

export type ParsedYaml =
  | { readonly ok: true; readonly data: unknown; readonly warnings: readonly string[] }
  | { readonly ok: false; readonly problem: string };

/** Parses UTF-8 bytes; never throws. A problem names line and column. */
export function parseYaml(bytes: Uint8Array): ParsedYaml {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return { ok: false, problem: "the file is not UTF-8 text" };
  }
  try {
    return parseText(text);
  } catch (error) {
    // The parser is recursive: text that nests without end exhausts its stack.
    if (error instanceof RangeError) return { ok: false, problem: tooDeep };
    return { ok: false, problem: messageOf(error) };
  }
}

const tooDeep = `it is nested more than ${maxDepth} levels deep`;

function parseText(text: string): ParsedYaml {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    schema: "core",
    merge: true,
    uniqueKeys: true,
    lineCounter: lines,
    prettyErrors: false,
  });
  const describe = (problem: { message: string; pos: [number, number] }): string => {
    const { line, col } = lines.linePos(problem.pos[0]);
    return `${problem.message} at line ${line}, column ${col}`;
  };
  if (document.errors.length > 0) {
    return { ok: false, problem: document.errors.slice(0, maxProblems).map(describe).join("; ") };
  }
  const data: unknown = document.toJS({ maxAliasCount: maxAliases });
  if (depthOf(data, new Map()) > maxDepth) return { ok: false, problem: tooDeep };
  return { ok: true, data, warnings: document.warnings.map(describe) };
}

/** Levels of containers, Infinity for a value that contains itself by an alias. Each shared object is walked once. */
function depthOf(value: unknown, known: Map<object, number>): number {
  if (typeof value !== "object" || value === null) return 0;
  const seen = known.get(value);
  if (seen !== undefined) return seen;
  known.set(value, Infinity);
  let depth = 0;
  for (const item of Object.values(value)) depth = Math.max(depth, depthOf(item, known));
  known.set(value, depth + 1);
  return depth + 1;
}
