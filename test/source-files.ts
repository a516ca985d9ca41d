/**
 * What the layer test knows of the source: every file with what it imports and whether it reads the environment, and the
 * rules as functions from files to complaints. Types count: `import type` ties two files together as `import` does.
 */
import { readdirSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import path from "node:path";
import ts from "typescript";

export interface SourceFile {
  /** Relative to the root, with `/`. */
  readonly path: string;
  readonly lines: number;
  /** Specifiers as written, of imports, re-exports, `import()` and `import("…").Type`. */
  readonly imports: readonly string[];
  readonly readsEnvironment: boolean;
}

/** Folder, or file at the top -> what its files may import besides each other. */
export type LayerTable = Readonly<Record<string, readonly string[] | "anything">>;

/** The TypeScript files below `root`, in order of their paths. */
export function readSources(root: string): SourceFile[] {
  return readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => parseSource(file.replaceAll(path.sep, "/"), readFileSync(path.join(root, file), "utf8")))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

export function parseSource(file: string, text: string): SourceFile {
  const imports: string[] = [];
  let readsEnvironment = false;
  const visit = (node: ts.Node): void => {
    const specifier = specifierOf(node);
    if (specifier !== undefined) imports.push(specifier);
    readsEnvironment ||= isEnvironment(node);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true));
  return { path: file, lines: text.trimEnd().split("\n").length, imports, readsEnvironment };
}

function specifierOf(node: ts.Node): string | undefined {
  const name =
    ts.isImportDeclaration(node) || ts.isExportDeclaration(node)
      ? node.moduleSpecifier
      : ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)
        ? node.argument.literal
        : ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword
          ? node.arguments[0]
          : undefined;
  return name !== undefined && ts.isStringLiteralLike(name) ? name.text : undefined;
}

/** `process.env`, `process["env"]`, `const { env } = process`, `import { env } from "node:process"`. */
function isEnvironment(node: ts.Node): boolean {
  const isProcess = (of: ts.Node | undefined): boolean =>
    of !== undefined && /(^|\.)process$/.test(of.getText());
  if (ts.isPropertyAccessExpression(node)) return node.name.text === "env" && isProcess(node.expression);
  if (ts.isElementAccessExpression(node))
    return isProcess(node.expression) && /^["'`]env["'`]$/.test(node.argumentExpression.getText());
  if (ts.isBindingElement(node)) {
    const declaration = node.parent.parent;
    return (
      (node.propertyName ?? node.name).getText() === "env" &&
      ts.isVariableDeclaration(declaration) &&
      isProcess(declaration.initializer)
    );
  }
  return (
    ts.isImportSpecifier(node) &&
    (node.propertyName ?? node.name).text === "env" &&
    /["'](node:)?process["']$/.test(node.parent.parent.parent.moduleSpecifier.getText())
  );
}

const isRelative = (specifier: string): boolean => specifier.startsWith(".");
const resolve = (from: string, specifier: string): string =>
  path.posix.normalize(path.posix.join(path.posix.dirname(from), specifier));
const relativeTargets = (file: SourceFile): string[] =>
  file.imports.filter(isRelative).map((specifier) => resolve(file.path, specifier));
/** `core` of `core/json.ts`, `gateway.ts` of itself. */
const layerOf = (file: string): string => file.split("/")[0] ?? file;

export function layerComplaints(files: readonly SourceFile[], table: LayerTable): string[] {
  return files.flatMap((file) => {
    const layer = layerOf(file.path);
    const allowed = table[layer];
    if (allowed === undefined) return [`${file.path}: ${layer} has no row in the table`];
    if (allowed === "anything") return [];
    return relativeTargets(file)
      .filter((target) => layerOf(target) !== layer && !allowed.includes(layerOf(target)))
      .map(
        (target) => `${file.path} imports ${target}: ${layer} may import ${allowed.join(", ") || "nothing"}`,
      );
  });
}

/** One complaint for every file that can reach itself, with a shortest way round. */
export function cycleComplaints(files: readonly SourceFile[]): string[] {
  const targets = new Map(files.map((file) => [file.path, relativeTargets(file)]));
  return files.flatMap(({ path: start }) => {
    const cameFrom = new Map<string, string>();
    const queue = [start];
    for (const current of queue) {
      for (const target of targets.get(current) ?? []) {
        if (cameFrom.has(target)) continue;
        cameFrom.set(target, current);
        queue.push(target);
      }
    }
    if (!cameFrom.has(start)) return [];
    const round = [start];
    for (let at = cameFrom.get(start); at !== undefined && at !== start; at = cameFrom.get(at))
      round.unshift(at);
    return [`a cycle: ${[start, ...round].join(" -> ")}`];
  });
}

/** Relative imports name a TypeScript file below the root, with its extension. */
export function extensionComplaints(files: readonly SourceFile[]): string[] {
  const known = new Set(files.map((file) => file.path));
  return files.flatMap((file) =>
    file.imports
      .filter((specifier) => isRelative(specifier) && !known.has(resolve(file.path, specifier)))
      .map((specifier) => `${file.path} imports "${specifier}": no such .ts file`),
  );
}

const packageOf = (specifier: string): string =>
  specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
const packagesOf = (file: SourceFile): string[] =>
  file.imports.filter((specifier) => !isRelative(specifier) && !isBuiltin(specifier)).map(packageOf);

export interface Containment {
  readonly packages: RegExp;
  /** Folders end in `/`. */
  readonly onlyIn: readonly string[];
}

export function containmentComplaints(files: readonly SourceFile[], rules: readonly Containment[]): string[] {
  return files.flatMap((file) =>
    packagesOf(file).flatMap((name) =>
      rules
        .filter((rule) => rule.packages.test(name) && !rule.onlyIn.some((place) => isIn(file.path, place)))
        .map((rule) => `${file.path} imports ${name}: only ${rule.onlyIn.join(", ")} may`),
    ),
  );
}

/** @param place a folder with its `/`, the beginning of a file's name with `*`, or a file */
const isIn = (file: string, place: string): boolean =>
  /[/*]$/.test(place) ? file.startsWith(place.replace("*", "")) : file === place;

/** What the code imports is what an installed package brings along. */
export function dependencyComplaints(
  files: readonly SourceFile[],
  dependencies: Readonly<Record<string, string>>,
): string[] {
  return files.flatMap((file) =>
    packagesOf(file)
      .filter((name) => !Object.hasOwn(dependencies, name))
      .map((name) => `${file.path} imports ${name}, which package.json does not have as a dependency`),
  );
}

export function environmentComplaints(files: readonly SourceFile[], onlyIn: string): string[] {
  return files
    .filter((file) => file.readsEnvironment && file.path !== onlyIn)
    .map((file) => `${file.path} reads process.env: only ${onlyIn} may`);
}

export function lengthComplaints(files: readonly SourceFile[], maxLines: number): string[] {
  return files
    .filter((file) => file.lines > maxLines)
    .map((file) => `${file.path} has ${file.lines} lines: at most ${maxLines}`);
}

/** The rows of the Markdown table headed `folder | may import`, as [folder, text], without backticks. */
export function layerRows(markdown: string): [string, string][] {
  const lines = markdown
    .split("\n")
    .map((line) => line.split("|").map((cell) => cell.trim().replaceAll("`", "")));
  const head = lines.findIndex((cells) => cells[1] === "folder" && cells[2] === "may import");
  if (head === -1) return [];
  const body = lines.slice(head + 2);
  const end = body.findIndex((cells) => cells.length < 2);
  return body.slice(0, end === -1 ? undefined : end).map((cells) => [cells[1] ?? "", cells[2] ?? ""]);
}
