/**
 * stdout for the command alone. A tool or a handler that runs in this process may print; where stdout carries a result or
 * the MCP protocol, that would spoil it.
 */
import { Writable } from "node:stream";

/** Takes stdout over: what is written to the value goes there, what anyone else prints goes to stderr. */
export function claimStdout(): Writable {
  const write = process.stdout.write.bind(process.stdout);
  process.stdout.write = process.stderr.write.bind(process.stderr);
  return new Writable({
    write(chunk: Uint8Array, _encoding, done) {
      // A failure is an event of stdout itself.
      write(chunk, () => done());
    },
  });
}

/** Resolves when the text has been handed to the operating system, so that the process may end. */
export function print(output: Writable, text: string): Promise<void> {
  return new Promise((resolve) => {
    output.write(text, () => resolve());
  });
}
