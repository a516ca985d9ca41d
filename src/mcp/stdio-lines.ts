/**
 * Lines of stdin that are no JSON-RPC message are answered here: the SDK's transport would pass them over, and a client that
 * waits for an answer would wait for ever. Every other line goes on as it is.
 */
import { STDIO_DEFAULT_MAX_BUFFER_SIZE } from "@modelcontextprotocol/server";
import { Transform, type TransformCallback, type Writable } from "node:stream";
import { readMessage } from "./message.ts";

const newline = 10;

/** Reads lines; what it refuses is answered on `stdout`. */
export class MessageLines extends Transform {
  readonly #stdout: Writable;
  #rest: Buffer = Buffer.alloc(0);

  constructor(stdout: Writable) {
    super();
    this.#stdout = stdout;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let end = this.#rest.indexOf(newline);
    while (end !== -1) {
      this.#line(this.#rest.subarray(0, end + 1));
      this.#rest = this.#rest.subarray(end + 1);
      end = this.#rest.indexOf(newline);
    }
    // Longer than the transport takes: it ends the connection, and says so.
    if (this.#rest.length > STDIO_DEFAULT_MAX_BUFFER_SIZE) this.#passOn(this.#rest);
    done();
  }

  #line(line: Buffer): void {
    const text = line.toString("utf8").trim();
    const reading = text === "" ? undefined : readMessage(text);
    if (reading?.ok === true) {
      this.push(line);
    } else if (reading !== undefined) {
      const { id, ...error } = reading.refusal;
      this.#stdout.write(`${JSON.stringify({ jsonrpc: "2.0", error, id })}\n`);
    }
  }

  #passOn(part: Buffer): void {
    this.push(part);
    this.#rest = Buffer.alloc(0);
  }
}
