/** A peer that takes connections and never answers. It ends with the test. */
import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { onTestFinished } from "vitest";

export interface SilentPeer {
  readonly host: string;
  readonly port: number;
  /** Resolves with the first connection. */
  readonly reached: Promise<unknown>;
}

export async function silentPeer(): Promise<SilentPeer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => undefined));
  });
  server.listen(0, "127.0.0.1");
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await once(server, "listening");
  const { address: host, port } = server.address() as AddressInfo;
  return { host, port, reached: once(server, "connection") };
}
