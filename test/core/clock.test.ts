import { expect, it } from "vitest";
import { monotonicClock } from "../../src/core/clock.ts";

it("the clock never goes back", () => {
  let last = monotonicClock.now();
  for (let reading = 0; reading < 1000; reading += 1) {
    const now = monotonicClock.now();
    expect(now).toBeGreaterThanOrEqual(last);
    last = now;
  }
});
