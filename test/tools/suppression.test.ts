import { expect, it } from "vitest";
import { Suppressions, suppressionMs } from "../../src/tools/suppression.ts";

it("the next end is that of the service that was declared gone first, one declared gone again counting anew", () => {
  let now = 0;
  const suppressions = new Suppressions({ now: () => now });
  expect(suppressions.nextEnd).toBeUndefined();
  suppressions.begin("a", 1);
  now = 1000;
  suppressions.begin("b", 1);
  expect(suppressions.nextEnd).toBe(suppressionMs - 1000);
  now = 2000;
  suppressions.begin("a", 1);
  expect(suppressions.nextEnd).toBe(suppressionMs - 1000);
  now = suppressionMs + 1000;
  expect(suppressions.takeEnded()).toEqual(["b"]);
  expect(suppressions.nextEnd).toBe(1000);
});

it("any number of services may be declared gone at one time", () => {
  const suppressions = new Suppressions({ now: () => 0 });
  for (let index = 0; index < 200_000; index += 1) suppressions.begin(`service-${index}`, 1);
  expect(suppressions.nextEnd).toBe(suppressionMs);
});
