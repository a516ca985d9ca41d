/** Services that misbehave, on raw sockets. Everything that is opened here is gone when the test is over. */
import { createServer, type AddressInfo, type Socket } from "node:net";
import { onTestFinished } from "vitest";

export interface Peer {
  readonly port: number;
  /** Requests that came whole, head and body. */
  readonly requests: () => number;
  /** Bytes that were given to the sockets of all connections. */
  readonly sent: () => number;
}

export interface Behaviour {
  /** A connection has come. */
  readonly onConnection?: (socket: Socket) => void;
  /** A request has come whole. */
  readonly onRequest?: (socket: Socket) => void;
}

/** A TCP server on a free port of 127.0.0.1 that understands just enough of HTTP to know when a request is whole. */
export async function peer({ onConnection, onRequest }: Behaviour): Promise<Peer> {
  const sockets = new Set<Socket>();
  let requests = 0;
  let sentBefore = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => {
      sockets.delete(socket);
      sentBefore += socket.bytesWritten;
    });
    // That the other side resets is what many of them are for.
    socket.on("error", () => undefined);
    onConnection?.(socket);
    let text = "";
    socket.setEncoding("latin1").on("data", (chunk: string) => {
      text += chunk;
      for (;;) {
        const length = lengthOfRequest(text);
        if (length === undefined || text.length < length) return;
        text = text.slice(length);
        requests++;
        onRequest?.(socket);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of sockets) socket.destroy();
    await closed;
  });
  const { port } = server.address() as AddressInfo;
  const sent = (): number => [...sockets].reduce((sum, { bytesWritten }) => sum + bytesWritten, sentBefore);
  return { port, requests: () => requests, sent };
}

/** Of its head and body; undefined where the head has not come whole. */
function lengthOfRequest(text: string): number | undefined {
  const end = text.indexOf("\r\n\r\n");
  if (end === -1) return undefined;
  const length = /^content-length: *(\d+)/im.exec(text.slice(0, end))?.[1] ?? "0";
  return end + 4 + Number(length);
}

/** An answer as it goes over the wire. */
export function answer(status: string, headers: Readonly<Record<string, string>>, body = ""): string {
  const lines = Object.entries({ "content-length": String(body.length), ...headers });
  return `HTTP/1.1 ${status}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`;
}

/** Sends so many bytes, as fast as they are taken, until the other side has had enough. */
export function pour(socket: Socket, bytes: number): void {
  const chunk = Buffer.alloc(64 * 1024, "x");
  let left = bytes;
  const more = (): void => {
    while (left > 0 && !socket.destroyed) {
      left -= chunk.length;
      if (!socket.write(chunk)) return;
    }
  };
  socket.on("drain", more);
  more();
}

/** Sends a byte again and again, for ever. */
export function drip(socket: Socket, milliseconds: number): void {
  const timer = setInterval(() => socket.write("x"), milliseconds);
  socket.on("close", () => clearInterval(timer));
}
