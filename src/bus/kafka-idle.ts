/**
 * A fault of the Kafka library, mended: what its idle connections cost. Does not own: anything a message depends on; where
 * the library is another one than expected it is left as it is.
 */
import { isObject } from "../core/json.ts";

interface RequestQueue {
  readonly pending: readonly unknown[];
  scheduleCheckPendingRequests: (this: RequestQueue) => void;
}

type Prototype = RequestQueue & { isCalm?: true };

const requestQueueModule = "kafkajs/src/network/requestQueue/index.js";

/**
 * Version 2.2.4 of the library asks every connection once a millisecond whether requests wait (a timer with a negative
 * delay, of which Node warns): two percent of a core for a handful of idle connections. Where none waits there is
 * nothing to ask; one that comes to wait sets the timer itself.
 *
 * @param load the module with the queue as its default export. Default: the library's own
 */
export async function calmIdleConnections(
  load: () => Promise<unknown> = () => import(requestQueueModule),
): Promise<void> {
  const loaded = await load().catch(() => undefined);
  const prototype = isObject(loaded) ? prototypeOf(loaded.default) : undefined;
  if (prototype === undefined || prototype.isCalm === true) return;
  const schedule = prototype.scheduleCheckPendingRequests;
  prototype.scheduleCheckPendingRequests = function () {
    if (!Array.isArray(this.pending) || this.pending.length > 0) schedule.call(this);
  };
  prototype.isCalm = true;
}

function prototypeOf(queue: unknown): Prototype | undefined {
  if (typeof queue !== "function") return undefined;
  const { prototype } = queue as { readonly prototype?: unknown };
  return isObject(prototype) && typeof prototype.scheduleCheckPendingRequests === "function"
    ? (prototype as unknown as Prototype)
    : undefined;
}
