/** How many sockets a process has open to a port, looked up in Linux's /proc again and again. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const lookMs = 20;
const established = "01";

export class SocketWatch {
  #most: number | undefined;
  #isOver = false;
  readonly #done: Promise<void>;

  constructor(pid: number, port: number) {
    this.#done = this.#run(pid, port).catch(() => undefined);
  }

  /** Ends it. The most that were open at one time; undefined: that cannot be told here. */
  async end(): Promise<number | undefined> {
    this.#isOver = true;
    await this.#done;
    return this.#most;
  }

  async #run(pid: number, port: number): Promise<void> {
    while (!this.#isOver) {
      this.#most = Math.max(this.#most ?? 0, await count(pid, port));
      await sleep(lookMs);
    }
  }
}

/** Rejects where there is no such process, or no /proc. */
async function count(pid: number, port: number): Promise<number> {
  const rows = (await readFile(`/proc/${pid}/net/tcp`, "utf8")).split("\n").slice(1);
  const remote = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const inodes = rows
    .map((row) => row.trim().split(/\s+/))
    .filter((cells) => cells[2]?.endsWith(remote) === true && cells[3] === established)
    .map((cells) => `socket:[${cells[9]}]`);
  const own = new Set<string>();
  for (const descriptor of await readdir(`/proc/${pid}/fd`)) {
    // It may have been closed since.
    own.add(await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => ""));
  }
  return inodes.filter((inode) => own.has(inode)).length;
}
