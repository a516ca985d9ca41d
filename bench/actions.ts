/**
 * What clients of the runtime do while it is soaked, and whether the answers are right. Every action begins with connections
 * of its own and leaves none. Owns: the actions and their counts. Does not own: how often they happen (`soak.ts`).
 */
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Connection, type Answer } from "./connection.ts";
import { apiKey } from "./contracts.ts";
import {
  doors,
  endSession,
  firstId,
  hasSession,
  httpRequest,
  initialize,
  initialized,
  message,
  sessionIn,
  textOf,
  type Door,
} from "./doors.ts";
import { jsonOf } from "./event-stream.ts";
import { World } from "./world.ts";

/** For what must come about, such as a notification. */
const patienceMs = 15_000;
const lookMs = 20;
const maxCancelPauseMs = 200;
const maxEarlyMs = 10;
/** What has been sent has arrived by then. */
const underwayMs = 500;
/** Requests of one connection. */
const requestsPerConnection = 100;
const clientsInfo = { name: "soak", version: "1.0.0" };
const eras = [{ pin: "2026-07-28" }, "legacy"] as const;

const anyOf = <T>(items: readonly T[]): T => items[Math.floor(Math.random() * items.length)] as T;

/** What an answer is and must not be, as an error. */
function wrong(what: string, { head, body }: Answer): Error {
  return new Error(`${what}: ${head.trim()}\n${body.toString("utf8", 0, 500)}`);
}

export class Actions {
  readonly #url: URL;
  readonly #world: World;
  readonly #isClosing: () => boolean;
  #lastId = firstId(0);
  /** What was done and was right. */
  readonly counts = { calls: 0, lists: 0, errors: 0, sessions: 0, cancellations: 0, notifications: 0 };

  /** @param isClosing whether an action that is long should come to its end */
  constructor(url: string, world: World, isClosing: () => boolean) {
    this.#url = new URL(url);
    this.#world = world;
    this.#isClosing = isClosing;
  }

  /** A client that calls, lists, and makes mistakes, through any door. */
  readonly talk = async (): Promise<void> => {
    const door = anyOf(doors);
    const connection = await Connection.open(this.#url);
    const session = await this.#openSession(connection, door);
    for (let left = requestsPerConnection; left > 0 && !this.#isClosing(); left--) {
      await anyOf([this.#call, this.#call, this.#call, this.#list, this.#mistake])(connection, door, session);
      await sleep(Math.random() * 10);
    }
    if (session !== undefined) await this.#endSession(connection, door, session);
    connection.close();
  };

  /** A tool comes and goes; clients of both eras that listen are told of both. */
  readonly host = async (): Promise<void> => {
    await using stack = new AsyncDisposableStack();
    const listeners: Listener[] = [];
    for (const mode of eras) listeners.push(stack.use(await Listener.open(this.#transport(), mode)));
    const guest = await this.#world.addGuest();
    for (const listener of listeners) await listener.told((names) => names.includes(guest));
    const text = textOf(this.#nextId());
    for (const { client } of listeners) {
      const { structuredContent } = await client.callTool({ name: guest, arguments: { text } });
      if ((structuredContent as { text?: string } | undefined)?.text !== text)
        throw new Error(`a tool that came answered ${JSON.stringify(structuredContent)}`);
    }
    await this.#world.removeGuest(guest);
    for (const listener of listeners) await listener.told((names) => !names.includes(guest));
    for (const { client } of listeners) {
      const failure: unknown = await client.callTool({ name: guest, arguments: { text } }).then(
        (result) => result,
        (error: unknown) => error,
      );
      if ((failure as { code?: number }).code !== -32602)
        throw new Error(`a call of a tool that went ended with ${inspect(failure)}`);
    }
    this.counts.notifications += 2 * listeners.length;
  };

  /** A call is cancelled, in either era; the service notices. */
  readonly cancel = async (): Promise<void> => {
    await sleep(Math.random() * maxCancelPauseMs);
    const { slow } = this.#world;
    const mode = anyOf(eras);
    await using stack = new AsyncDisposableStack();
    const { client } = stack.use(await Listener.open(this.#transport(), mode));
    const cancelling = new AbortController();
    const text = textOf(this.#nextId());
    const call = client.callTool({ name: "slow", arguments: { text } }, { signal: cancelling.signal }).then(
      () => "answered",
      () => "ended",
    );
    const where = mode === "legacy" ? "in a session" : `in ${mode.pin}`;
    // In a session the cancellation has a connection of its own: one that overtakes its call has no effect.
    const isEarly = mode !== "legacy" && Math.random() < 0.5;
    if (isEarly) await sleep(Math.random() * maxEarlyMs);
    else await until(`a call ${where} reaches its service`, () => slow.has(text));
    cancelling.abort(new Error("enough"));
    if ((await call) !== "ended") throw new Error(`a cancelled call ${where} was answered`);
    // One that was cancelled early may have reached its service all the same, or never does.
    if (isEarly) await sleep(underwayMs);
    const isOver = (): boolean => slow.get(text) === "left" || (isEarly && !slow.has(text));
    await until(`a service notices that its call ${where} was cancelled`, isOver);
    slow.delete(text);
    this.counts.cancellations += 1;
  };

  /** An instance comes or goes, while it is being called. */
  readonly change = async (): Promise<void> => {
    const world = this.#world;
    await sleep(Math.random() * 1000);
    if (!world.isFull) await world.grow();
    else if (Math.random() < 0.5) await world.crash();
    else {
      const end = await world.retire();
      await sleep(2000);
      await end();
    }
  };

  readonly #call = async (connection: Connection, door: Door, session: string | undefined): Promise<void> => {
    const id = this.#nextId();
    const name = anyOf(World.tools.filter((tool) => tool !== "slow"));
    const params = { name, arguments: { text: textOf(id) } };
    const { answer, result } = await this.#ask(connection, door, session, id, "tools/call", params);
    const isRight =
      answer.status === 200 && !result?.isError && result?.structuredContent?.text === textOf(id);
    if (!isRight) throw wrong(`${name} through ${door}`, answer);
    this.counts.calls += 1;
  };

  readonly #list = async (connection: Connection, door: Door, session: string | undefined): Promise<void> => {
    const { answer, result } = await this.#ask(connection, door, session, this.#nextId(), "tools/list", {});
    const names = new Set<string>(result?.tools?.map(({ name }: { name: string }) => name));
    const isRight = World.tools.every((name) => names.has(name)) && names.size === result.tools.length;
    if (!isRight) throw wrong(`a list through ${door}`, answer);
    this.counts.lists += 1;
  };

  readonly #mistake = async (
    connection: Connection,
    door: Door,
    session: string | undefined,
  ): Promise<void> => {
    const id = this.#nextId();
    const mistake = anyOf(["arguments", "name", "key", "JSON"] as const);
    const params =
      mistake === "arguments"
        ? { name: "echo_rest", arguments: { text: 5 } }
        : { name: "nobody", arguments: {} };
    const { headers, body } = message(door, session, id, "tools/call", params);
    const text = JSON.stringify(body).slice(0, mistake === "JSON" ? -1 : undefined);
    const request = httpRequest(this.#url, "POST", headers, text);
    const answer = await connection.exchange(
      mistake === "key" ? request.replace(apiKey, "another-key") : request,
    );
    const said: any = answer.status === 401 ? undefined : JSON.parse(jsonOf(answer.body.toString()));
    const isRight = {
      arguments: () => said.id === id && said.result.isError === true,
      name: () => said.id === id && said.error.code === -32602,
      key: () => answer.status === 401,
      JSON: () => answer.status === 400 && said.error.code === -32700,
    }[mistake]();
    if (!isRight) throw wrong(`a wrong ${mistake} through ${door}`, answer);
    this.counts.errors += 1;
  };

  async #ask(
    connection: Connection,
    door: Door,
    session: string | undefined,
    id: number,
    method: string,
    params: Readonly<Record<string, unknown>>,
  ): Promise<{ answer: Answer; result: any }> {
    const { headers, body } = message(door, session, id, method, params);
    const answer = await connection.exchange(httpRequest(this.#url, "POST", headers, JSON.stringify(body)));
    if (answer.status !== 200) throw wrong(`${method} through ${door}`, answer);
    const said = JSON.parse(jsonOf(answer.body.toString()));
    if (said.id !== id) throw wrong(`${method} through ${door}, id ${id}`, answer);
    return { answer, result: said.result };
  }

  async #openSession(connection: Connection, door: Door): Promise<string | undefined> {
    if (!hasSession(door)) return undefined;
    const session = sessionIn((await connection.exchange(initialize(this.#url, door))).head);
    const answer = await connection.exchange(initialized(this.#url, door, session));
    if (answer.status !== 202) throw wrong("notifications/initialized", answer);
    return session;
  }

  /** A session that was ended is not there any more. */
  async #endSession(connection: Connection, door: Door, session: string): Promise<void> {
    const ended = await connection.exchange(endSession(this.#url, door, session));
    if (ended.status !== 200) throw wrong("the end of a session", ended);
    const { headers, body } = message(door, session, this.#nextId(), "tools/list", {});
    const after = await connection.exchange(httpRequest(this.#url, "POST", headers, JSON.stringify(body)));
    if (after.status !== 404) throw wrong("a request in a session that has ended", after);
    this.counts.sessions += 1;
  }

  #transport(): StreamableHTTPClientTransport {
    const headers = { authorization: `Bearer ${apiKey}` };
    return new StreamableHTTPClientTransport(this.#url, { requestInit: { headers } });
  }

  #nextId(): number {
    return ++this.#lastId;
  }
}

/** A client that listens for changes of the list. */
class Listener implements AsyncDisposable {
  readonly client: Client;
  readonly #transport: StreamableHTTPClientTransport;
  #heard = 0;
  #read = 0;

  private constructor(client: Client, transport: StreamableHTTPClientTransport) {
    this.client = client;
    this.#transport = transport;
  }

  static async open(
    transport: StreamableHTTPClientTransport,
    mode: (typeof eras)[number],
  ): Promise<Listener> {
    const client = new Client(clientsInfo, { versionNegotiation: { mode } });
    const listener = new Listener(client, transport);
    client.setNotificationHandler("notifications/tools/list_changed", () => {
      listener.#heard += 1;
    });
    await client.connect(transport);
    if (mode !== "legacy") await client.listen({ toolsListChanged: true });
    return listener;
  }

  /** Resolves when it was told of a list that is so: it asks for the list when it was told that it has changed. */
  async told(isSo: (names: readonly string[]) => boolean): Promise<void> {
    for (;;) {
      await until("a client is told of a change", () => this.#heard > this.#read);
      this.#read = this.#heard;
      const { tools } = await this.client.listTools();
      if (isSo(tools.map(({ name }) => name))) return;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#transport.sessionId !== undefined) await this.#transport.terminateSession();
    await this.client.close();
  }
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  const end = performance.now() + patienceMs;
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`it did not come about that ${what}`);
    await sleep(lookMs);
  }
}
