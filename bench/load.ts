/**
 * The load: a child process that keeps every connection busy with one request after the other, and checks every answer.
 * Owns: running a job and what it counts. Does not own: what a request is (`doors.ts`) or a connection (`connection.ts`).
 *
 * Over IPC: a job comes in, `warm` goes out when all is still after the warm-up, `go` comes in, the outcome goes out.
 * So the main program can read the gateway's CPU time on both sides of exactly the calls that are counted. `stop` ends a
 * job early; `spent` goes out when a job that has a number of calls has sent the last.
 */
import { on } from "node:events";
import { Connection, type Answer } from "./connection.ts";
import {
  endSession,
  firstId,
  hasSession,
  initialize,
  initialized,
  requests,
  sessionIn,
  textOf,
  type Door,
  type Question,
} from "./doors.ts";
import { jsonOf } from "./event-stream.ts";

export interface Job {
  readonly url: string;
  readonly door: Door;
  readonly question: Question;
  /** Of a list: how many tools it must have. */
  readonly tools: number;
  readonly connections: number;
  readonly warmUpSeconds: number;
  readonly seconds: number;
  /** Ends after so many requests, if that comes first. Not the warm-up. */
  readonly calls?: number;
  /** Used instead of one that is opened, by a gateway that knows none. */
  readonly session?: string;
  /** Every request of a connection has the same id: for a gateway that always gives the same bytes. */
  readonly sameId?: boolean;
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

/** How long a job goes on: until `end` (as `performance.now()`), for `left` more requests. */
interface Budget {
  end: number;
  left: number;
}

class Client {
  readonly #job: Job;
  readonly #connection: Connection;
  /** Of its own. */
  readonly #session: string | undefined;
  readonly #request: (id: number) => string;
  #id: number;
  /** Bytes of a list that was read whole and found right. */
  #listBytes: number | undefined;

  private constructor(job: Job, connection: Connection, index: number, session: string | undefined) {
    this.#job = job;
    this.#connection = connection;
    this.#session = session;
    this.#id = firstId(job.sameId === true ? 0 : index);
    this.#request = requests(new URL(job.url), job.door, job.question, session ?? job.session);
  }

  static async open(job: Job, index: number): Promise<Client> {
    const url = new URL(job.url);
    const connection = await Connection.open(url);
    if (!hasSession(job.door) || job.session !== undefined)
      return new Client(job, connection, index, undefined);
    const session = sessionIn((await connection.exchange(initialize(url, job.door))).head);
    await connection.exchange(initialized(url, job.door, session));
    return new Client(job, connection, index, session);
  }

  /** One request after the other. */
  async run(budget: Budget, latencies: number[], wrong: string[]): Promise<void> {
    for (let now = performance.now(); now < budget.end && budget.left > 0;) {
      if (--budget.left === 0) process.send?.("spent");
      const id = this.#job.sameId === true ? this.#id : this.#id++;
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
      await this.#connection.exchange(endSession(new URL(this.#job.url), this.#job.door, this.#session));
    this.#connection.close();
  }

  #isRight({ status, body }: Answer, id: number): boolean {
    if (status !== 200) return false;
    if (body.length === this.#listBytes) return hasId(body, id);
    let answer: any;
    try {
      answer = JSON.parse(jsonOf(body.toString()));
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

async function measure(clients: readonly Client[], budget: Budget): Promise<Outcome> {
  const latencies: number[] = [];
  const wrong: string[] = [];
  const start = performance.now();
  await Promise.all(clients.map((client) => client.run(budget, latencies, wrong)));
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

const during = (seconds: number, calls = Infinity): Budget => ({
  end: performance.now() + seconds * 1000,
  left: calls,
});

/** Queued: the next job may come while the connections of the last are being closed. */
const messages = on(process, "message");

/** The next of what the main program says, but for what is said to a job that is running. */
async function next(): Promise<unknown> {
  for (;;) {
    const { value } = (await messages.next()) as { value: [unknown] };
    if (value[0] !== "stop") return value[0];
  }
}

for (;;) {
  const job = (await next()) as Job;
  const clients = await Promise.all(
    Array.from({ length: job.connections }, (_, index) => Client.open(job, index)),
  );
  await measure(clients, during(job.warmUpSeconds));
  process.send?.("warm");
  await next();
  const budget = during(job.seconds, job.calls);
  const stop = (message: unknown): void => {
    if (message === "stop") budget.left = 0;
  };
  process.on("message", stop);
  process.send?.(await measure(clients, budget));
  process.off("message", stop);
  await Promise.all(clients.map((client) => client.close()));
}
