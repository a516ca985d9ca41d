/**
 * One HTTP request of HandlerHttp and its answer. Owns: the connections and their limits, the answer's size, and what a
 * failure is called. Does not own: what may be asked for (`http-request.ts`).
 *
 * 1. A request ends at once at its deadline or when its signal aborts, also while it waits for a connection.
 * 2. No more of a body is held than the limit: the request is aborted at the first byte too many.
 * 3. A status is an answer, whatever it says; an error is that there is none.
 * 4. Connections are kept for the next request to the same origin for a few seconds, and closed then.
 */
import { isUtf8 } from "node:buffer";
import { isIP } from "node:net";
import { Agent, type Dispatcher } from "undici";
import { abortReason, abortable, deadline } from "../core/abort.ts";
import {
  InfraConnectionError,
  InfraTimeoutError,
  InfraUnavailableError,
  OnexError,
  RuntimeHostError,
  type ErrorFacts,
} from "../core/errors.ts";
import { AddressRefusedError, networks, type Networks } from "../execution/networks.ts";
import { noAnswer } from "../execution/no-answer.ts";
import type { HttpConfig } from "./http-config.ts";
import type { OutboundRequest } from "./http-request.ts";

/** The answer's payload. */
export interface HttpAnswerPayload {
  readonly status_code: number;
  /** Names in lower case; a list where a header came several times. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  /** JSON parsed, text as it is, other bytes in base64; null where there are none. */
  readonly body: unknown;
  /** Set where `body` is not what was sent but stands for it. */
  readonly encoding?: "base64";
  /** What was asked for. */
  readonly url: string;
  /** Where a redirect leads, absolute. It is not followed. */
  readonly location?: string;
}

/** Sockets of one origin. */
const maxConnections = 16;
/** For a connection to be there, name lookup and TLS included. */
const connectSeconds = 10;
/** A connection without a request is closed after this; a server may ask for less, and for more up to the second. */
const idleMs = 4000;
const longestIdleMs = 15_000;
/** The deadline, at most 300 s, is the limit that counts; this only ends what it could not. */
const backstopMs = 310_000;

export class HttpClient {
  readonly #config: HttpConfig;
  readonly #networks: Networks;
  readonly #agent: Agent;

  /** @throws ProtocolConfigurationError for a network that is none */
  constructor(config: HttpConfig) {
    this.#config = config;
    this.#networks = networks(config.allowedNetworks);
    this.#agent = new Agent({
      connections: maxConnections,
      keepAliveTimeout: idleMs,
      keepAliveMaxTimeout: longestIdleMs,
      headersTimeout: backstopMs,
      bodyTimeout: backstopMs,
      connect: { lookup: this.#networks.lookup, timeout: connectSeconds * 1000 },
      // With HTTP/2 one connection would carry every request.
      allowH2: false,
    });
  }

  /**
   * Sends a request and reads its answer. (3)
   *
   * @throws InfraTimeoutError, InfraConnectionError (retryable); RuntimeHostError for an address that may not be called
   *   or an answer that is too large; the signal's reason when it aborts
   */
  async send(request: OutboundRequest, signal: AbortSignal): Promise<HttpAnswerPayload> {
    const { method, url, timeoutSeconds } = request;
    const facts: ErrorFacts = { transport: "http", operation: `${method} ${url.origin}`, target: url.origin };
    const host = url.hostname.replace(/^\[|\]$/g, "");
    // A literal address is connected to without a lookup.
    if (isIP(host) !== 0 && !this.#networks.allows(host)) throw addressRefused(url, facts);
    using limit = deadline(timeoutSeconds, `${method} ${url.origin}`, signal);
    try {
      return await abortable(this.#exchange(request, limit.signal), limit.signal); // (1)
    } catch (thrown) {
      if (limit.signal.aborted) throw abortReason(limit.signal);
      throw failureOf(thrown, url, facts, this.#config);
    }
  }

  /** Ends what is under way with `reason` and closes every connection. */
  async destroy(reason: Error): Promise<void> {
    await this.#agent.destroy(reason);
  }

  async #exchange(request: OutboundRequest, signal: AbortSignal): Promise<HttpAnswerPayload> {
    const { method, url, headers, body } = request;
    const answer = await this.#agent.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method,
      headers,
      body,
      signal,
    });
    const bytes = await this.#read(answer);
    return payloadOf(url, answer, bytes);
  }

  /** (2) */
  async #read({ headers, body }: Dispatcher.ResponseData): Promise<Buffer> {
    const { maxResponseBytes } = this.#config;
    const chunks: Buffer[] = [];
    let isTooLarge = Number(one(headers["content-length"])) > maxResponseBytes;
    if (!isTooLarge) {
      let size = 0;
      for await (const chunk of body as AsyncIterable<Buffer>) {
        size += chunk.length;
        isTooLarge = size > maxResponseBytes;
        if (isTooLarge) break;
        chunks.push(chunk);
      }
    }
    if (!isTooLarge) return Buffer.concat(chunks);
    // The rest would otherwise be read to its end to free the connection.
    body.on("error", () => undefined).destroy();
    throw new AnswerTooLarge();
  }
}

class AnswerTooLarge extends Error {}

function payloadOf(url: URL, answer: Dispatcher.ResponseData, bytes: Buffer): HttpAnswerPayload {
  const { statusCode, headers } = answer;
  const location = statusCode >= 300 && statusCode < 400 ? one(headers.location) : "";
  const target = location === "" ? null : URL.parse(location, url.href);
  return {
    status_code: statusCode,
    headers: Object.fromEntries(
      Object.entries(headers).filter((pair): pair is [string, string | string[]] => pair[1] !== undefined),
    ),
    ...bodyOf(bytes, one(headers["content-type"]), one(headers["content-encoding"])),
    url: url.href,
    ...(target !== null && { location: target.href }),
  };
}

function bodyOf(
  bytes: Buffer,
  contentType: string,
  contentEncoding: string,
): Pick<HttpAnswerPayload, "body" | "encoding"> {
  if (bytes.length === 0) return { body: null };
  const base64 = (): Pick<HttpAnswerPayload, "body" | "encoding"> => ({
    body: bytes.toString("base64"),
    encoding: "base64",
  });
  // None was asked for by default; decoding would have to be bounded, as a few bytes can stand for gigabytes.
  if (contentEncoding !== "" && contentEncoding.toLowerCase() !== "identity") return base64();
  const [type = "", ...parameters] = contentType.split(";").map((part) => part.trim().toLowerCase());
  if (type === "application/json" || type.endsWith("+json")) return jsonOf(bytes) ?? base64();
  const charset = parameters.find((parameter) => parameter.startsWith("charset="))?.slice(8);
  if (!isText(type) && charset === undefined)
    return type === "" && isUtf8(bytes) ? { body: bytes.toString() } : base64();
  try {
    return { body: new TextDecoder(charset?.replaceAll('"', "") ?? "utf-8", { fatal: true }).decode(bytes) };
  } catch {
    return base64();
  }
}

/** Undefined where it is not UTF-8. What is not JSON stays text. */
function jsonOf(bytes: Buffer): { readonly body: unknown } | undefined {
  if (!isUtf8(bytes)) return undefined;
  const text = new TextDecoder().decode(bytes);
  try {
    return { body: JSON.parse(text) as unknown };
  } catch {
    return { body: text };
  }
}

/** Types that are text without saying so by a charset. */
const isText = (type: string): boolean =>
  type.startsWith("text/") ||
  type.endsWith("+xml") ||
  [
    "application/xml",
    "application/javascript",
    "application/x-www-form-urlencoded",
    "application/yaml",
  ].includes(type);

const one = (header: string | string[] | undefined): string =>
  (typeof header === "string" ? header : (header?.[0] ?? "")).trim();

const addressRefused = (url: URL, facts: ErrorFacts, cause?: unknown): RuntimeHostError =>
  new RuntimeHostError(`${url.host} has an address that may not be called (allowed_networks).`, {
    cause,
    facts,
  });

/** Why there is no answer. A message names the origin only: the rest of a URL may be a secret. */
function failureOf(thrown: unknown, url: URL, given: ErrorFacts, config: HttpConfig): OnexError {
  if (thrown instanceof OnexError) return thrown;
  const { kind, code } = noAnswer(thrown);
  const facts: ErrorFacts = { ...given, ...(code !== undefined && { reason: code }) };
  if (thrown instanceof AnswerTooLarge) {
    return new RuntimeHostError(
      `The answer of ${url.origin} is larger than max_response_bytes, ${config.maxResponseBytes}; nothing of it is given.`,
      { facts },
    );
  }
  if (thrown instanceof AddressRefusedError) return addressRefused(url, facts, thrown);
  const options = { cause: thrown, facts };
  const why = code === undefined ? "" : ` (${code})`;
  switch (kind) {
    case "connect_timeout":
    case "timeout": {
      const limit = kind === "connect_timeout" ? connectSeconds : backstopMs / 1000;
      return new InfraTimeoutError(`${url.origin} could not be reached within ${limit} s.`, {
        cause: thrown,
        facts: { ...facts, timeout_seconds: limit },
      });
    }
    case "closed":
      return new InfraUnavailableError("The runtime is stopping.", options);
    case "unwritable":
      return new RuntimeHostError(`The request to ${url.origin} could not be written${why}.`, options);
    case "lost":
      return new InfraConnectionError(
        `${url.origin} broke off before its answer was complete${why}.`,
        options,
      );
    case "not_http":
      return new InfraConnectionError(
        `${url.origin} gave an answer that is not valid HTTP, or one with more than 16 KiB of headers${why}.`,
        options,
      );
    case "unreachable":
      return new InfraConnectionError(`${url.origin} could not be reached${why}.`, options);
  }
}
