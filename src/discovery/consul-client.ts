/**
 * Requests to a Consul agent, through the `consul` package. Owns the sockets, the limits of time, cancelling, and what a
 * failure is called. Does not own: when to ask (`consul-wait.ts`, `consul.ts`), or what an answer means.
 *
 * 1. At most `maxSockets` sockets for reads, and one for each query that waits: far below what an agent allows a client.
 * 2. Every request ends: with its answer, at its time limit, when its signal aborts, or with the client.
 * 3. Answers are Consul's default consistency, or consistent where that is asked for; a stale one is never asked for.
 */
import { EventEmitter } from "node:events";
import type http from "node:http";
import type { z } from "zod";
import { abortReason } from "../core/abort.ts";
import {
  CancelledError,
  InfraAuthenticationError,
  InfraConnectionError,
  InfraTimeoutError,
  InfraUnavailableError,
  messageOf,
  type OnexError,
} from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { urlHost } from "../core/url-host.ts";
import {
  agentServicesAnswer,
  checksAnswer,
  type ConsulAgentService,
  type ConsulCheck,
  type ConsulInstance,
  type ConsulKey,
  type ConsulNode,
  type ConsulNodeService,
  type ConsulServices,
  instancesAnswer,
  keysAnswer,
  nodeServicesAnswer,
  nodesAnswer,
  servicesAnswer,
} from "./consul-answers.ts";

import {
  AnswerTooLargeError,
  type ConsulOptions,
  type OpenPackage,
  type Package,
  packageOpener,
} from "./consul-package.ts";

export type { ConsulKey } from "./consul-answers.ts";
export type { ConsulOptions } from "./consul-package.ts";

/** How a read is made. */
export interface ConsulRead {
  readonly signal?: AbortSignal;
  /** Answer only when the index has left this one, or `seconds` are over. Default: at once. */
  readonly wait?: { readonly index: number; readonly seconds: number };
  /** Only rows for which this expression of Consul's filter language holds. Default: all. */
  readonly filter?: string;
  /**
   * The leader answers once it has made sure that it knows all that was written. Default false: one that has just begun
   * may still be reading its log, and answers with what was so earlier.
   */
  readonly consistent?: boolean;
}

export interface ConsulAnswer<T> {
  readonly data: T;
  /** `X-Consul-Index`, 0 where there is none. */
  readonly index: number;
  /** Consul says that it left out what the token may not read. It never says so to a client without a token. */
  readonly isFiltered: boolean;
}

/** What a service is registered with at the agent. */
export interface ConsulRegistration {
  readonly id: string;
  readonly name: string;
  readonly address?: string;
  readonly port?: number;
  readonly tags?: readonly string[];
  readonly meta?: Readonly<Record<string, string>>;
  /** Durations as Consul writes them: `10s`. */
  readonly check?: {
    readonly id?: string;
    readonly deregisterAfter?: string;
    /** Until the first check. Default critical. */
    readonly status?: "passing" | "warning" | "critical";
  } & (
    | { readonly ttl: string }
    | { readonly http: string; readonly interval: string; readonly timeout?: string }
    /** `host:port` that is connected to. */
    | { readonly tcp: string; readonly interval: string; readonly timeout?: string }
  );
}

/** Every method rejects with an `OnexError` with `facts.transport` "consul". */
export interface ConsulClient {
  /** `http://127.0.0.1:8500`, for messages. */
  readonly address: string;
  /** Names of services with the tags of all their instances together. */
  services(read?: ConsulRead): Promise<ConsulAnswer<ConsulServices>>;
  /** Checks in any state. */
  checks(read?: ConsulRead): Promise<ConsulAnswer<readonly ConsulCheck[]>>;
  /** The instances of a service with their node and their checks; empty: there is none. */
  instances(service: string, read?: ConsulRead): Promise<ConsulAnswer<readonly ConsulInstance[]>>;
  nodes(read?: ConsulRead): Promise<ConsulAnswer<readonly ConsulNode[]>>;
  /** What is registered at a node; empty also where there is no such node. */
  nodeServices(node: string, read?: ConsulRead): Promise<ConsulAnswer<readonly ConsulNodeService[]>>;
  /** What is registered at the agent itself. */
  agentServices(read?: ConsulRead): Promise<readonly ConsulAgentService[]>;
  /** Every key that begins with the prefix. */
  keys(prefix: string, read?: ConsulRead): Promise<ConsulAnswer<readonly ConsulKey[]>>;
  /** As `keys`, without the index. */
  readKeys(prefix: string, signal?: AbortSignal): Promise<readonly ConsulKey[]>;
  /** One key, or undefined where it is not there. */
  readKey(
    key: string,
    signal?: AbortSignal,
    how?: Pick<ConsulRead, "consistent">,
  ): Promise<ConsulKey | undefined>;
  putKey(key: string, value: string): Promise<void>;
  /** Also where there is no such key. */
  deleteKey(key: string): Promise<void>;
  registerService(registration: ConsulRegistration, signal?: AbortSignal): Promise<void>;
  /** @throws InfraUnavailableError where the agent knows no such service */
  deregisterService(id: string, signal?: AbortSignal): Promise<void>;
  /** Says that a TTL check passes. */
  passTtl(checkId: string, signal?: AbortSignal): Promise<void>;
  /** Aborts what is under way and closes the sockets. Idempotent. */
  close(): void;
}

/** Milliseconds for anything but a waiting query. */
const requestMs = 10_000;
const defaultMaxSockets = 32;
/** Sockets for waiting queries; they never stand in a line behind reads, nor reads behind them. */
const maxWaitingSockets = 8;

/**
 * A client of the agent at these options. Nothing is connected yet.
 *
 * @throws ProtocolConfigurationError where the file of `ca` cannot be read
 */
export async function openConsul(options: ConsulOptions): Promise<ConsulClient> {
  const open = await packageOpener(options);
  return new Client(options, open(options.maxSockets ?? defaultMaxSockets), open(maxWaitingSockets));
}

class Client implements ConsulClient {
  readonly address: string;
  readonly #reading: OpenPackage;
  readonly #waiting: OpenPackage;
  readonly #pending = new Set<() => void>();
  #isClosed = false;

  constructor(options: ConsulOptions, reading: OpenPackage, waiting: OpenPackage) {
    this.address = `${options.scheme}://${urlHost(options.host)}:${options.port}`;
    this.#reading = reading;
    this.#waiting = waiting;
  }

  services(read: ConsulRead = {}): Promise<ConsulAnswer<ConsulServices>> {
    return this.#read("catalog/services", servicesAnswer, read, ({ catalog }, options) =>
      catalog.service.list(options),
    );
  }

  checks(read: ConsulRead = {}): Promise<ConsulAnswer<readonly ConsulCheck[]>> {
    return this.#read("health/state/any", checksAnswer, read, ({ health }, options) =>
      health.state({ ...options, state: "any" }),
    );
  }

  instances(service: string, read: ConsulRead = {}): Promise<ConsulAnswer<readonly ConsulInstance[]>> {
    return this.#read(`health/service/${service}`, instancesAnswer, read, ({ health }, options) =>
      health.service({ ...options, service }),
    );
  }

  nodes(read: ConsulRead = {}): Promise<ConsulAnswer<readonly ConsulNode[]>> {
    return this.#read("catalog/nodes", nodesAnswer, read, ({ catalog }, options) =>
      catalog.node.list(options),
    );
  }

  nodeServices(node: string, read: ConsulRead = {}): Promise<ConsulAnswer<readonly ConsulNodeService[]>> {
    return this.#read(`catalog/node/${node}`, nodeServicesAnswer, read, ({ catalog }, options) =>
      catalog.node.services({ ...options, node }),
    );
  }

  async agentServices(read: ConsulRead = {}): Promise<readonly ConsulAgentService[]> {
    const answer = await this.#read("agent/services", agentServicesAnswer, read, ({ agent }, options) =>
      agent.service.list(options),
    );
    return answer.data;
  }

  keys(prefix: string, read: ConsulRead = {}): Promise<ConsulAnswer<readonly ConsulKey[]>> {
    return this.#read(`kv/${prefix}`, keysAnswer, read, ({ kv }, options) =>
      kv.get({ ...options, key: prefix, recurse: true }),
    );
  }

  async readKeys(prefix: string, signal?: AbortSignal): Promise<readonly ConsulKey[]> {
    return (await this.keys(prefix, signal && { signal })).data;
  }

  async readKey(
    key: string,
    signal?: AbortSignal,
    how: Pick<ConsulRead, "consistent"> = {},
  ): Promise<ConsulKey | undefined> {
    const read = { ...how, ...(signal !== undefined && { signal }) };
    const { data } = await this.#read(`kv/${key}`, keysAnswer, read, ({ kv }, options) =>
      kv.get({ ...options, key }),
    );
    return data[0];
  }

  putKey(key: string, value: string): Promise<void> {
    return this.#write(`kv/${key}`, ({ kv }, options) => kv.set({ ...options, key, value }));
  }

  deleteKey(key: string): Promise<void> {
    return this.#write(`kv/${key}`, ({ kv }, options) => kv.del({ ...options, key }));
  }

  registerService(registration: ConsulRegistration, signal?: AbortSignal): Promise<void> {
    const { check, ...service } = registration;
    const { id, deregisterAfter, ...how } = check ?? {};
    const described = {
      ...service,
      ...(check !== undefined && {
        check: {
          ...how,
          ...(id !== undefined && { checkid: id }),
          ...(deregisterAfter !== undefined && { deregistercriticalserviceafter: deregisterAfter }),
        },
      }),
    };
    const operation = `agent/service/register ${registration.id}`;
    return this.#write(operation, ({ agent }, o) => agent.service.register({ ...o, ...described }), signal);
  }

  deregisterService(id: string, signal?: AbortSignal): Promise<void> {
    const operation = `agent/service/deregister ${id}`;
    return this.#write(
      operation,
      ({ agent }, options) => agent.service.deregister({ ...options, id }),
      signal,
    );
  }

  passTtl(checkId: string, signal?: AbortSignal): Promise<void> {
    const operation = `agent/check/pass ${checkId}`;
    return this.#write(operation, ({ agent }, o) => agent.check.pass({ ...o, id: checkId }), signal);
  }

  close(): void {
    this.#isClosed = true;
    for (const cancel of this.#pending) cancel();
    this.#reading.agent.destroy();
    this.#waiting.agent.destroy();
  }

  async #write(
    operation: string,
    run: (client: Package, options: object) => Promise<unknown>,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#send(operation, this.#reading.client, run, requestMs, signal);
  }

  async #read<T>(
    operation: string,
    schema: z.ZodType<T>,
    read: ConsulRead,
    run: (client: Package, options: object) => Promise<unknown>,
  ): Promise<ConsulAnswer<T>> {
    const { wait, filter, signal, consistent = false } = read;
    const options = {
      ...(consistent && { consistent }),
      ...(filter !== undefined && { filter }),
      ...(wait !== undefined && { index: String(wait.index), wait: `${Math.ceil(wait.seconds)}s` }),
    };
    // Consul lengthens a wait by up to a sixteenth, so that clients do not come back all at once.
    const limit = requestMs + (wait === undefined ? 0 : Math.ceil(wait.seconds) * 1000 * (17 / 16));
    const { client } = wait === undefined ? this.#reading : this.#waiting;
    const answer = await this.#send(operation, client, (c, o) => run(c, { ...options, ...o }), limit, signal);
    const parsed = schema.safeParse(answer.body);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      const where = issue === undefined || issue.path.length === 0 ? "" : ` at ${issue.path.join(".")}`;
      throw this.#misunderstood(
        operation,
        `${where}: ${(issue?.message ?? "not understood").replace(/^Invalid input: /, "")}`,
      );
    }
    const { "x-consul-index": index, "x-consul-results-filtered-by-acls": filtered } = answer.headers;
    return { data: parsed.data, index: indexOf(index), isFiltered: filtered === "true" };
  }

  async #send(
    operation: string,
    client: Package,
    run: (client: Package, options: object) => Promise<unknown>,
    limitMs: number,
    signal?: AbortSignal,
  ): Promise<{ readonly headers: http.IncomingHttpHeaders; readonly body: unknown }> {
    throwIfAborted(signal);
    this.#mustBeOpen();
    // The package cancels by an event of this object, and hands out headers where the object asks for them.
    const context = Object.assign(new EventEmitter(), { includeResponse: true });
    const cancel = (): void => void context.emit("cancel");
    this.#pending.add(cancel);
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const result = await run(client, { ctx: context, timeout: limitMs });
      const [response, body] = result as [http.IncomingMessage, unknown];
      // A page's bytes are no JSON, neither is nothing at all.
      const isJson = body !== undefined && !(body instanceof Uint8Array);
      return {
        headers: response.headers,
        body: response.statusCode === 404 ? undefined : isJson ? body : "",
      };
    } catch (error) {
      throwIfAborted(signal);
      this.#mustBeOpen();
      throw this.#named(operation, error, limitMs);
    } finally {
      signal?.removeEventListener("abort", cancel);
      this.#pending.delete(cancel);
    }
  }

  #mustBeOpen(): void {
    if (this.#isClosed) throw new CancelledError("The Consul client is closed.");
  }

  #named(operation: string, error: unknown, limitMs: number): OnexError {
    const { statusCode, body } = responseOf(error);
    const said = typeof body === "string" && body.trim() !== "" ? `: ${body.trim().slice(0, maxSaid)}` : "";
    const facts = { transport: "consul" as const, operation, target: this.address };
    // A response leads to its request, and to the token in that.
    const cause = isObject(error) && error.response !== undefined ? undefined : error;
    const options = {
      cause,
      facts: { ...facts, ...(statusCode !== undefined && { status: statusCode }) },
    };
    if (statusCode === 401 || statusCode === 403) {
      const text = `Consul at ${this.address} refused ${operation} (${statusCode}${said}): check consul_token`;
      return new InfraAuthenticationError(text, options);
    }
    if (statusCode !== undefined) {
      const text = `Consul at ${this.address} answered ${operation} with ${statusCode}${said}`;
      return new InfraUnavailableError(text, options);
    }
    if (isObject(error) && error.isTimeout === true) {
      const seconds = limitMs / 1000;
      const text = `Consul at ${this.address} did not answer ${operation} within ${seconds} s`;
      return new InfraTimeoutError(text, { cause, facts: { ...facts, timeout_seconds: seconds } });
    }
    if (error instanceof AnswerTooLargeError || (isObject(error) && error.isCodec === true))
      return this.#misunderstood(operation, `: ${messageOf(error)}`);
    const text = `Consul at ${this.address} cannot be reached: ${messageOf(error)} (${operation})`;
    return new InfraConnectionError(text, { cause, facts });
  }

  #misunderstood(operation: string, what: string): OnexError {
    const text = `Consul at ${this.address} gave an answer to ${operation} that is not Consul's${what}`;
    const facts = { transport: "consul" as const, operation, target: this.address };
    return new InfraUnavailableError(text, { facts: { ...facts, status: 200 } });
  }
}

/**
 * Whether a failure is Consul's as a whole: then any other request would fail too. Else it is that of one request.
 *
 * @param othersSucceed another request of its kind has been answered since: a 500 is then its own. Default false
 */
export function isOutage(error: unknown, othersSucceed = false): boolean {
  const status = error instanceof InfraUnavailableError ? Number(error.facts.status) : Number.NaN;
  return Number.isNaN(status) || status === 429 || (status >= 500 && !othersSucceed);
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortReason(signal);
}

/** Characters shown of what Consul says with a refusal. */
const maxSaid = 300;

/**
 * The package hangs the response on every error. It is the reason of those that say so, and of those of which the package
 * could not read the body, since it reads that first.
 */
function responseOf(error: unknown): { readonly statusCode?: number; readonly body?: unknown } {
  if (!isObject(error) || !isObject(error.response)) return {};
  const { statusCode, body } = error.response;
  const isRefusal = error.isResponse === true || (error.isCodec === true && Number(statusCode) >= 300);
  if (!isRefusal || typeof statusCode !== "number") return {};
  return { statusCode, body: body instanceof Uint8Array ? textOf(body) : body };
}

const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes.subarray(0, 4 * maxSaid));

function indexOf(header: string | readonly string[] | undefined): number {
  const value = typeof header === "string" ? Number(header) : 0;
  return Number.isSafeInteger(value) && value > 0 ? value : 0;
}
