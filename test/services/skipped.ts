/** Says in the last lines of a run which files a missing part of the machine kept from being tested, and why. */
import type { Reporter, TestModule } from "vitest/node";

export class SkippedReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const lines = modules.flatMap((module) => {
      const reasons = [...module.children.allSuites()].flatMap((suite) => {
        const reason = /\(skipped: (.*)\)$/s.exec(suite.name)?.[1];
        return reason === undefined ? [] : [reason];
      });
      return [...new Set(reasons)].map((reason) => `  ${module.relativeModuleId}: ${reason}`);
    });
    if (lines.length > 0)
      console.warn(["not tested, for want of a part of this machine:", ...lines].join("\n"));
  }
}
