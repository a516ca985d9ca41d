/** A log line that may be wanted very often, written now and then: a flood is a few lines, and how many were left out. */
import type { Clock } from "./clock.ts";
import type { LogFields } from "./log.ts";

/** Milliseconds of silence after a burst. */
const quietMs = 10_000;
/** Lines before a silence. */
const burst = 10;

/** @param write writes one line */
export function thinned(write: (fields: LogFields) => void, clock: Clock): (fields: LogFields) => void {
  let lines = 0;
  let lastAt = -Infinity;
  let unreported = 0;
  return (fields) => {
    const now = clock.now();
    if (now - lastAt >= quietMs) lines = 0;
    if (lines >= burst) {
      unreported += 1;
      return;
    }
    write(unreported === 0 ? fields : { ...fields, unreported });
    lines += 1;
    lastAt = now;
    unreported = 0;
  };
}
