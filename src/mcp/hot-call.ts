/**
 * One plain call under way and its answer. Owns: the HTTP response, and what ends the call early. Does not own: running it.
 *
 * 1. It is answered once. A cancelled call has no answer: its response ends empty, as the protocol's streams do.
 * 2. A client that goes ends its call, unless a session keeps it: there the call goes on, and its answer is lost.
 * 3. An answer that takes long becomes a stream, kept alive by comments, so that nothing on the way gives it up; but not
 *    for a client that takes no stream.
 */
import type { ServerResponse } from "node:http";
import { Cancellation } from "../core/abort.ts";
import type { Deadlines, Limited } from "../core/deadlines.ts";
import { CancelledError } from "../core/errors.ts";
import type { RpcId } from "./message.ts";
import type { Session } from "./session.ts";

const jsonType = "application/json";
const streamType = "text/event-stream";
const cacheControl = "no-cache, no-transform";

type State = "waiting" | "streaming" | "over";

export class HotCall implements Limited {
  readonly id: RpcId;
  readonly cancellation = new Cancellation();
  due = 0;
  before: Limited | undefined;
  after: Limited | undefined;
  readonly #response: ServerResponse;
  readonly #session: Session | undefined;
  readonly #takesStream: boolean;
  readonly #keeper: Deadlines;
  #state: State = "waiting";

  constructor(
    id: RpcId,
    response: ServerResponse,
    session: Session | undefined,
    takesStream: boolean,
    keeper: Deadlines,
  ) {
    this.id = id;
    this.#keeper = keeper;
    this.#response = response;
    this.#session = session;
    this.#takesStream = takesStream;
    if (session === undefined) response.once("close", () => this.#gone()); // (2)
  }

  /** Its time begins: to be called once it is sure that it is answered here. */
  begin(): void {
    this.#keeper.add(this);
  }

  /** @param text the JSON-RPC response */
  answer(text: string): void {
    if (this.#state === "over") return;
    // Between the tokens of JSON that a service wrote there may be line breaks; a line ends a frame's data.
    if (this.#state === "streaming")
      this.#response.end(`event: message\ndata: ${text.replace(/[\r\n]+/g, " ")}\n\n`);
    else sendJson(this.#response, text, this.#session?.id);
    this.#end();
  }

  /** Ends the call without an answer. (1) */
  cancel(reason: unknown): void {
    if (this.#state === "over") return;
    if (this.#state === "waiting") this.#response.writeHead(200, this.#head(streamType));
    this.#response.end();
    this.#end();
    this.cancellation.abort(reason);
  }

  /** (3) */
  timeOver(): void {
    if (this.#takesStream) {
      if (this.#state === "waiting") {
        const head = [...this.#head(streamType), "connection", "keep-alive", "x-accel-buffering", "no"];
        this.#response.writeHead(200, head);
        this.#state = "streaming";
      }
      this.#response.write(": keepalive\n\n");
    }
    this.#keeper.add(this);
  }

  #gone(): void {
    if (this.#state === "over") return;
    this.#end();
    this.cancellation.abort(new CancelledError());
  }

  #end(): void {
    this.#state = "over";
    this.#keeper.remove(this);
    this.#session?.endPlain(this);
  }

  #head(type: string): string[] {
    return headOf(type, this.#session?.id);
  }
}

const headOf = (type: string, session: string | undefined): string[] => {
  const head = ["cache-control", cacheControl, "content-type", type];
  if (session !== undefined) head.push("mcp-session-id", session);
  return head;
};

/** Answers with a JSON-RPC response. */
export function sendJson(response: ServerResponse, text: string, session: string | undefined): void {
  const head = headOf(jsonType, session);
  head.push("content-length", String(Buffer.byteLength(text)));
  response.writeHead(200, head).end(text);
}

/** The same in two parts, of which the first is kept ready. */
export function sendBytes(
  response: ServerResponse,
  first: Buffer,
  last: string,
  session: string | undefined,
): void {
  const head = headOf(jsonType, session);
  head.push("content-length", String(first.length + Buffer.byteLength(last)));
  response.writeHead(200, head);
  response.write(first);
  response.end(last);
}
