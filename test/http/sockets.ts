/** Raw TCP clients and servers for tests. What is made here is closed here, after each test. */
import { connect, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { afterEach } from "vitest";
import { listen, type HttpServer, type ListenOptions } from "../../src/http/server.ts";

const cleanups: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A server on a free port of 127.0.0.1, ended after the test. */
export async function serve(options: Partial<ListenOptions> = {}): Promise<HttpServer> {
  const server = await listen({ host: "127.0.0.1", port: 0, fetch: () => new Response("ok"), ...options });
  cleanups.push(() => server.destroy(new Error("the test is over")));
  return server;
}

export interface RawClient {
  readonly socket: Socket;
  /** Everything received so far. */
  text(): string;
  /** Resolves when the connection has ended, with everything received. */
  readonly ended: Promise<string>;
}

/** A TCP connection that sends what it is told and nothing else. */
export async function rawClient(server: { host: string; port: number }): Promise<RawClient> {
  const socket = connect({ host: server.host, port: server.port });
  cleanups.push(() => void socket.destroy());
  let text = "";
  socket.setEncoding("latin1").on("data", (chunk: string) => (text += chunk));
  const ended = new Promise<string>((resolve) => {
    // A reset is an end like another.
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(text));
  });
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve).once("error", reject);
  });
  return { socket, text: () => text, ended };
}

/** A promise and what settles it, for handlers that a test holds open. */
export const gate = (): PromiseWithResolvers<void> => Promise.withResolvers();

export const hasIPv6 = Object.values(networkInterfaces()).some((addresses) =>
  addresses?.some(({ address }) => address === "::1"),
);
