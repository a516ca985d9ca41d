/**
 * One keep-alive HTTP/1.1 connection of the load generator: a request is written, its answer awaited, then the next.
 * Raw, because the load must cost less than what it measures.
 */
import { connect, type Socket } from "node:net";

export interface Answer {
  readonly status: number;
  /** Status line and headers. */
  readonly head: string;
  readonly body: Buffer;
}

const answerTimeoutMs = 30_000;
const headEnd = Buffer.from("\r\n\r\n");
const chunksEnd = Buffer.from("0\r\n\r\n");

export class Connection {
  readonly #socket: Socket;
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** Bytes of the whole answer; undefined until the head has been read, Infinity where chunks follow it. */
  #expected: number | undefined;
  #headBytes = 0;
  #waiting: { resolve(answer: Answer): void; reject(error: Error): void } | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("close", () => this.#fail(new Error("the connection was closed")));
    socket.on("error", (error) => this.#fail(error));
  }

  static async open(url: URL): Promise<Connection> {
    const socket = connect(Number(url.port), url.hostname);
    socket.setNoDelay(true);
    socket.setTimeout(answerTimeoutMs, () => socket.destroy(new Error("no answer within 30 s")));
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return new Connection(socket);
  }

  /** @param request whole; its answer must have come before the next */
  exchange(request: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#socket.write(request, "latin1");
    });
  }

  /** Resolves with the head of an answer that does not end, and that nobody reads on. */
  openStream(request: string): Promise<string> {
    this.#socket.setTimeout(0);
    this.#socket.removeAllListeners("data");
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve: ({ head }) => resolve(head), reject };
      this.#socket.on("data", (chunk: Buffer) => {
        this.#waiting?.resolve({ status: 0, head: chunk.toString("latin1"), body: chunk });
        this.#waiting = undefined;
      });
      this.#socket.write(request, "latin1");
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #onData(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#expected === undefined) this.#readHead();
    const body = this.#body();
    if (body === undefined) return;
    const head = this.#joined().toString("latin1", 0, this.#headBytes);
    this.#chunks = [];
    this.#bytes = 0;
    this.#expected = undefined;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve({ status: Number(head.slice(9, 12)), head, body });
  }

  #readHead(): void {
    const seen = this.#joined();
    const end = seen.indexOf(headEnd);
    if (end === -1) return;
    this.#headBytes = end + headEnd.length;
    const head = seen.toString("latin1", 0, end);
    const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1];
    const chunked = /\r\ntransfer-encoding: chunked/i.test(head);
    this.#expected = chunked ? Infinity : this.#headBytes + Number(length ?? 0);
  }

  /** Undefined until it is whole. */
  #body(): Buffer | undefined {
    if (this.#expected === undefined) return undefined;
    if (this.#expected !== Infinity)
      return this.#bytes < this.#expected ? undefined : this.#joined().subarray(this.#headBytes);
    const coded = this.#joined().subarray(this.#headBytes);
    return coded.subarray(-chunksEnd.length).equals(chunksEnd) ? unchunk(coded) : undefined;
  }

  #joined(): Buffer {
    const [first] = this.#chunks;
    if (this.#chunks.length === 1 && first !== undefined) return first;
    const joined = Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }

  #fail(error: Error): void {
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }
}

/** The body in chunked transfer coding (RFC 9112, section 7.1); undefined where it only looks as if it had ended. */
function unchunk(coded: Buffer): Buffer | undefined {
  const parts: Buffer[] = [];
  for (let at = 0; at < coded.length;) {
    const lineEnd = coded.indexOf("\r\n", at);
    const size = Number.parseInt(coded.toString("latin1", at, lineEnd), 16);
    if (size === 0) return Buffer.concat(parts);
    parts.push(coded.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
  }
  return undefined;
}
