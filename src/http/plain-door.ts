/**
 * The raw listener for plain POSTs to one path: what every request must pass, in its cheap form, then the body in one
 * piece, then whoever answers. Owns: the order, and handing over what it does not answer. Does not own: what a body means.
 *
 * 1. Nothing is refused here: what does not pass goes to the whole surface, which says why.
 * 2. No body is read whose length was not announced, or is above the limit.
 * 3. A page of another origin is answered by the whole surface, which knows what a browser wants to see.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { isUtf8 } from "node:buffer";
import type { Principal } from "../tools/call.ts";
import type { Authenticator } from "./auth.ts";
import type { Guard } from "./guard.ts";
import type { RawListener } from "./server.ts";

export interface PlainDoor {
  readonly path: string;
  readonly guard: Guard;
  readonly authenticator: Authenticator;
  /** Whether requests are answered at all. */
  readonly isServing: () => boolean;
  readonly mayTake: (headers: IncomingHttpHeaders) => boolean;
  /** False: nothing has been answered. */
  readonly take: (
    request: IncomingMessage,
    response: ServerResponse,
    text: string,
    principal: Principal,
  ) => boolean;
}

export function plainDoor(door: PlainDoor): RawListener {
  const { path, guard, authenticator } = door;
  return (request, response, next) => {
    const { method, url, headers } = request;
    if (method !== "POST" || url !== path || headers.origin !== undefined) return false; // (3)
    if (headers["content-length"] === undefined || !door.mayTake(headers) || !door.isServing()) return false;
    if (guard.check(request) !== undefined) return false; // (2)
    // Behind another request of its connection (pipelining) it would not learn that its client has gone.
    if (response.socket === null) return false;
    const principal = authenticator.identifyOn(request.socket, headers);
    if (principal === undefined) return false;
    let body: Buffer | undefined;
    let others: Buffer[] | undefined;
    request.on("data", (chunk: Buffer) => {
      if (body === undefined) body = chunk;
      else (others ??= [body]).push(chunk);
    });
    request.once("end", () => {
      const bytes = others === undefined ? (body ?? Buffer.alloc(0)) : Buffer.concat(others);
      // Asked again: a stop may have begun while the body came in.
      try {
        const isPlain = door.isServing() && isUtf8(bytes);
        if (isPlain && door.take(request, response, bytes.toString(), principal)) return;
        request.rawBody = bytes;
        next();
      } catch (error) {
        next({ error });
      }
    });
    return true;
  };
}
