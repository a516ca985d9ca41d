/** Time, as a collaborator: tests hand in a clock they move by hand. */
export interface Clock {
  /** Monotonic milliseconds since an arbitrary origin. Never goes backwards; never a calendar date. */
  now(): number;
}

export const monotonicClock: Clock = { now: () => performance.now() };
