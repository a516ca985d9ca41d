import { expect, it } from "vitest";
import { urlHost } from "../../src/core/url-host.ts";

it.each([
  ["fd00::1", "[fd00::1]"],
  ["[fd00::1]", "[fd00::1]"],
  ["10.0.0.1", "10.0.0.1"],
  ["orders.internal", "orders.internal"],
])("the host %s stands in a URL as %s", (host, inUrl) => {
  expect(urlHost(host)).toBe(inUrl);
});
