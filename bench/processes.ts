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
export type Place = keyof typeof cpus;

const canPin = availableParallelism() > 1 && spawnSync("taskset", ["-c", "0", "true"]).status === 0;

/** How processes are placed, for the report. */
export const placement = canPin
  ? `gateway on CPU ${cpus.gateway}, load and service on CPU ${cpus.others}`
  : "not pinned to CPUs (taskset, or a second CPU, is missing)";

function pinned(place: Place, command: readonly string[]): [string, ...string[]] {
  const cpu = cpus[place];
  const [first = "", ...rest] = command;
  return canPin && cpu !== undefined ? ["taskset", "-c", cpu, ...command] : [first, ...rest];
}

/** A command that runs where the gateways do. */
export const onGatewayCpu = (command: readonly string[]): [string, ...string[]] => pinned("gateway", command);

/** Takes the main program itself out of the gateway's way. Processes that it starts `anywhere` stay with it. */
export function leaveGatewayAlone(): void {
  if (canPin) spawnSync("taskset", ["-acp", cpus.others, String(process.pid)]);
}

const preload = fileURLToPath(new URL("meter.mjs", import.meta.url));

/** What a process has used so far. */
export interface Usage {
  /** User and system time in µs. */
  readonly cpu: number;
  /** Resident memory in bytes. */
  readonly rss: number;
}

/** What a process holds after a garbage collection, in bytes. */
export interface Heap {
  readonly heapUsed: number;
  /** Outside of V8's heap, such as buffers. */
  readonly external: number;
  readonly rss: number;
}

/** How many there are of each kind of what keeps a process alive. */
export interface Handles {
  readonly handles: Readonly<Record<string, number>>;
}

export interface ChildOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Without `meter.mjs`: only its lines can be read. Default false. */
  readonly bare?: boolean;
}

/** Characters of stderr that are kept. */
const maxStderr = 1_000_000;

export class Child implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #messages: AsyncIterator<unknown[]>;
  readonly #exit: Promise<void>;
  readonly #abort = new AbortController();
  /** What it wrote to stderr, for the case that it fails. */
  #stderr = "";

  constructor(place: Place, args: readonly string[], { env = {}, bare = false }: ChildOptions = {}) {
    const node = [process.execPath, ...(bare ? [] : ["--import", preload]), ...args];
    const [command, ...rest] = pinned(place, node);
    this.#process = spawn(command, rest, {
      // Nothing of the caller's ONEX_… reaches what is measured.
      env: { PATH: process.env["PATH"] ?? "", ...env },
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#process.stderr?.on("data", (chunk: Buffer) => {
      const text = this.#stderr + chunk.toString();
      this.#stderr = text.length > maxStderr ? text.slice(-maxStderr / 2) : text;
    });
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

  usage(): Promise<Usage> {
    return this.#reading("usage", "cpu");
  }

  /** Collects its garbage first. */
  heap(): Promise<Heap> {
    return this.#reading("heap", "heapUsed");
  }

  async handles(): Promise<Handles["handles"]> {
    return (await this.#reading<Handles>("handles", "handles")).handles;
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

  /** Of `meter.mjs`. Answers to what was asked before, and what it said unasked, are passed over. */
  async #reading<T extends object>(question: string, member: string & keyof T): Promise<T> {
    this.send(question);
    for (;;) {
      const message = await this.next<T | object | string>();
      if (typeof message === "object" && member in message) return message as T;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGTERM");
    await this.#exit;
  }
}
