/**
 * Imports modules that may be edited while the process runs. Owns: which version of a module is current, and Node's
 * module hooks that make an edit take effect. Does not own: what a module exports.
 *
 * 1. A module's URL carries `?v=` and a hash of its own content and of everything it reaches by relative imports, so an
 *    edit anywhere below gives it a new URL, and files that are equal are one instance.
 * 2. What is evaluated is exactly the text that was hashed.
 * 3. A broken edit keeps the last good version; it is logged once. With no good version yet the caller gets the error.
 * 4. Only modules that `loadModule` was asked for, and what these import relatively, are touched.
 *
 * Node keeps every version that was ever evaluated; nothing can take one back.
 */
import { createHash } from "node:crypto";
import { readFileSync, statSync, type Stats } from "node:fs";
import { registerHooks, type LoadHookSync, type ResolveHookSync } from "node:module";
import { basename, dirname, extname, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { within } from "../core/abort.ts";
import { RuntimeHostError } from "../core/errors.ts";
import { silentLogger, type Logger } from "../core/log.ts";
import { publicMessage } from "../core/public-text.ts";

export interface LoadOptions {
  readonly log?: Logger;
  /** For the top level of the module to finish. Default 10. */
  readonly limitSeconds?: number;
}

export type ModuleExports = Readonly<Record<string, unknown>>;

/** A file as it was read last; replaced whole when its content changes. */
interface SourceFile {
  readonly hash: string;
  /** Absolute paths of relative imports. */
  readonly imports: readonly string[];
  /** Undefined for what is not an ES module, or cannot be read. */
  readonly source: string | undefined;
  stat: Stats | undefined;
  /** False while another edit could leave `stat` as it is. */
  settled: boolean;
}

type Files = ReadonlyMap<string, SourceFile>;

/** A module that was asked for by path. */
interface Root {
  good?: ModuleExports;
  /** The newest attempt; with a broken edit it gives the last good exports. (3) */
  attempt?: { readonly files: Files; readonly exports: Promise<ModuleExports> };
  /** What was logged as broken last. */
  broken?: Files;
}

const files = new Map<string, SourceFile>();
const roots = new Map<string, Root>();
let installed = false;

const moduleExtensions = new Set([".ts", ".mts", ".js", ".mjs"]);
const commonJs = new Set([".cjs", ".cts"]);

/** The runtime's own index beside this folder, source or compiled as this file is. */
const runtimeIndex = new URL(`../index${extname(import.meta.url)}`, import.meta.url).href;
const runtimeFolder = dirname(fileURLToPath(runtimeIndex)) + sep;

/** The coarsest clock of a file system in use (FAT's): an edit within it may leave time and size as they were. */
const clockGranularityMs = 2000;

/**
 * The exports of the module at `path`, as the file and its relative imports are now.
 *
 * @param path absolute; an ES module: .ts, .mts, .js or .mjs
 * @throws RuntimeHostError naming the file and the reason, where no version of it could be loaded yet
 */
export async function loadModule(path: string, options: LoadOptions = {}): Promise<ModuleExports> {
  refuseCommonJs(path);
  let root = roots.get(path);
  if (root === undefined) {
    root = {};
    roots.set(path, root);
  }
  if (root.attempt !== undefined && isCurrent(root.attempt.files)) return root.attempt.exports;
  const reached = reach(path);
  root.attempt = { files: reached, exports: importVersion(root, path, reached, options) };
  return root.attempt.exports;
}

async function importVersion(
  root: Root,
  path: string,
  reached: Files,
  { log = silentLogger, limitSeconds = 10 }: LoadOptions,
): Promise<ModuleExports> {
  // An attempt that ends after a newer one began says nothing about what is current.
  const isNewest = (): boolean => root.attempt === undefined || root.attempt.files === reached;
  try {
    const importModule = await nativeImport();
    const loaded = await within(importModule(versioned(path, reached)), limitSeconds * 1000);
    if (loaded === "timeout")
      throw new Error(
        `its top level did not finish within ${limitSeconds} s; is there an await that never ends?`,
      );
    if (isNewest()) root.good = loaded;
    return loaded;
  } catch (error) {
    const reason = `The module ${basename(path)} could not be loaded: ${describe(error)}`;
    const { good } = root;
    if (root.broken === undefined || !sameFiles(root.broken, reached)) {
      root.broken = reached;
      const fields = { module: path, err: error };
      log.error(
        fields,
        good === undefined ? reason : `${reason}; its last good version stays in use until the next edit`,
      ); // (3)
    }
    if (good !== undefined) return good;
    // The next call tries again: what was missing may be there by then.
    if (isNewest()) delete root.attempt;
    throw new RuntimeHostError(reason, { cause: error, facts: { transport: "local", target: path } });
  }
}

/** The error's name, message and, where it is known, file and line in a module of the contracts. */
function describe(error: unknown): string {
  const message = publicMessage(error).trim();
  if (!(error instanceof Error)) return message;
  const place = /([\w.-]+\.m?[jt]s)\?v=[0-9a-f]+:(\d+)/.exec(error.stack ?? "");
  return `${error.name}: ${message}${place === null ? "" : ` (${place[1] ?? ""}:${place[2] ?? ""})`}`;
}

function refuseCommonJs(path: string): void {
  if (!commonJs.has(extname(path))) return;
  throw new RuntimeHostError(
    `${basename(path)} is a CommonJS module, which cannot be reloaded; write an ES module (.ts, .mts, .js or .mjs)`,
    { facts: { transport: "local", target: path } },
  );
}

/**
 * Its `import()` is Node's own. A test runner or a bundler rewrites the `import()` of the files it processes and then
 * loads the module its own way, past the hooks; a `data:` module it leaves alone.
 */
const importBridge: string = "data:text/javascript,export default (url) => import(url)";

async function nativeImport(): Promise<(url: string) => Promise<ModuleExports>> {
  if (!installed) {
    installed = true;
    registerHooks({ resolve, load });
  }
  const bridge = (await import(importBridge)) as {
    readonly default: (url: string) => Promise<ModuleExports>;
  };
  return bridge.default;
}

/** The file as it is now: the same object for as long as its content is the same. */
function look(path: string): SourceFile {
  const known = files.get(path);
  const stat = attempt(() => statSync(path, { throwIfNoEntry: false }));
  if (known?.settled === true && sameStat(known.stat, stat)) return known;
  const readAt = Date.now();
  const content = stat && attempt(() => readFileSync(path));
  const hash = content === undefined ? unreadable : createHash("sha256").update(content).digest("base64");
  const settled = stat === undefined || readAt - stat.ctimeMs > clockGranularityMs;
  if (known?.hash === hash) {
    known.stat = stat;
    known.settled = settled;
    return known;
  }
  const source = moduleExtensions.has(extname(path)) ? content?.toString("utf8") : undefined;
  const file = { hash, imports: importsOf(path, source ?? ""), source, stat, settled };
  files.set(path, file);
  return file;
}

const unreadable = "unreadable";

/** Undefined where `read` throws: why a file cannot be read is said when it is imported. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function sameStat(a: Stats | undefined, b: Stats | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.mtimeMs === b.mtimeMs && a.ctimeMs === b.ctimeMs && a.size === b.size && a.ino === b.ino;
}

/**
 * Relative specifiers after `from`, `import` or `import(`. It also finds some in comments and texts, which only means
 * that one more file is watched. What it cannot see, an `import()` of a computed name, the hooks resolve at each call.
 */
const gap = String.raw`(?:\s|\/\*(?:[^*]|\*(?!\/))*\*\/|\/\/[^\n]*\n)*`;
const relativeImport = new RegExp(
  String.raw`\b(?:from|import)${gap}(?:\(${gap})?(["'])(\.{1,2}\/[^"'\n?#]+)\1`,
  "g",
);

function importsOf(path: string, source: string): readonly string[] {
  const found = new Set<string>();
  for (const [, , specifier] of source.matchAll(relativeImport)) {
    if (specifier === undefined) continue;
    // Some texts that look like an import are no path: "./a%2Fb".
    const imported = attempt(() => fileURLToPath(new URL(specifier, pathToFileURL(path))));
    if (imported !== undefined && isTracked(imported)) found.add(imported);
  }
  return [...found];
}

/** The runtime's own files are never loaded twice. */
const isTracked = (path: string): boolean => !path.startsWith(runtimeFolder) && !commonJs.has(extname(path));

/** The file and everything it reaches by relative imports. */
function reach(path: string, found = new Map<string, SourceFile>()): Files {
  if (found.has(path)) return found;
  const file = look(path);
  found.set(path, file);
  for (const imported of file.imports) reach(imported, found);
  return found;
}

function isCurrent(reached: Files): boolean {
  for (const [path, file] of reached) if (look(path) !== file) return false;
  return true;
}

const sameFiles = (a: Files, b: Files): boolean =>
  a.size === b.size && [...a].every(([path, file]) => b.get(path) === file);

/** (1) */
function versioned(path: string, reached: Files): string {
  if (!isTracked(path)) return pathToFileURL(path).href;
  const hash = createHash("sha256");
  for (const file of [...reached.keys()].sort()) hash.update(`${file}\0${reached.get(file)?.hash ?? ""}\n`);
  return `${pathToFileURL(path).href}?v=${hash.digest("hex").slice(0, 16)}`;
}

/** The path of a module that these hooks gave its URL. (4) */
function trackedPath(url: string | undefined): string | undefined {
  const query = url?.indexOf("?v=") ?? -1;
  if (url === undefined || query === -1 || !url.startsWith("file:")) return undefined;
  const path = fileURLToPath(url.slice(0, query));
  return files.has(path) ? path : undefined;
}

const resolve: ResolveHookSync = (specifier, context, nextResolve) => {
  // Not resolved further: that would replace a symbolic link by its present target, and an atomic swap of the link, as
  // for mounted configuration, would go unseen.
  if (trackedPath(specifier) !== undefined) return { url: specifier, shortCircuit: true };
  const parent = trackedPath(context.parentURL);
  if (parent === undefined) return nextResolve(specifier, context);
  if (specifier === "onex-runtime") return { url: runtimeIndex, shortCircuit: true };
  if (!/^\.{1,2}\/[^?#]+$/.test(specifier)) return nextResolve(specifier, context);
  const path = fileURLToPath(new URL(specifier, pathToFileURL(parent)));
  refuseCommonJs(path);
  // A file that is not there gets Node's own words.
  if (!isTracked(path) || look(path).hash === unreadable) return nextResolve(specifier, context);
  const { importAttributes } = context;
  return { url: versioned(path, reach(path)), importAttributes, shortCircuit: true };
};

const load: LoadHookSync = (url, context, nextLoad) => {
  const path = trackedPath(url);
  if (path === undefined || !moduleExtensions.has(extname(path))) return nextLoad(url, context);
  const source = files.get(path)?.source ?? readFileSync(path, "utf8"); // (2)
  const format = path.endsWith("ts") ? "module-typescript" : "module";
  return { format, source, shortCircuit: true };
};
