/** Parts a test needs from the machine. Missing ones are skipped, and said; with ONEX_REQUIRE_SERVICES=1 they fail. */
import { describe, it } from "vitest";

/** `describe`, with the part a suite needs; where it is missing the title says what to install. */
export function describeWith<Part>(
  title: string,
  part: Part | undefined,
  remedy: string,
  suite: (part: Part) => void,
): void {
  if (part !== undefined) {
    describe(title, () => suite(part));
  } else if (process.env["ONEX_REQUIRE_SERVICES"] === "1") {
    it(`${title} needs: ${remedy}`, () => {
      throw new Error(`missing, and ONEX_REQUIRE_SERVICES=1: ${remedy}`);
    });
  } else {
    describe.skip(`${title} (skipped: ${remedy})`, () => {
      it("is not run", () => undefined);
    });
  }
}
