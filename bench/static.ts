/**
 * The yardstick of lists: `node:http` that gives the same bytes to every request, and does not look at it.
 *
 * Over IPC it is told the bytes, again before each row.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface Bytes {
  /** Base64. */
  readonly body: string;
}

let body = Buffer.alloc(0);

const server = createServer((request, response) => {
  request.resume();
  request.on("end", () => {
    response.writeHead(200, { "content-type": "application/json", "content-length": body.length }).end(body);
  });
});
server.keepAliveTimeout = 0;

process.on("message", (message: Bytes | string) => {
  if (typeof message === "string") return;
  body = Buffer.from(message.body, "base64");
  const told = (): unknown => process.send?.({ port: (server.address() as AddressInfo).port });
  if (server.listening) told();
  else server.listen(0, "127.0.0.1", told);
});
