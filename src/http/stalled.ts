/**
 * Cuts off clients that do not read. Owns: how a stopped reader is told from a slow one. Does not own: the sockets.
 *
 * 1. Only bytes that wait to be sent count. A connection with nothing to send may be silent for ever.
 * 2. Time in which this process did not run counts as one look, so a blocked event loop cuts nobody off.
 */
import type { Socket } from "node:net";

const looksPerLimit = 3;

interface Seen {
  /** Bytes of the writes that are through. */
  readonly sent: number;
  /** Bytes left of the write under way. */
  readonly left: number | undefined;
  /** Looks in a row that found the same. */
  readonly looks: number;
}

/**
 * Resets each of `sockets` whose pending output makes no progress for `limitMs`, at the latest a third after it, and
 * with it frees what was held for it. The kernel takes more output only when about a third of its send buffer is free,
 * so a client that reads less than that within the limit (1.5 MB on the loopback of Linux) counts as stopped too.
 *
 * @returns ends the watch; the watch alone does not keep the process alive
 */
export function cutStalled(sockets: { keys(): Iterable<Socket> }, limitMs: number): () => void {
  const seen = new WeakMap<Socket, Seen>();
  const look = (): void => {
    for (const socket of sockets.keys()) {
      if (socket.writableLength === 0) {
        seen.delete(socket);
        continue;
      }
      const last = seen.get(socket);
      const sent = socket.bytesWritten - socket.writableLength;
      const left = leftOfWrite(socket);
      const looks = last?.sent === sent && last.left === left ? last.looks + 1 : 0;
      // A plain end would leave what the kernel holds for it there.
      if (looks >= looksPerLimit) socket.resetAndDestroy();
      else seen.set(socket, { sent, left, looks });
    }
  };
  const timer = setInterval(look, Math.ceil(limitMs / looksPerLimit)).unref();
  return () => clearInterval(timer);
}

/**
 * One write of 9 MB counts as pending, whole, until its last byte is gone: the public numbers do not show a slow reader.
 * node's own socket timeout looks at this number too; without it, only whole writes would count as progress.
 */
function leftOfWrite(socket: Socket): number | undefined {
  return (socket as { _handle?: { readonly writeQueueSize?: number } | null })._handle?.writeQueueSize;
}
