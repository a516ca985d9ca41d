/** The first lines of a report: what was measured, and on which machine. */
import { readFile } from "node:fs/promises";
import { cpus, loadavg } from "node:os";

/** Of the last minute. Other work on the machine makes figures worthless. */
export const load = (): string => loadavg()[0]?.toFixed(2) ?? "unknown";

/** @param placement of the processes */
export async function printHead(placement: string): Promise<void> {
  const file = new URL("../package.json", import.meta.url);
  const { version } = JSON.parse(await readFile(file, "utf8")) as { version: string };
  console.log(`onex-runtime ${version}, Node ${process.versions.node}, ${process.platform}`);
  console.log(`${cpus().length} x ${cpus()[0]?.model.trim() ?? "CPU"}, ${placement}`);
  console.log(`load of the machine before the run: ${load()}`);
}
