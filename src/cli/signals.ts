/** SIGTERM and SIGINT: the first asks for an orderly end, the second ends the process at once. */
import { constants } from "node:os";
import { endProcess } from "./failures.ts";

const names = ["SIGTERM", "SIGINT"] as const;

/** What a shell reports for a process that a signal ended. */
const exitCodeOf = (name: (typeof names)[number]): number => 128 + constants.signals[name];

export interface Signals extends Disposable {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal;
  /** 130 for SIGINT, 143 for SIGTERM; undefined while there was none. */
  readonly exitCode: number | undefined;
}

/** As long as Node's timers go. */
const aliveMs = 2 ** 31 - 1;

/** Takes both signals over until it is disposed; meanwhile the process stays, also where nothing else keeps it. */
export function takeSignals(): Signals {
  const controller = new AbortController();
  let exitCode: number | undefined;
  const onSignal = (name: NodeJS.Signals): void => {
    const code = exitCodeOf(name === "SIGINT" ? "SIGINT" : "SIGTERM");
    if (exitCode !== undefined) endProcess(code);
    exitCode = code;
    controller.abort(new Error(`${name} was received`));
  };
  for (const name of names) process.on(name, onSignal);
  const alive = setInterval(() => undefined, aliveMs);
  return {
    signal: controller.signal,
    get exitCode() {
      return exitCode;
    },
    [Symbol.dispose]() {
      clearInterval(alive);
      for (const name of names) process.off(name, onSignal);
    },
  };
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
