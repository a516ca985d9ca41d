/** YAML as contracts use it: core schema of YAML 1.2 with merge keys, one document, no surprises. */
import { type Document, isAlias, isCollection, isScalar, LineCounter, parseDocument, visit } from "yaml";
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
  const describe = (problem: { message: string; pos: readonly [number, ...unknown[]] }): string => {
    const { line, col } = lines.linePos(problem.pos[0]);
    return `${problem.message} at line ${line}, column ${col}`;
  };
  // The parser is recursive, and reports an exhausted stack at every level on its way back.
  if (document.errors.some(({ message }) => message.startsWith("Maximum call stack"))) {
    return { ok: false, problem: tooDeep };
  }
  const loose = looseAlias(document);
  if (loose !== undefined) return { ok: false, problem: describe(loose) };
  if (document.errors.length > 0) {
    return { ok: false, problem: document.errors.slice(0, maxProblems).map(describe).join("; ") };
  }
  const data: unknown = document.toJS({ maxAliasCount: maxAliases });
  if (depthOf(data, new Map()) > maxDepth) return { ok: false, problem: tooDeep };
  return { ok: true, data, warnings: document.warnings.map(describe) };
}

/** An alias whose anchor does not come before it: no error to the parser, and without a place when it is resolved. */
function looseAlias(document: Document): { message: string; pos: readonly [number] } | undefined {
  let found: { message: string; pos: readonly [number] } | undefined;
  const anchors = new Set<string>();
  visit(document, (_key, node) => {
    if ((isScalar(node) || isCollection(node)) && node.anchor !== undefined) anchors.add(node.anchor);
    if (!isAlias(node) || anchors.has(node.source)) return undefined;
    found = { message: `the alias *${node.source} has no anchor before it`, pos: [node.range?.[0] ?? 0] };
    return visit.BREAK;
  });
  return found;
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
