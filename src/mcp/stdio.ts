/** MCP over stdin and stdout, every revision. Owns the one connection; stdout carries protocol messages only. */
import type { Server } from "@modelcontextprotocol/server";
import { serveStdio, StdioServerTransport } from "@modelcontextprotocol/server/stdio";
import type { Readable, Writable } from "node:stream";
import type { SnapshotListener } from "../tools/catalog.ts";
import { buildServer, type ServerDeps } from "./server.ts";

export interface StdioOptions extends ServerDeps {
  readonly onChange: (listener: SnapshotListener) => () => void;
  readonly stdin: Readable;
  readonly stdout: Writable;
}

export interface StdioConnection {
  /** Settles when the client has closed its end, or after `close()`. */
  readonly closed: Promise<undefined>;
  close(): Promise<void>;
}

/** Serves one client. The era is that of its first message. */
export function serveOverStdio(options: StdioOptions): StdioConnection {
  const servers = new Set<Server>();
  const build = (): Server => {
    const server = buildServer(options);
    servers.add(server);
    return server;
  };
  const stopListening = options.onChange(() => {
    for (const server of servers) {
      if (server.transport === undefined) continue;
      server.sendToolListChanged().catch((error: unknown) => {
        options.log.debug({ err: String(error) }, "the client could not be told of changed tools");
      });
    }
  });
  const transport = new StdioServerTransport(options.stdin, options.stdout);
  const handle = serveStdio(build, {
    transport,
    onerror: (error) => options.log.debug({ err: error.message }, "MCP message refused"),
  });
  const { promise: closed, resolve } = Promise.withResolvers<undefined>();
  const end = (): void => {
    stopListening();
    resolve(undefined);
  };
  options.stdin.once("end", end);
  options.stdin.once("close", end);
  return {
    closed,
    async close() {
      end();
      await handle.close();
    },
  };
}
