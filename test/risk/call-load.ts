/** A running load of calls: concurrent clients over keep-alive connections, each with one call under way at a time. */
import { Agent, request } from "node:http";
import type { Runtime } from "../support/runtime.ts";
import { until } from "./cluster.ts";

/** What a call is expected to say. */
export interface LoadTarget {
  readonly tool: string;
  /** One of these answers. */
  readonly nodes: readonly string[];
}

/** Enough to have calls under way at any time; more would only queue on a small machine. */
const clients = 16;
/** Of each kind of failure only some are kept. */
const keptFailures = 20;

export class CallLoad {
  readonly failures: string[] = [];
  readonly #agent = new Agent({ keepAlive: true, maxSockets: clients });
  readonly #url: URL;
  readonly #targets: readonly LoadTarget[];
  readonly #workers: Promise<unknown>;
  #calls = 0;
  #failed = 0;
  #isOver = false;

  constructor(runtime: Runtime, targets: readonly LoadTarget[]) {
    this.#url = runtime.mcp;
    this.#targets = targets;
    this.#workers = Promise.all(Array.from({ length: clients }, (_, client) => this.#work(client)));
  }

  /** Calls that were answered, or failed. */
  get calls(): number {
    return this.#calls;
  }

  get failed(): number {
    return this.#failed;
  }

  /** Goes on until so many calls were made in all, then ends. */
  async finish(calls: number): Promise<void> {
    try {
      await until(() => this.#calls >= calls || this.#failed > 0, { timeout: 180_000, interval: 20 });
    } finally {
      this.#isOver = true;
      await this.#workers;
      this.#agent.destroy();
    }
  }

  async #work(client: number): Promise<void> {
    for (let turn = client; !this.#isOver; turn += 1) {
      const target = this.#targets[turn % this.#targets.length]!;
      const problem = await this.#call(target, turn).catch(String);
      this.#calls += 1;
      if (problem === undefined) continue;
      this.#failed += 1;
      if (this.failures.length < keptFailures)
        this.failures.push(`${new Date().toISOString()} ${target.tool}: ${problem}`);
    }
  }

  /** What is wrong with the answer, if anything. */
  async #call({ tool, nodes }: LoadTarget, turn: number): Promise<string | undefined> {
    const params = { name: tool, arguments: { turn } };
    const text = await this.#post(JSON.stringify({ jsonrpc: "2.0", id: turn, method: "tools/call", params }));
    const { result } = JSON.parse(text);
    const said = result?.structuredContent;
    const isRight = said?.tool === tool && said.arguments.turn === turn && nodes.includes(said.node);
    return isRight && result.isError !== true ? undefined : text;
  }

  #post(body: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const headers = {
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        "content-length": Buffer.byteLength(body),
      };
      const sent = request(this.#url, { method: "POST", agent: this.#agent, headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => resolve(Buffer.concat(chunks).toString()));
      });
      sent.on("error", reject);
      sent.end(body);
    });
  }
}
