/**
 * Child processes of a benchmark. Owns: starting them, each on its own CPU where that can be had, talking to them over
 * IPC, and ending them. Does not own: what they do.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { on } from "node:events";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";

/**
 * Gateways get a CPU for themselves; load and service share another, as they stand for other machines. What belongs to a
 * system that is measured as a whole is left to the kernel.
 */
const cpus = { gateway: "0", others: "1", anywhere: undefined } as const;

const canPin = availableParallelism() > 1 && spawnSync("taskset", ["-c", "0", "true"]).status === 0;

/** How processes are placed, for the report. */
export const placement = canPin
  ? `gateway on CPU ${cpus.gateway}, load and service on CPU ${cpus.others}`
  : "not pinned to CPUs (taskset, or a second CPU, is missing)";

const preload = fileURLToPath(new URL("meter.ts", import.meta.url));

/** What a process has used so far. */
export interface Usage {
  /** User and system time in µs. */
  readonly cpu: number;
  /** Resident memory in bytes. */
  readonly rss: number;
}

export class Child implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #messages: AsyncIterator<unknown[]>;
  readonly #exit: Promise<void>;
  readonly #abort = new AbortController();
  /** What it wrote to stderr, for the case that it fails. */
  #stderr = "";

  constructor(place: keyof typeof cpus, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const node = [process.execPath, "--import", preload, ...args];
    const cpu = cpus[place];
    const [command = "", ...rest] = canPin && cpu !== undefined ? ["taskset", "-c", cpu, ...node] : node;
    this.#process = spawn(command, rest, {
      // Nothing of the caller's ONEX_… reaches what is measured.
      env: { PATH: process.env["PATH"] ?? "", ...env },
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#process.stderr?.on("data", (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.#messages = on(this.#process, "message", { signal: this.#abort.signal });
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#exit = promise;
    this.#process.once("exit", () => {
      this.#abort.abort(new Error(`a process of the benchmark ended: ${args.join(" ")}\n${this.#stderr}`));
      resolve(undefined);
    });
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  send(message: object | string): void {
    this.#process.send(message);
  }

  /** Its next message; rejects when it ends first. */
  async next<T>(): Promise<T> {
    try {
      const { value } = await this.#messages.next();
      return (value as [T])[0];
    } catch (error) {
      throw this.#abort.signal.aborted ? this.#abort.signal.reason : error;
    }
  }

  async ask<T>(message: object | string): Promise<T> {
    this.send(message);
    return this.next<T>();
  }

  /** Answers to what was asked before, and what it said unasked, are passed over. */
  async usage(): Promise<Usage> {
    this.send("usage");
    for (;;) {
      const message = await this.next<Usage | object>();
      if ("rss" in message) return message;
    }
  }

  /** Calls `listener` with its messages, at once. The value ends it. */
  onMessage(listener: (message: unknown) => void): () => void {
    this.#process.on("message", listener);
    return () => this.#process.off("message", listener);
  }

  /** Resolves with the value that `find` makes of a line of stderr; rejects when it ends first. */
  line<T>(find: (line: string) => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        for (const line of this.#stderr.split("\n").slice(0, -1)) {
          const found = find(line);
          if (found === undefined) continue;
          this.#process.stderr?.off("data", look);
          resolve(found);
          return;
        }
      };
      this.#process.stderr?.on("data", look);
      this.#abort.signal.addEventListener("abort", () => reject(this.#abort.signal.reason as Error));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGTERM");
    await this.#exit;
  }
}
