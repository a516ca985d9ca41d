import { defineConfig } from "vitest/config";
import { SkippedReporter } from "./test/services/skipped.ts";
import { RequirementsReporter } from "./test/support/requirements.ts";

export default defineConfig({
  resolve: { conditions: ["onex-source", "node", "import", "default"] },
  ssr: { resolve: { conditions: ["onex-source", "node", "import", "default"] } },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // A starved machine may take long to get there; a test that never gets there fails all the same.
    expect: { poll: { timeout: 15_000 } },
    pool: "forks",
    globalSetup: ["test/services/setup.ts"],
    reporters: ["default", new RequirementsReporter(), new SkippedReporter()],
  },
});
