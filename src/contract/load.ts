/**
 * Reading contract files safely. Owns: finding them under a directory, the limits on what is read, YAML, and the load
 * report's entries. Does not own: what a contract means (`node.ts`, `handler.ts`).
 *
 * 1. Nothing outside the directory is read, whatever links say.
 * 2. One bad file or folder never stops a scan; it becomes an entry of the report.
 * 3. Files come in one order, by path, whatever the file system's order is.
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { open, readdir, realpath, stat } from "node:fs/promises";
import { join, relative, resolve, sep } from "node:path";
import { HandlerLoadError, messageOf } from "../core/errors.ts";
import { parseYaml } from "./yaml.ts";

/** Bytes of one file at most. */
export const maxFileBytes = 10 * 1024 * 1024;

export type FileOutcome = "loaded" | "skipped" | "failed";

/** One line of the load report. */
export interface LoadEntry {
  /** Relative to the directory, with `/`. */
  readonly path: string;
  readonly kind: "node" | "handler";
  readonly outcome: FileOutcome;
  readonly name?: string;
  /** The tool's name, where the contract gives it one of its own. */
  readonly tool?: string;
  /** Why it was skipped or failed. */
  readonly reason?: string;
  /** `HANDLER_LOADER_…` where one applies. */
  readonly code?: string;
  /** Known keys without effect here, repairs made: nothing that stops the contract from working. */
  readonly informational?: readonly string[];
}

/** Every file that was looked at, with what became of it. */
export interface LoadReport {
  readonly directory: string;
  readonly entries: readonly LoadEntry[];
}

/** A file that was read and parsed. */
export interface ScannedFile {
  /** Relative to the directory, with `/`. */
  readonly path: string;
  /** Absolute, links resolved. */
  readonly file: string;
  /** The parsed YAML. May share objects between places (aliases), never contains a cycle. */
  readonly data: unknown;
  /** SHA-256 of the bytes, in hexadecimal. */
  readonly hash: string;
  /** What the parser found odd, such as a tag it does not know. */
  readonly warnings: readonly string[];
}

export interface ScanResult {
  readonly files: readonly ScannedFile[];
  /** Files that could not be read and folders that could not be entered. */
  readonly failures: readonly LoadEntry[];
  /** Paths that the scan went through by a link, and where the links lead; relative, with `/`. */
  readonly links: readonly string[];
}

export interface FoundFile {
  readonly path: string;
  readonly file: string;
  readonly bytes: Buffer;
  readonly hash: string;
}

const portable = (path: string): string => (sep === "/" ? path : path.replaceAll(sep, "/"));

/** `path` relative to `directory`, with `/`. */
export const relativePath = (directory: string, path: string): string => portable(relative(directory, path));

/** Whether an absolute path lies in a directory; both with links resolved. */
export function isInside(directory: string, path: string): boolean {
  return path === directory || path.startsWith(directory.endsWith(sep) ? directory : directory + sep);
}

/** The code of a failed file system call, such as `ENOENT`. */
export function systemCode(thrown: unknown): string | undefined {
  return thrown instanceof Error && "code" in thrown && typeof thrown.code === "string"
    ? thrown.code
    : undefined;
}

/** The message of a failure without the loader code, which entries carry on their own. */
export function reasonOf(error: unknown): string {
  const message = messageOf(error);
  const prefix = error instanceof HandlerLoadError ? `${error.loaderCode}: ` : "";
  return message.startsWith(prefix) ? message.slice(prefix.length) : message;
}

/**
 * The directory with links resolved.
 *
 * @throws HandlerLoadError 020 absent, 021 not permitted, 022 not a directory
 */
export async function resolveDirectory(directory: string): Promise<string> {
  const absolute = resolve(directory);
  try {
    const real = await realpath(absolute);
    if ((await stat(real)).isDirectory()) return real;
  } catch (error) {
    throw directoryError(absolute, error);
  }
  throw new HandlerLoadError("HANDLER_LOADER_022", `the contracts directory ${absolute} is not a directory`);
}

function directoryError(directory: string, error: unknown): HandlerLoadError {
  const code = systemCode(error);
  if (code === "EACCES" || code === "EPERM") {
    return new HandlerLoadError(
      "HANDLER_LOADER_021",
      `the contracts directory ${directory} may not be read; check its permissions`,
      { cause: error },
    );
  }
  if (code === "ENOTDIR") {
    return new HandlerLoadError(
      "HANDLER_LOADER_022",
      `the contracts directory ${directory} leads through something that is not a directory`,
      { cause: error },
    );
  }
  if (code === "ENOENT") {
    return new HandlerLoadError(
      "HANDLER_LOADER_020",
      `there is no contracts directory ${directory}; make one with \`onex init\` or name another one`,
      { cause: error },
    );
  }
  return new HandlerLoadError(
    "HANDLER_LOADER_020",
    `the contracts directory ${directory}: ${messageOf(error)}`,
    {
      cause: error,
    },
  );
}

/**
 * The bytes of a file that lies in a directory. (1)
 *
 * @throws HandlerLoadError 001 not found, 005 too large, 007 not a file, 008 unreadable or outside the directory
 */
export async function readContained(directory: string, path: string): Promise<FoundFile> {
  const root = await resolveDirectory(directory);
  return await readUnder(root, resolve(root, path));
}

/**
 * Reads and parses one contract file.
 *
 * @throws HandlerLoadError 001, 002 (YAML, with line and column), 005, 007, 008
 */
export async function readContractFile(directory: string, file: string): Promise<ScannedFile> {
  return parseFound(await readContained(directory, file));
}

/**
 * Parses a contract that is not a file, by the same rules.
 *
 * @param path where it came from, for messages
 * @throws HandlerLoadError 002 (YAML, with line and column), 005
 */
export function parseContractText(path: string, text: string | Uint8Array): unknown {
  const bytes = typeof text === "string" ? Buffer.from(text) : text;
  if (bytes.length > maxFileBytes) throw tooLarge(path, bytes.length);
  const parsed = parseYaml(bytes);
  if (!parsed.ok) throw notYaml(path, parsed.problem);
  return parsed.data;
}

const tooLarge = (path: string, bytes: number): HandlerLoadError =>
  new HandlerLoadError("HANDLER_LOADER_005", `${path} has ${bytes} bytes, ${maxFileBytes} is the most`);

const notYaml = (path: string, problem: string): HandlerLoadError =>
  new HandlerLoadError("HANDLER_LOADER_002", `${path} is not valid YAML: ${problem}`);

function parseFound(found: FoundFile): ScannedFile {
  const parsed = parseYaml(found.bytes);
  if (!parsed.ok) throw notYaml(found.path, parsed.problem);
  return {
    path: found.path,
    file: found.file,
    hash: found.hash,
    data: parsed.data,
    warnings: parsed.warnings,
  };
}

async function readUnder(root: string, file: string): Promise<FoundFile> {
  const path = relativePath(root, file);
  let real: string;
  try {
    real = await realpath(file);
  } catch (error) {
    throw fileError(path, error);
  }
  if (!isInside(root, real)) {
    throw new HandlerLoadError("HANDLER_LOADER_008", `${path} leads out of the contracts directory`);
  }
  try {
    // Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
    await using handle = await open(real, constants.O_RDONLY | constants.O_NONBLOCK);
    const facts = await handle.stat();
    if (!facts.isFile()) throw new HandlerLoadError("HANDLER_LOADER_007", `${path} is not a file`);
    if (facts.size > maxFileBytes) throw tooLarge(path, facts.size);
    const bytes = await handle.readFile();
    return { path, file: real, bytes, hash: createHash("sha256").update(bytes).digest("hex") };
  } catch (error) {
    throw error instanceof HandlerLoadError ? error : fileError(path, error);
  }
}

function fileError(path: string, error: unknown): HandlerLoadError {
  return systemCode(error) === "ENOENT"
    ? new HandlerLoadError("HANDLER_LOADER_001", `${path} does not exist`, { cause: error })
    : new HandlerLoadError("HANDLER_LOADER_008", `${path} cannot be read: ${messageOf(error)}`, {
        cause: error,
      });
}

/**
 * Finds and reads every file of this name under a directory; `node_modules` and folders whose name starts with a dot
 * are left out. (2) (3)
 *
 * @param previous files of an earlier scan by path: one whose bytes are the same is not parsed again
 * @throws HandlerLoadError 020, 021, 022 for the directory itself
 */
export async function scanContracts(
  directory: string,
  fileName: string,
  previous?: ReadonlyMap<string, ScannedFile>,
): Promise<ScanResult> {
  const root = await resolveDirectory(directory);
  const kind = fileName.startsWith("handler") ? "handler" : "node";
  const files: ScannedFile[] = [];
  const failures: LoadEntry[] = [];
  const walk = await findFiles(root, fileName);
  const fail = (path: string, error: unknown): void => {
    const code = error instanceof HandlerLoadError ? { code: error.loaderCode } : {};
    failures.push({ path, kind, outcome: "failed", reason: reasonOf(error), ...code });
  };
  for (const problem of walk.problems) fail(problem.path, problem.error);
  for (const path of walk.skipped) {
    failures.push({
      path,
      kind,
      outcome: "skipped",
      reason: "the folder is a link out of the contracts directory",
    });
  }
  const links = new Set(walk.links);
  for (const file of walk.files) {
    try {
      const found = await readUnder(root, file);
      const target = relativePath(root, found.file);
      if (target !== found.path) links.add(target);
      const known = previous?.get(found.path);
      files.push(known?.hash === found.hash && known.file === found.file ? known : parseFound(found));
    } catch (error) {
      fail(relativePath(root, file), error);
    }
  }
  return { files, failures, links: [...links] };
}

interface Walk {
  readonly files: string[];
  readonly problems: { readonly path: string; readonly error: unknown }[];
  readonly skipped: string[];
  readonly links: string[];
}

async function findFiles(root: string, fileName: string): Promise<Walk> {
  const walk: Walk = { files: [], problems: [], skipped: [], links: [] };
  const linked: string[] = [];
  const seen = new Set<string>();
  await walkFolder(root, root);
  // Linked folders come last: one that leads to a folder already seen under its own name adds nothing.
  for (let next = linked.shift(); next !== undefined; next = linked.shift()) await followLink(next);
  walk.files.sort(byPath);
  return walk;

  async function walkFolder(folder: string, real: string): Promise<void> {
    if (seen.has(real)) return;
    seen.add(real);
    let entries;
    try {
      entries = await readdir(folder, { withFileTypes: true });
    } catch (error) {
      const path = relativePath(root, folder);
      if (folder === root) throw directoryError(root, error);
      // A folder that went away while the scan was under way is simply not there.
      if (systemCode(error) === "ENOENT") return;
      walk.problems.push({ path, error: directoryError(path, error) });
      return;
    }
    entries.sort((a, b) => byPath(a.name, b.name));
    for (const entry of entries) {
      const path = join(folder, entry.name);
      if (entry.name === fileName) walk.files.push(path);
      else if (isIgnoredFolder(entry.name)) continue;
      else if (entry.isDirectory()) await walkFolder(path, join(real, entry.name));
      else if (entry.isSymbolicLink()) linked.push(path);
    }
  }

  async function followLink(link: string): Promise<void> {
    try {
      const real = await realpath(link);
      if (!(await stat(real)).isDirectory()) return;
      walk.links.push(relativePath(root, link));
      if (!isInside(root, real)) walk.skipped.push(relativePath(root, link));
      else await walkFolder(link, real);
    } catch {
      // A link that leads nowhere holds no contract.
    }
  }
}

/** Folders that no scan enters: installed packages and hidden ones. */
const isIgnoredFolder = (name: string): boolean => name === "node_modules" || name.startsWith(".");

const byPath = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
