/** HandlerMCP for tests: handlers, requests, folders of contracts, and what a process holds. What is made here is closed here, after each test. */
import { postRpc } from "../support/rpc.ts";
import { Server as HttpServer } from "node:http";
import { createServer, type AddressInfo, type Server } from "node:net";
import { afterEach } from "vitest";
import type { LogFields, Logger } from "../../src/core/log.ts";
import type { HandlerConfig } from "../../src/runtime/handler.ts";
import { HandlerMCP, type McpContainer } from "../../src/handlers/mcp.ts";
import { tempFolder, type Folder } from "../contract/folder.ts";

const cleanups: (() => PromiseLike<void> | void)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** The four keys without a fallback. */
export const required = { consul_host: "localhost", consul_port: 8500, kafka_enabled: false, dev_mode: true };

/** With a free port. */
export const config = (changes: HandlerConfig = {}): HandlerConfig => ({ ...required, port: 0, ...changes });

export function makeHandler(container: McpContainer = {}): HandlerMCP {
  const handler = new HandlerMCP(container);
  cleanups.push(async () => {
    handler.shutdownTimeout = 0.01;
    await handler.shutdown();
  });
  return handler;
}

/** A handler with its server on a free port. */
export async function serve(changes: HandlerConfig = {}, container: McpContainer = {}): Promise<HandlerMCP> {
  const handler = makeHandler(container);
  await handler.initialize(config(changes));
  return handler;
}

/** A handler without a server. */
export async function embed(changes: HandlerConfig = {}, container: McpContainer = {}): Promise<HandlerMCP> {
  const handler = makeHandler(container);
  await handler.initialize({ skip_server: true, ...changes });
  return handler;
}

/** The payload of one operation's answer. */
export async function execute(
  handler: HandlerMCP,
  operation: string,
  payload: Readonly<Record<string, unknown>> = {},
): Promise<any> {
  const ids = { correlation_id: "c-1", envelope_id: "e-1", headers: {}, metadata: {} };
  return handler.execute({ operation, payload, ...ids }, { signal: new AbortController().signal });
}

export const callTool = (handler: HandlerMCP, name: string, args: object = {}): Promise<any> =>
  execute(handler, "mcp.call_tool", { tool_name: name, arguments: args });

export const toolNames = async (handler: HandlerMCP): Promise<string[]> =>
  (await execute(handler, "mcp.list_tools")).tools.map((tool: { name: string }) => tool.name);

export const portOf = (handler: HandlerMCP): number => Number(new URL(handler.url!).port);

/** A GET of one of the server's paths. */
export async function get(
  handler: HandlerMCP,
  path: string,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(new URL(path, handler.url), { headers });
}

/** A POST to the MCP endpoint, of an older revision unless the headers say otherwise. */
export async function post(
  handler: HandlerMCP,
  method: string,
  params: object = {},
  headers: Record<string, string> = {},
): Promise<Response> {
  return postRpc(handler.endpoint!, method, params, headers);
}

/** The result of a request to the MCP endpoint. */
export async function request(
  handler: HandlerMCP,
  method: string,
  params: object = {},
  headers: Record<string, string> = {},
): Promise<any> {
  const body: any = await (await post(handler, method, params, headers)).json();
  return body.result ?? body;
}

export const listOverHttp = async (handler: HandlerMCP): Promise<string[]> =>
  (await request(handler, "tools/list")).tools.map((tool: { name: string }) => tool.name);

/** Opens a session of an older revision; its id. */
export async function openSession(handler: HandlerMCP): Promise<string> {
  const clientInfo = { name: "test", version: "1.0.0" };
  const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo };
  const response = await post(handler, "initialize", params);
  await response.text();
  return response.headers.get("mcp-session-id") ?? "";
}

export const openStream = (handler: HandlerMCP, session: string): Promise<Response> =>
  fetch(handler.endpoint!, { headers: { accept: "text/event-stream", "mcp-session-id": session } });

/** A tool that answers when the test says so, and how many calls of it have begun. */
export function gatedTool(options: { readonly heedsSignal?: boolean } = {}) {
  const gate = Promise.withResolvers<string>();
  const state = { begun: 0, aborted: 0 };
  const fn = async (_input: unknown, { signal }: { readonly signal: AbortSignal }): Promise<string> => {
    state.begun += 1;
    signal.addEventListener("abort", () => {
      state.aborted += 1;
      if (options.heedsSignal === true) gate.resolve("aborted");
    });
    return gate.promise;
  };
  return { state, open: gate.resolve, definition: { name: "gated", description: "Waits." }, fn };
}

const nodeContract = (name: string, tags: readonly string[]): string => `
name: ${name}
node_type: ORCHESTRATOR
node_version: 1.0.0
mcp:
  expose: true
  tool_name: ${name}
  description: Says where it is.
  tags: [${tags.join(", ")}]
  execution: { kind: local, module: ./tool.mjs }
`;

/** A folder of contracts, each a tool of kind local. */
export async function contractsOf(tools: Readonly<Record<string, readonly string[]>>): Promise<Folder> {
  const folder = await tempFolder();
  cleanups.push(() => folder[Symbol.asyncDispose]());
  for (const [name, tags] of Object.entries(tools)) await addContract(folder, name, tags);
  return folder;
}

export async function addContract(folder: Folder, name: string, tags: readonly string[] = []): Promise<void> {
  await folder.write(`${name}/tool.mjs`, `export default () => "from ${name}";`);
  await folder.write(`${name}/contract.yaml`, nodeContract(name, tags));
}

/** A server of somebody else's that holds a port. */
export async function occupy(host: string): Promise<number> {
  const server = createServer();
  await listenOn(server, host, 0);
  cleanups.push(() => closeServer(server));
  return (server.address() as AddressInfo).port;
}

/** Whether the port can be bound. */
export async function isFree(host: string, port: number): Promise<boolean> {
  const server = createServer();
  try {
    await listenOn(server, host, port);
  } catch {
    return false;
  }
  await closeServer(server);
  return true;
}

function listenOn(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject).listen({ host, port }, resolve);
  });
}

const closeServer = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    server.close(() => resolve());
  });

/** The http server of this process that listens on a port. */
export function httpServerOn(port: number): HttpServer {
  const { _getActiveHandles: handles } = process as unknown as { _getActiveHandles: () => unknown[] };
  const found = handles
    .call(process)
    .find(
      (handle): handle is HttpServer =>
        handle instanceof HttpServer && (handle.address() as AddressInfo | null)?.port === port,
    );
  if (found === undefined) throw new Error(`nothing listens on ${port}`);
  return found;
}

export type Held = Readonly<Record<string, number>>;

/** How many resources of each kind keep this process alive, and how many listeners it has itself. */
export function held(): Held {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) {
    // What comes and goes by itself.
    if (/^(Immediate|TickObject|CloseReq|FSReq)/.test(kind)) continue;
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  for (const name of process.eventNames()) counts[`process ${String(name)}`] = process.listenerCount(name);
  return counts;
}

/** Turns of the event loop, without a timer that would be counted, until `done` or 5 s are over. */
async function untilTrue(done: () => boolean): Promise<void> {
  const end = performance.now() + 5_000;
  while (!done() && performance.now() < end) await new Promise((resolve) => setImmediate(resolve));
}

/** What the process holds once no socket of an earlier test is left. */
export async function heldBefore(): Promise<Held> {
  await untilTrue(() => !Object.keys(held()).some((kind) => kind.startsWith("TCP")));
  return held();
}

/** What the process holds beyond `before`, after some time to let go of it. */
export async function heldMore(before: Held): Promise<Held> {
  const more = (): Held =>
    Object.fromEntries(
      Object.entries(held())
        .map(([kind, count]) => [kind, count - (before[kind] ?? 0)] as const)
        .filter(([, count]) => count > 0),
    );
  await untilTrue(() => Object.keys(more()).length === 0);
  return more();
}

export interface Logged {
  readonly level: string;
  readonly fields: LogFields;
  readonly message: string;
}

export function recordingLogger(): Logger & { readonly lines: Logged[] } {
  const lines: Logged[] = [];
  const at =
    (level: string, more: LogFields) =>
    (fields: LogFields, message: string): void =>
      void lines.push({ level, fields: { ...more, ...fields }, message });
  const withFields = (more: LogFields): Logger => ({
    debug: at("debug", more),
    info: at("info", more),
    warn: at("warn", more),
    error: at("error", more),
    child: (fields) => withFields({ ...more, ...fields }),
  });
  return { ...withFields({}), lines };
}
