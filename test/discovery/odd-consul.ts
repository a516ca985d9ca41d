/** A peer that speaks Consul's API until it is told to misbehave. */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { toolTags } from "./consul-agent.ts";

export interface Asked {
  readonly path: string;
  readonly index: string | null;
  readonly wait: string | null;
  readonly isConsistent: boolean;
}

/** Answers a request in its own way: true. False: it is answered as Consul would. */
export type Oddity = (asked: Asked, answer: ServerResponse) => boolean;

export class OddConsul implements AsyncDisposable {
  readonly host = "127.0.0.1";
  readonly asked: Asked[] = [];
  /** Services with one instance, by name: the port. */
  readonly services = new Map<string, number>();
  /** Texts by the tool's name. */
  readonly contracts = new Map<string, string>();
  index = 10;
  oddity: Oddity = () => false;
  readonly #waiting = new Set<() => void>();
  readonly #server = createServer((request, answer) => this.#serve(request, answer));

  async listen(): Promise<this> {
    this.#server.listen(0, this.host);
    await once(this.#server, "listening");
    return this;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends the queries that wait, with the present state. */
  wake(): void {
    for (const answer of [...this.#waiting]) answer();
  }

  /** A change: the index goes on, waiting queries end. */
  set(name: string, port: number): void {
    this.services.set(name, port);
    this.index += 1;
    this.wake();
  }

  count(path: string): number {
    return this.asked.filter((one) => one.path.startsWith(path)).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  #serve(request: IncomingMessage, answer: ServerResponse): void {
    const url = new URL(request.url ?? "/", "http://odd");
    const asked = {
      path: decodeURIComponent(url.pathname).replace("/v1/", ""),
      index: url.searchParams.get("index"),
      wait: url.searchParams.get("wait"),
      isConsistent: url.searchParams.has("consistent"),
    };
    this.asked.push(asked);
    if (this.oddity(asked, answer)) return;
    const send = (): void => {
      this.#waiting.delete(send);
      sendJson(answer, this.#dataAt(asked.path), this.index);
    };
    if (asked.index === null || Number(asked.index) < this.index) send();
    else {
      this.#waiting.add(send);
      answer.on("close", () => this.#waiting.delete(send));
    }
  }

  #dataAt(path: string): unknown {
    if (path === "catalog/services") {
      return Object.fromEntries([
        ["consul", []],
        ...[...this.services.keys()].map((name) => [name, toolTags(name)]),
      ]);
    }
    if (path === "catalog/nodes") return [{ Node: "n", Address: "10.0.0.1", ModifyIndex: 1 }];
    if (path === "health/state/any") return [];
    if (path.startsWith("kv/")) {
      const rows = [...this.contracts].map(([name, text]) => ({
        Key: `onex/contracts/nodes/${name}`,
        Value: Buffer.from(text).toString("base64"),
        ModifyIndex: this.index,
      }));
      return rows.length === 0 ? undefined : rows;
    }
    const rows = [...this.services].map(([name, port]) => ({
      ID: name,
      Service: name,
      Tags: toolTags(name),
      Port: port,
      ModifyIndex: port,
    }));
    if (path.startsWith("catalog/node/"))
      return { Services: Object.fromEntries(rows.map((row) => [row.ID, row])) };
    return rows
      .filter(({ Service }) => path === `health/service/${Service}`)
      .map((row) => ({ Node: { Node: "n", Address: "10.0.0.1", ModifyIndex: 1 }, Service: row, Checks: [] }));
  }
}

export function sendJson(answer: ServerResponse, data: unknown, index: number): void {
  answer.writeHead(data === undefined ? 404 : 200, {
    "content-type": "application/json",
    "x-consul-index": String(index),
  });
  answer.end(data === undefined ? "" : JSON.stringify(data));
}

export function sendText(answer: ServerResponse, status: number, text: string): void {
  answer.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(text);
}

export const oddConsul = (): Promise<OddConsul> => new OddConsul().listen();
