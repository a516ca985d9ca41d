/**
 * A service's process that cannot outlive the process that started it, however that one ends.
 *
 * 1. A watchdog shell reads a pipe whose write end only this process has. When the pipe closes, by SIGKILL as well, it
 *    kills the service and removes its data. It leads a session of its own, so that Ctrl-C reaches neither of them.
 * 2. `exited` resolves when nothing holds the service's output any more: its ports are free then.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/**
 * A line on the pipe ends the service alone; the pipe's end its data as well. The output is given away, so that its end is
 * the service's, and the service is reaped here, which init need not do.
 */
const watchdog = `
exec 3<&0
data=$1
shift
"$@" 3<&- </dev/null &
service=$!
exec >/dev/null 2>&1
if read line <&3; then data=; fi
kill -KILL $service
wait
[ -z "$data" ] || rm -rf "$data"`;

const keptLines = 40;

export class ServiceProcess {
  readonly exited: Promise<void>;
  readonly #shell: ChildProcess;
  readonly #lines: string[] = [];
  #running = true;

  /** @param data the folder of its data, removed where this process ends without having removed it */
  constructor(command: string, args: readonly string[], data: string) {
    this.#shell = spawn("/bin/sh", ["-c", watchdog, "watchdog", data, command, ...args], {
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
    });
    const outputs = [this.#shell.stdout!, this.#shell.stderr!].map((output) => {
      createInterface({ input: output }).on("line", (line) => {
        this.#lines.push(line);
        if (this.#lines.length > keptLines) this.#lines.shift();
      });
      return once(output, "end");
    });
    const shellGone = once(this.#shell, "exit");
    this.exited = Promise.all(outputs).then(async () => {
      this.#release();
      await shellGone;
    });
  }

  get running(): boolean {
    return this.#running;
  }

  /** The last lines it wrote. */
  get output(): string {
    return this.#lines.join("\n");
  }

  /** SIGKILL; resolves when it is gone. */
  async kill(): Promise<void> {
    this.#release();
    await this.exited;
  }

  #release(): void {
    if (this.#running) this.#shell.stdin!.end("end\n");
    this.#running = false;
  }
}

/**
 * Asks until `probe` resolves.
 * @param milliseconds after which, or when the process ends, it rejects with the last output
 */
export async function untilReady(
  name: string,
  service: ServiceProcess,
  probe: () => Promise<void>,
  milliseconds = 120_000,
): Promise<void> {
  const deadline = Date.now() + milliseconds;
  for (;;) {
    try {
      await probe();
      return;
    } catch (error) {
      const failed = !service.running ? "ended" : Date.now() > deadline ? "is not ready" : undefined;
      if (failed !== undefined) throw new Error(`${name} ${failed}: ${service.output}`, { cause: error });
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
