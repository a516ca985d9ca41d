/** A service of a test's own, and HandlerHttp initialized to call it. */
import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { readEnvelope } from "../../src/bus/envelope.ts";
import { HandlerHttp } from "../../src/handlers/http.ts";

export interface Service extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Open connections. */
  readonly sockets: ReadonlySet<Socket>;
  readonly server: Server;
}

export async function startService(listener: RequestListener): Promise<Service> {
  const server = createServer(listener);
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    sockets,
    server,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

export interface Requests extends AsyncDisposable {
  readonly handler: HandlerHttp;
  /** Runs `http.<verb>`. */
  send(verb: string, payload: Record<string, unknown>, signal?: AbortSignal): Promise<any>;
}

export async function requests(config: Record<string, unknown> = {}): Promise<Requests> {
  const handler = new HandlerHttp();
  await handler.initialize(config);
  return {
    handler,
    async send(verb, payload, signal = new AbortController().signal) {
      const read = readEnvelope({ operation: verb.includes(".") ? verb : `http.${verb}`, payload });
      if (!read.ok) throw read.error;
      return await handler.execute(read.envelope, { signal });
    },
    async [Symbol.asyncDispose]() {
      await handler.shutdown();
    },
  };
}
