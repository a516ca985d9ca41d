/**
 * Watches a directory. Owns the watcher and which of its events are worth a look. An event is only a hint that something
 * may have changed: what did is found by looking at the files.
 */
import type { Stats } from "node:fs";
import { lstat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { watch as watchFiles } from "chokidar";
import { relativePath } from "../contract/load.ts";
import { within } from "../core/abort.ts";
import { messageOf } from "../core/errors.ts";

/** Milliseconds a watcher may take to begin; a large tree takes one second. */
const readyMs = 10_000;

export interface FolderWatchOptions {
  /** As it was configured: links on the way are watched too. */
  readonly directory: string;
  /** The same with links resolved. */
  readonly root: string;
  /** Whether a change of this file matters; relative to the directory, with `/`. */
  readonly matters: (path: string) => boolean;
  readonly onHint: () => void;
  /** From now on changes may go unnoticed. */
  readonly onError: (reason: string) => void;
}

export interface FolderWatch {
  readonly root: string;
  /** After this nothing is called any more. */
  close(): Promise<void>;
}

/** Resolves when every later change will be noticed. */
export async function watchFolder(options: FolderWatchOptions): Promise<FolderWatch> {
  const { directory, root, matters, onHint, onError } = options;
  const links = await linksOnTheWay(directory);
  // Links are watched as themselves: one that comes to lead elsewhere is a change of its own.
  const watcher = watchFiles([root, ...links], {
    ignoreInitial: true,
    followSymlinks: false,
    atomic: false,
    // What may not be read is in the load report.
    ignorePermissionErrors: true,
    ignored: (path, stats) => path !== root && isIgnored(path, stats),
  });
  const onEvent = (event: string, path: string, stats?: Stats): void => {
    if (event.endsWith("Dir") || stats?.isSymbolicLink() === true || links.includes(path)) onHint();
    else if (matters(relativePath(root, path))) onHint();
  };
  watcher.on("all", onEvent);
  watcher.on("error", (error) => onError(messageOf(error)));
  const ready = new Promise<void>((resolveReady) => watcher.on("ready", resolveReady));
  if ((await within(ready, readyMs)) === "timeout") onError("the watcher was not ready in time");
  return { root, close: () => watcher.close() };
}

/** Not what scans leave out, except for links: Kubernetes changes all files of a volume by one hidden link. */
function isIgnored(path: string, stats: Stats | undefined): boolean {
  const name = basename(path);
  if (name === "node_modules") return true;
  return name.startsWith(".") && stats?.isDirectory() === true;
}

async function linksOnTheWay(directory: string): Promise<string[]> {
  const links: string[] = [];
  for (let path = resolve(directory); path !== dirname(path); path = dirname(path)) {
    const facts = await lstat(path).catch(() => undefined);
    if (facts?.isSymbolicLink() === true) links.push(path);
  }
  return links;
}
