/**
 * The runtime as its package has it: compiled, in a folder of its own. A checkout runs its sources, which costs a start and
 * memory that nobody pays who has installed it.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

export interface Built extends AsyncDisposable {
  readonly launcher: string;
}

/** Compiles the sources as they are. Rejects where the compiler finds a mistake. */
export async function build(): Promise<Built> {
  const folder = await mkdtemp(join(tmpdir(), "onex-built-"));
  const dispose = (): Promise<void> => rm(folder, { recursive: true });
  const compiler = join(root, "node_modules/typescript/bin/tsc");
  const args = [compiler, "-p", join(root, "tsconfig.build.json"), "--outDir", join(folder, "dist")];
  const [code] = (await once(spawn(process.execPath, args, { stdio: ["ignore", 2, 2] }), "exit")) as [number];
  if (code !== 0) {
    await dispose();
    throw new Error(`the compiler ended with ${code}`);
  }
  for (const name of ["package.json", "bin", "contracts"])
    await cp(join(root, name), join(folder, name), { recursive: true });
  await symlink(join(root, "node_modules"), join(folder, "node_modules"));
  return { launcher: join(folder, "bin/onex.js"), [Symbol.asyncDispose]: dispose };
}
