import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { copyOf, type Mutant, mutants } from "./mutants.ts";
import { type Case, convergence, reportOf, WrongSnapshot } from "./property.ts";

/** At most, until it is red. */
const runs = 2000;

function check(mutant: Mutant | undefined, numRuns: number): fc.RunDetails<Case> {
  const copy = copyOf(mutant);
  try {
    return fc.check(convergence(copy.modules), { numRuns, endOnFailure: true });
  } finally {
    copy.remove();
  }
}

describe("the property of the merge", () => {
  it("is green on a copy of the source without a mutant", () => {
    const details = check(undefined, 200);
    expect(details.failed, reportOf(details)).toBe(false);
  });

  it.each(mutants)("the mutant $name turns the property red", (mutant) => {
    const { failed, numRuns, seed, errorInstance } = check(mutant, runs);
    console.log(`${mutant.name}: ${failed ? `red after ${numRuns} histories` : "green"}, seed ${seed}`);
    expect(failed, `the property is still green after ${numRuns} histories, seed ${seed}`).toBe(true);
    // Red because of what is served, not because the copy is broken.
    expect(errorInstance).toBeInstanceOf(WrongSnapshot);
  });

  it("a mutant that no longer fits the source is an error", () => {
    const stale: Mutant = { name: "stale", file: "tools/catalog.ts", find: "no such text", replace: "" };
    expect(() => copyOf(stale)).toThrow(
      'the mutant "stale" no longer fits: "no such text" occurs 0 times in src/tools/catalog.ts',
    );
  });
});
