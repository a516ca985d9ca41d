import type { Server } from "node:http";

/** Starts the service; resolves once it listens. @param port 0 picks a free one */
export function startSampleService(port?: number, host?: string): Promise<Server>;
