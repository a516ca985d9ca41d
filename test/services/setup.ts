/** vitest's global setup: services start when the first test file asks, and stop with the run. */
import type { TestProject } from "vitest/node";
import { listen } from "./broker.ts";
import { SharedServices } from "./shared.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Where test files ask for Kafka and Consul. */
    readonly testServices: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const services = new SharedServices((line) => process.stderr.write(`services: ${line}\n`), process.env);
  const broker = await listen(services);
  project.provide("testServices", broker.url);
  return async () => {
    await broker.close();
    await services.stop();
  };
}
