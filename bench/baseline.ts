/**
 * The baseline: what one would write by hand to put one service behind MCP, `node:http` and undici's `Pool.dispatch`, with
 * an eye on speed. It parses the request, looks the tool up, calls the service with the headers that the runtime
 * sends too, parses the answer and wraps it. It checks nothing: no key, Host, schema, size, session, deadline or breaker, and
 * it counts and logs nothing. That is what the runtime is compared with.
 *
 * Over IPC it is told where the service is.
 */
import { randomUUID } from "node:crypto";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Pool, type Dispatcher } from "undici";

/** What the main program tells a gateway of comparison. */
export interface Instruction {
  readonly service: string;
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
    const [first] = this.#chunks;
    const text = (this.#chunks.length === 1 && first ? first : Buffer.concat(this.#chunks)).toString();
    // What is no JSON ends the program here; what is need not be written again.
    JSON.parse(text);
    const modern = params._meta === undefined ? "" : ',"resultType":"complete"';
    const content = `[{"type":"text","text":${JSON.stringify(text)}}]`;
    const result = `{"content":${content},"structuredContent":${text}${modern}}`;
    send(this.#response, `{"jsonrpc":"2.0","id":${id},"result":${result}}`);
  }
  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.#response.writeHead(502).end(error.message);
  }
}

function send(response: ServerResponse, text: string): void {
  const length = Buffer.byteLength(text);
  response.writeHead(200, { "content-type": "application/json", "content-length": length }).end(text);
}

function answer(request: Request, response: ServerResponse): void {
  switch (request.method) {
    case "tools/call":
      call(request, response);
      break;
    case "initialize":
      response.setHeader("mcp-session-id", randomUUID());
      send(response, `{"jsonrpc":"2.0","id":${request.id},"result":{}}`);
      break;
    default:
      response.writeHead(202, { "content-length": 0 }).end();
  }
}

/** 32 hexadecimal digits. */
const hex = (): string => randomUUID().replaceAll("-", "");

function call(request: Request, response: ServerResponse): void {
  const { name, arguments: args } = request.params;
  const path = paths.get(name);
  if (path === undefined) throw new Error(`unknown tool ${name}`);
  const correlation = randomUUID();
  const headers = [
    ...["content-type", "application/json", "user-agent", "baseline"],
    ...["accept", "application/json, text/*;q=0.9"],
    ...["x-correlation-id", correlation, "traceparent", `00-${hex()}-${hex().slice(16)}-01`],
  ];
  let body = JSON.stringify(args);
  if (path === "/onex") {
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
  request.on("end", () => {
    const [first] = chunks;
    const text = (chunks.length === 1 && first ? first : Buffer.concat(chunks)).toString();
    answer(JSON.parse(text) as Request, response);
  });
});
server.keepAliveTimeout = 0;

process.once("message", ({ service }: Instruction) => {
  pool = new Pool(service, { connections: 64 });
  server.listen(0, "127.0.0.1", () => process.send?.({ port: (server.address() as AddressInfo).port }));
});
