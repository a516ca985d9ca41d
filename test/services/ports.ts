/** Free ports for services that must be told theirs, and that keep them over a restart. */
import { once } from "node:events";
import { createServer } from "node:net";

/**
 * Below the range the kernel takes client ports from (32768 on Linux, 49152 elsewhere). A port inside it could be taken
 * by any connection while its service is down; worse, a client that retries a loopback port inside it is connected to
 * itself now and then, and the service can never come back.
 */
const [lowest, highest] = [20_000, 32_000];
const attempts = 100;

/** Ports on 127.0.0.1 that are free now, all different. Another process may take one first: start again then. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  for (let attempt = 0; ports.size < count && attempt < attempts; attempt++) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest));
    if (await isFree(port)) ports.add(port);
  }
  if (ports.size < count) throw new Error(`no ${count} free ports between ${lowest} and ${highest}`);
  return [...ports];
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await once(server.listen(port, "127.0.0.1"), "listening");
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}
