/**
 * Shutting handlers down. Owns: their order and their limits. Does not own: draining and the bus (`host.ts`).
 *
 * 1. A handler that hangs or throws is logged and passed over; this never rejects and never waits without a limit.
 */
import { within } from "../core/abort.ts";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { ActiveHandler } from "./start.ts";

/** By `shutdownPriority`: higher first, equal ones together, each with its own limit. */
export async function shutDownByPriority(
  handlers: readonly ActiveHandler[],
  limitMs: number,
  log: Logger,
): Promise<void> {
  const groups = Map.groupBy(handlers, (active) => priorityOf(active, log));
  for (const priority of [...groups.keys()].sort((a, b) => b - a)) {
    const group = groups.get(priority) ?? [];
    await Promise.all(group.map((active) => shutDown(active, limitMs, log)));
  }
}

/** Last opened first, one after the other, as a start is undone. */
export async function shutDownInReverse(
  handlers: readonly ActiveHandler[],
  limitMs: number,
  log: Logger,
): Promise<void> {
  for (const active of handlers.toReversed()) await shutDown(active, limitMs, log);
}

async function shutDown({ found, handler }: ActiveHandler, limitMs: number, log: Logger): Promise<void> {
  const facts = { handler: found.type };
  try {
    const outcome = await within((async () => await handler.shutdown())(), limitMs);
    if (outcome === "timeout") {
      log.error(
        facts,
        `Handler ${found.type} did not shut down within ${limitMs / 1000} s and is left behind`,
      );
    }
  } catch (thrown) {
    log.error({ ...facts, err: thrown }, `Handler ${found.type} failed to shut down: ${messageOf(thrown)}`);
  }
}

function priorityOf({ found, handler }: ActiveHandler, log: Logger): number {
  try {
    const priority = handler.shutdownPriority?.() ?? 0;
    if (Number.isFinite(priority)) return priority;
    log.warn({ handler: found.type }, `Handler ${found.type}: shutdownPriority is ${priority}, 0 is used`);
  } catch (thrown) {
    log.warn(
      { handler: found.type, err: thrown },
      `Handler ${found.type}: shutdownPriority failed, 0 is used`,
    );
  }
  return 0;
}
