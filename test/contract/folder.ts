/** A temporary folder for one test, removed when it is disposed of. */
import { mkdir, mkdtemp, realpath, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export interface Folder extends AsyncDisposable {
  readonly path: string;
  at(path: string): string;
  write(path: string, text: string | Uint8Array): Promise<void>;
  /** As editors save: a new file takes the old one's place. */
  replace(path: string, text: string): Promise<void>;
  link(target: string, path: string): Promise<void>;
  remove(path: string): Promise<void>;
  move(from: string, to: string): Promise<void>;
}

export async function tempFolder(): Promise<Folder> {
  const path = await realpath(await mkdtemp(join(tmpdir(), "onex-test-")));
  const at = (relative: string): string => join(path, relative);
  const parent = (relative: string): Promise<unknown> => mkdir(dirname(at(relative)), { recursive: true });
  let count = 0;
  return {
    path,
    at,
    async write(relative, text) {
      await parent(relative);
      await writeFile(at(relative), text);
    },
    async replace(relative, text) {
      count += 1;
      const temporary = at(`${relative}.${count}~`);
      await writeFile(temporary, text);
      await rename(temporary, at(relative));
    },
    async link(target, relative) {
      await parent(relative);
      await symlink(target, at(relative));
    },
    remove: (relative) => rm(at(relative), { recursive: true }),
    async move(from, to) {
      await parent(to);
      await rename(at(from), at(to));
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}
