/** How circuit breakers are shown to operators. Pure. */

/** The state of one, as far as it is shown; times are milliseconds of the reader's clock. */
export type BreakerReading =
  | { readonly kind: "closed"; readonly failures: number }
  | { readonly kind: "open"; readonly until: number }
  | { readonly kind: "half-open"; readonly trials: number; readonly successes: number };

/** The body of `GET /mcp/circuit-breakers`: in the order of their names. */
export const breakersOnWire = (readings: ReadonlyMap<string, BreakerReading>, now: number): object => ({
  breakers: [...readings]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, reading]) => breakerOnWire(name, reading, now)),
});

/** One of them. */
export function breakerOnWire(name: string, reading: BreakerReading, now: number): object {
  switch (reading.kind) {
    case "closed":
      return { name, state: "closed", failures: reading.failures };
    case "open":
      // Whole seconds, as a refused call is told them.
      return {
        name,
        state: "open",
        retry_after_seconds: Math.max(1, Math.ceil((reading.until - now) / 1000)),
      };
    case "half-open":
      return { name, state: "half-open", trials: reading.trials, successes: reading.successes };
  }
}
