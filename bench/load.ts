/**
 * The load: a child process that keeps every connection busy with one request after the other, and checks every answer.
 * Owns: running a job and what it counts. Does not own: what a request is (`doors.ts`) or a connection (`connection.ts`).
 *
 * Over IPC: a job comes in, `warm` goes out when all is still after the warm-up, `go` comes in, the outcome goes out.
 * So the main program can read the gateway's CPU time on both sides of exactly the calls that are counted.
 */
import { once } from "node:events";
import { Connection, type Answer } from "./connection.ts";
import {
  endSession,
  firstId,
  initialize,
  initialized,
  requests,
  textOf,
  type Door,
  type Question,
} from "./doors.ts";

export interface Job {
  readonly url: string;
  readonly door: Door;
  readonly question: Question;
  /** Of a list: how many tools it must have. */
  readonly tools: number;
  readonly connections: number;
  readonly warmUpSeconds: number;
  readonly seconds: number;
}

export interface Outcome {
  readonly calls: number;
  /** Until the last answer. */
  readonly seconds: number;
  /** Answers with another status than 200, another id, or not what was asked for. */
  readonly wrong: number;
  /** The first of them. */
  readonly firstWrong?: string;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

class Client {
  readonly #job: Job;
  readonly #connection: Connection;
  readonly #session: string | undefined;
  readonly #request: (id: number) => string;
  #id: number;
  /** Bytes of a list that was read whole and found right. */
  #listBytes: number | undefined;

  private constructor(job: Job, connection: Connection, index: number, session: string | undefined) {
    this.#job = job;
    this.#connection = connection;
    this.#session = session;
    this.#id = firstId(index);
    this.#request = requests(new URL(job.url), job.door, job.question, session);
  }

  static async open(job: Job, index: number): Promise<Client> {
    const url = new URL(job.url);
    const connection = await Connection.open(url);
    if (job.door !== "2025-11-25 session") return new Client(job, connection, index, undefined);
    const { head } = await connection.exchange(initialize(url));
    const session = /\r\nmcp-session-id: (\S+)/i.exec(head)?.[1];
    if (session === undefined) throw new Error(`initialize gave no session: ${head}`);
    await connection.exchange(initialized(url, session));
    return new Client(job, connection, index, session);
  }

  /** One request after the other until `end` (as `performance.now()`). */
  async run(end: number, latencies: number[], wrong: string[]): Promise<void> {
    for (let now = performance.now(); now < end;) {
      const id = this.#id++;
      const answer = await this.#connection.exchange(this.#request(id));
      const later = performance.now();
      latencies.push(later - now);
      now = later;
      if (!this.#isRight(answer, id))
        wrong.push(`${answer.head.trim()}\n\n${answer.body.toString("utf8", 0, 500)}`);
    }
  }

  async close(): Promise<void> {
    if (this.#session !== undefined)
      await this.#connection.exchange(endSession(new URL(this.#job.url), this.#session));
    this.#connection.close();
  }

  #isRight({ status, body }: Answer, id: number): boolean {
    if (status !== 200) return false;
    if (body.length === this.#listBytes) return hasId(body, id);
    let answer: any;
    try {
      answer = JSON.parse(body.toString());
    } catch {
      return false;
    }
    if (answer.id !== id || typeof answer.result !== "object") return false;
    if (this.#job.question !== "list")
      return !answer.result.isError && answer.result.structuredContent?.text === textOf(id);
    if (answer.result.tools?.length !== this.#job.tools) return false;
    this.#listBytes = body.length;
    return true;
  }
}

/** The id stands near one end of the answer; to parse the list each time would make the load the bottleneck. */
function hasId(body: Buffer, id: number): boolean {
  const member = `"id":${id}`;
  const [start, end] = [body.subarray(0, 100), body.subarray(-100)];
  return start.includes(member) || end.includes(member);
}

async function measure(clients: readonly Client[], seconds: number): Promise<Outcome> {
  const latencies: number[] = [];
  const wrong: string[] = [];
  const start = performance.now();
  await Promise.all(clients.map((client) => client.run(start + seconds * 1000, latencies, wrong)));
  const elapsed = (performance.now() - start) / 1000;
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.floor((latencies.length - 1) * share)] ?? 0;
  return {
    calls: latencies.length,
    seconds: elapsed,
    wrong: wrong.length,
    ...(wrong[0] !== undefined && { firstWrong: wrong[0] }),
    p50Ms: at(0.5),
    p99Ms: at(0.99),
  };
}

for (;;) {
  const [job] = (await once(process, "message")) as [Job];
  const clients = await Promise.all(
    Array.from({ length: job.connections }, (_, index) => Client.open(job, index)),
  );
  await measure(clients, job.warmUpSeconds);
  process.send?.("warm");
  await once(process, "message");
  process.send?.(await measure(clients, job.seconds));
  await Promise.all(clients.map((client) => client.close()));
}
