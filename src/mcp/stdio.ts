/** MCP over stdin and stdout, every revision. Owns the one connection; stdout carries protocol messages only. */
import type { Server } from "@modelcontextprotocol/server";
import { serveStdio, StdioServerTransport } from "@modelcontextprotocol/server/stdio";
import type { Readable, Writable } from "node:stream";
import type { SnapshotListener } from "../tools/catalog.ts";
import { buildServer, type ServerDeps } from "./server.ts";
import { MessageLines } from "./stdio-lines.ts";

export interface StdioOptions extends ServerDeps {
  readonly onChange: (listener: SnapshotListener) => () => void;
  readonly stdin: Readable;
  readonly stdout: Writable;
}

export interface StdioConnection {
  /** Settles when the client has closed its end, cannot be written to, or sends more than can be read; or after `close()`. */
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
  const { promise: closed, resolve } = Promise.withResolvers<undefined>();
  const transport = new ObservedTransport(options.stdin, options.stdout, () => {
    stopListening();
    resolve(undefined);
  });
  const handle = serveStdio(build, {
    transport,
    onerror: (error) => options.log.debug({ err: error.message }, "MCP message refused"),
  });
  return { closed, close: () => handle.close() };
}

/** Says when it is closed: whatever ends the connection goes through here. */
class ObservedTransport extends StdioServerTransport {
  readonly #onClosed: () => void;
  readonly #release: () => void;

  constructor(stdin: Readable, stdout: Writable, onClosed: () => void) {
    const lines = new MessageLines(stdout);
    super(lines, stdout);
    this.#onClosed = onClosed;
    const fail = (error: Error): void => {
      lines.destroy(error);
    };
    stdin.pipe(lines);
    stdin.once("error", fail);
    this.#release = () => {
      stdin.unpipe(lines).off("error", fail).pause();
    };
  }

  override async close(): Promise<void> {
    this.#release();
    await super.close();
    this.#onClosed();
  }
}
