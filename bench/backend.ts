/**
 * The service behind the tools: a child process that echoes arguments. `/rest` takes them bare, `/onex` in the envelope.
 * Its argument is how many milliseconds it takes for that; default 0.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

const delayMs = Number(process.argv[2] ?? 0);

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString();
    const answer = request.url === "/onex" ? JSON.stringify(JSON.parse(body).payload) : body;
    const send = (): void => {
      response
        .writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(answer) })
        .end(answer);
    };
    if (delayMs > 0) setTimeout(send, delayMs);
    else send();
  });
});
// An idle pool must not lose its connections between two runs.
server.keepAliveTimeout = 0;
server.listen(0, "127.0.0.1", () => process.send?.({ port: (server.address() as AddressInfo).port }));
