/** What the package gives to those who import it. A change here is a change for them: it belongs in the changelog. */
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import * as index from "../../src/index.ts";

test("the names that onex-runtime exports", () => {
  expect(Object.keys(index).sort()).toEqual([
    "AuthorizationError",
    "CancelledError",
    "Catalog",
    "CircuitBreaker",
    "EnvelopeValidationError",
    "HandlerHttp",
    "HandlerLoadError",
    "HandlerMCP",
    "InfraAuthenticationError",
    "InfraConnectionError",
    "InfraTimeoutError",
    "InfraUnavailableError",
    "KafkaBus",
    "OnexError",
    "ProtocolConfigurationError",
    "RuntimeHostError",
    "SecretResolutionError",
    "ToolNotFoundError",
    "UnknownHandlerTypeError",
    "content",
    "defineHandler",
    "defineTool",
    "version",
    "withCircuitBreaker",
  ]);
});

test("the package's entry points, its command, its files and the Node it needs", async () => {
  const text = await readFile(new URL("../../package.json", import.meta.url), "utf8");
  const { name, type, engines, bin, exports, files } = JSON.parse(text) as Record<string, unknown>;
  expect({ name, type, engines, bin, exports, files }).toEqual({
    name: "onex-runtime",
    type: "module",
    engines: { node: ">=24" },
    bin: { onex: "bin/onex.js" },
    exports: {
      ".": {
        "onex-source": "./src/index.ts",
        types: "./dist/index.d.ts",
        default: "./dist/index.js",
      },
      "./package.json": "./package.json",
    },
    files: ["bin", "dist", "contracts", "examples/sample-service.mjs", "schemas", "CHANGELOG.md"],
  });
});
