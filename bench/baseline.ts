/**
 * The baseline: what one would write by hand to put one service behind MCP, `node:http` and undici's `Pool.dispatch`.
 * It parses the request, looks the tool up, calls the service and wraps the answer; lists are kept as bytes. It checks
 * nothing: no Host, no schema, no size, no session, no deadline, no breaker. That is what the runtime is compared with.
 *
 * Over IPC it is told where the service is, then, before lists are measured, which list to serve.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Pool, type Dispatcher } from "undici";

/** What the main program tells the baseline. */
export interface Instruction {
  readonly service?: string;
  /** Result of `tools/list`, as JSON: the runtime's own, so that both send the same bytes. */
  readonly list?: string;
}

interface Request {
  readonly id?: number;
  readonly method: string;
  readonly params: { readonly name: string; readonly arguments: object; readonly _meta?: object };
}

const paths = new Map([
  ["echo_rest", "/rest"],
  ["echo_onex", "/onex"],
]);
let pool: Pool;
let list = Buffer.alloc(0);

/** Collects the service's answer and sends it on. */
class Relay implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse;
  readonly #request: Request;
  readonly #chunks: Buffer[] = [];

  constructor(response: ServerResponse, request: Request) {
    this.#response = response;
    this.#request = request;
  }
  onRequestStart(): void {}
  onResponseStart(): void {}
  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks.push(chunk);
  }
  onResponseEnd(): void {
    const { id, params } = this.#request;
    const modern = params._meta === undefined ? "" : ',"resultType":"complete"';
    const body = Buffer.concat(this.#chunks).toString();
    const content = `[{"type":"text","text":${JSON.stringify(body)}}]`;
    const result = `{"content":${content},"structuredContent":${body}${modern}}`;
    send(this.#response, `{"jsonrpc":"2.0","id":${id},"result":${result}}`);
  }
  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.#response.writeHead(502).end(error.message);
  }
}

function send(response: ServerResponse, text: string, headers: Record<string, string> = {}): void {
  const length = Buffer.byteLength(text);
  response.writeHead(200, { "content-type": "application/json", "content-length": length, ...headers });
  response.end(text);
}

function answer(request: Request, response: ServerResponse): void {
  switch (request.method) {
    case "tools/call":
      call(request, response);
      break;
    case "tools/list": {
      const head = `{"jsonrpc":"2.0","id":${request.id},"result":`;
      const length = head.length + list.length + 1;
      response.writeHead(200, { "content-type": "application/json", "content-length": length });
      response.write(head);
      response.write(list);
      response.end("}");
      break;
    }
    case "initialize":
      send(response, `{"jsonrpc":"2.0","id":${request.id},"result":{}}`, { "mcp-session-id": randomUUID() });
      break;
    default:
      response.writeHead(202, { "content-length": 0 }).end();
  }
}

function call(request: Request, response: ServerResponse): void {
  const { name, arguments: args } = request.params;
  const path = paths.get(name);
  if (path === undefined) throw new Error(`unknown tool ${name}`);
  const headers = ["content-type", "application/json"];
  let body = JSON.stringify(args);
  if (path === "/onex") {
    const correlation = randomUUID();
    const trace = `00-${randomBytes(16).toString("hex")}-${randomBytes(8).toString("hex")}-01`;
    headers.push("x-correlation-id", correlation, "traceparent", trace);
    const metadata = `{"tool_name":"${name}","tool_version":"1.0.0"}`;
    body = `{"envelope_id":"${randomUUID()}","correlation_id":"${correlation}","source":"mcp-adapter","payload":${body},"metadata":${metadata}}`;
  }
  pool.dispatch({ method: "POST", path, headers, body }, new Relay(response, request));
}

const server = createServer((request, response) => {
  if (request.method === "DELETE") {
    response.writeHead(200, { "content-length": 0 }).end();
    return;
  }
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => answer(JSON.parse(Buffer.concat(chunks).toString()) as Request, response));
});
server.keepAliveTimeout = 0;

process.on("message", (instruction: Instruction) => {
  if (instruction.list !== undefined) {
    list = Buffer.from(instruction.list);
    process.send?.("listed");
  }
  if (instruction.service === undefined) return;
  pool = new Pool(instruction.service, { connections: 64 });
  server.listen(0, "127.0.0.1", () => process.send?.({ port: (server.address() as AddressInfo).port }));
});
