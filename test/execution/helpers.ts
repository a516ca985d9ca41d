/** What the tests of this folder share: temporary folders, tools, snapshots, a service of the test's own. */
import { mkdtempSync, rmSync, writeFileSync, mkdirSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTcpServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { Executor, type ExecutorOptions } from "../../src/execution/executor.ts";
import type { RetryOptions } from "../../src/resilience/retry.ts";
import type { ToolCall, ToolResult } from "../../src/tools/call.ts";
import type { Snapshot } from "../../src/tools/snapshot.ts";
import type {
  Endpoint,
  Execution,
  OnexExecution,
  RestExecution,
  Tool,
  ToolFunction,
} from "../../src/tools/tool.ts";

/** A folder with these files, gone when the test is over. `write` replaces or adds one. */
export function folder(files: Readonly<Record<string, string>> = {}) {
  const path = mkdtempSync(join(tmpdir(), "onex-execution-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  const write = (name: string, text: string): string => {
    const file = join(path, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return file;
  };
  for (const [name, text] of Object.entries(files)) write(name, text);
  return { path, write, file: (name: string) => join(path, name) };
}

export function toolOf(execution: Execution, more: Partial<Tool> = {}): Tool {
  return {
    name: "sample",
    description: "A sample.",
    version: "1.2.3",
    inputSchema: { type: "object" },
    annotations: {},
    tags: [],
    execution,
    source: "contract",
    owner: "test",
    revision: "1",
    ...more,
  };
}

/** A tool from a function; `input` and the result are anyone's. */
export const functionTool = (fn: (...args: never[]) => unknown, more: Partial<Tool> = {}): Tool =>
  toolOf({ kind: "function", fn: fn as ToolFunction }, more);

export const onex = (origin: string, path = "/run", more: Partial<Tool> = {}) =>
  toolOf({ kind: "onex", endpoints: [origin], path }, more);
export const rest = (execution: Omit<RestExecution, "kind">, more: Partial<Tool> = {}) =>
  toolOf({ kind: "rest", ...execution }, more);

export const callOf = (args: Record<string, unknown> = {}, more: Partial<ToolCall> = {}): ToolCall => ({
  name: "sample",
  arguments: args,
  correlationId: "corr-1",
  ...more,
});

export const snapshotOf = (...tools: readonly Tool[]): Snapshot => ({
  generation: 1,
  tools,
  byName: new Map(tools.map((tool) => [tool.name, tool])),
  withheld: [],
});

export const never = new AbortController().signal;

/** Retries as they are, but for their waits. */
export const quickly: RetryOptions = { firstMs: 1, maxMs: 5, floorMs: 0 };
/** One attempt at each call. */
export const once: RetryOptions = { retries: 0 };

/** An executor that serves these tools, retries quickly and is destroyed when the test is over. */
export function executorOf(tools: readonly Tool[], options: Partial<ExecutorOptions> = {}): Executor {
  const snapshot = snapshotOf(...tools);
  const executor = new Executor({ snapshot: () => snapshot, timeoutSeconds: 20, retry: quickly, ...options });
  onTestFinished(() => executor.destroy(new Error("the test is over")));
  return executor;
}

/** The text of all text blocks. */
export const textOf = (result: ToolResult): string => result.content.map((block) => block.text).join("\n");

export interface Received {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

export interface Service {
  readonly origin: string;
  readonly port: number;
  readonly requests: Received[];
  readonly connections: () => number;
  readonly server: Server;
}

export type Reply = (request: Received, response: ServerResponse, raw: IncomingMessage) => void;

/** A real HTTP server on a free port of 127.0.0.1, gone when the test is over. */
export async function service(reply: Reply): Promise<Service> {
  const requests: Received[] = [];
  let connections = 0;
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (chunk: string) => (body += chunk));
    request.on("end", () => {
      const received = {
        method: request.method ?? "",
        url: request.url ?? "",
        headers: request.headers,
        body,
      };
      requests.push(received);
      reply(received, response, request);
    });
  });
  server.on("connection", () => connections++);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  });
  const { port } = server.address() as AddressInfo;
  return { origin: `http://127.0.0.1:${port}`, port, requests, connections: () => connections, server };
}

/** Sockets open at the server now. */
export const connectionsTo = (server: Server): Promise<number> =>
  new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error === null ? resolve(count) : reject(error))),
  );

/** Answers with JSON. */
export function json(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

/** The result of one call of an onex tool whose service replies so. */
export async function answerOf(reply: Reply, more: Partial<Tool> = {}) {
  const { origin } = await service(reply);
  return executorOf([onex(origin, "/run", more)]).call(callOf(), never);
}

export const endpoint = (url: string, weight = 1): Endpoint => ({ id: url, url, weight });

/** The tool of a service with these instances. */
export const served = (
  urls: readonly string[],
  more: Partial<Tool> = {},
  execution: Execution = atRun,
): Tool =>
  toolOf(execution, { source: "consul", owner: "svc", endpoints: urls.map((url) => endpoint(url)), ...more });

export const atRun: OnexExecution = { kind: "onex", endpoints: [], path: "/run" };

/** An executor whose snapshot changes. */
export function showing(tool: Tool, options: Partial<ExecutorOptions> = {}) {
  let snapshot = snapshotOf(tool);
  const executor = executorOf([], { snapshot: () => snapshot, ...options });
  const show = (...tools: readonly Tool[]): void => {
    snapshot = snapshotOf(...tools);
    executor.onSnapshot(snapshot);
  };
  return { executor, show };
}

/** A port that refuses connections: it was free a moment ago. */
export async function deadOrigin(): Promise<string> {
  const server = createTcpServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}
