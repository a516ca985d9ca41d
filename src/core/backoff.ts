/** How long to wait before something that failed is tried again. Pure but for chance. */

export interface Backoff {
  /** Milliseconds before the first retry, about; each further wait is twice as long. */
  readonly firstMs: number;
  /** Milliseconds at which it stops growing. */
  readonly maxMs: number;
  /** In [0, 1). Default Math.random. */
  readonly random?: (() => number) | undefined;
}

/**
 * Milliseconds to wait: exponential, and up to 25 % less or more by chance, so that those who failed together do not
 * come back together.
 *
 * @param failures in a row, from 1; less counts as 1
 */
export function backoffMs(failures: number, { firstMs, maxMs, random = Math.random }: Backoff): number {
  // Bounded: 0 ms times infinity would be no number.
  const doublings = Math.min(Math.max(0, failures - 1), 60);
  return Math.min(firstMs * 2 ** doublings, maxMs) * (0.75 + random() / 2);
}
