/** Binding a server to an address, and what to do where that fails. */
import type { Server } from "node:http";
import { messageOf, ProtocolConfigurationError } from "../core/errors.ts";
import { httpUrl } from "./address.ts";

/**
 * Resolves when the server listens.
 *
 * @throws ProtocolConfigurationError that names host and port, with the remedy
 */
export function bind(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => reject(bindError(error, host, port));
    server.once("error", fail);
    try {
      server.listen({ host, port }, () => {
        server.off("error", fail);
        resolve();
      });
    } catch (error) {
      fail(error);
    }
  });
}

function bindError(error: unknown, host: string, port: number): ProtocolConfigurationError {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return new ProtocolConfigurationError(`cannot listen on ${host} port ${port}: ${remedy(code, error)}`, {
    cause: error,
    facts: { transport: "http", operation: "listen", target: httpUrl(host, port) },
  });
}

function remedy(code: string, error: unknown): string {
  switch (code) {
    case "EADDRINUSE":
      return "the port is taken; stop the program that holds it, or set another port (0 picks a free one)";
    case "EACCES":
      return "permission denied; ports below 1024 need a privilege, set a higher one";
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
    case "EAI_AGAIN":
    case "EINVAL":
      return "the host is no address of this machine; use 127.0.0.1, ::1, or 0.0.0.0 for every interface";
    case "ERR_SOCKET_BAD_PORT":
      return "the port must be 0..65535";
    default:
      return messageOf(error);
  }
}
