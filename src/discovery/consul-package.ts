/**
 * The `consul` package, as it is used: opened on first use, with sockets of our own, and with its faults mended. Does not
 * own: requests (`consul-client.ts`), or what an answer means.
 *
 * 1. An answer is handed on as it came: the package's own reading of one throws where nobody can catch it.
 * 2. An answer ends: cut off, or at `maxAnswerBytes`, it is an error of its request.
 * 3. All answers under way together hold `maxHeldBytes` at most: the largest of them is ended.
 */
import { readFile } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import { messageOf, ProtocolConfigurationError } from "../core/errors.ts";
import { urlHost } from "../core/url-host.ts";

export interface ConsulOptions {
  readonly host: string;
  readonly port: number;
  readonly scheme: "http" | "https";
  /** Of the ACL system. Default: none is sent. */
  readonly token?: string;
  /** Default: the agent's own. */
  readonly datacenter?: string;
  /** Path of a PEM file with the certificate authorities to trust, with https. Default: Node's. */
  readonly ca?: string;
  /** Sockets for reads. Default 32. */
  readonly maxSockets?: number;
}

type Method = (options: object) => Promise<unknown>;

/** The package's methods that are used; its own types lack the options that all of them take. */
export interface Package {
  readonly catalog: {
    readonly service: { list: Method };
    readonly node: { list: Method; services: Method };
  };
  readonly health: { state: Method; service: Method };
  readonly kv: { get: Method; set: Method; del: Method };
  readonly agent: {
    readonly service: { list: Method; register: Method; deregister: Method };
    readonly check: { pass: Method };
  };
  _ext(event: "onRequest" | "onResponse", run: (request: PackageRequest, next: Next) => void): void;
}

interface PackageRequest {
  transport: { request(options: https.RequestOptions): http.ClientRequest };
  readonly res?: { readonly body?: unknown };
  readonly err?: unknown;
}

/** Goes on; with `false` it is the end, and the request's promise resolves to the last value. */
type Next = (stop?: false, none?: undefined, value?: unknown) => void;

/** An answer that goes on past every answer of Consul's, or past what all of them may hold. */
export class AnswerTooLargeError extends Error {}

export interface OpenPackage {
  readonly client: Package;
  readonly agent: http.Agent;
}

/**
 * A function that makes clients with at most so many sockets.
 *
 * @throws ProtocolConfigurationError where the file of `ca` cannot be read
 */
export async function packageOpener(options: ConsulOptions): Promise<(maxSockets: number) => OpenPackage> {
  const ca = options.ca === undefined ? undefined : await readCa(options.ca);
  const isSecure = options.scheme === "https";
  const end = endAnswers();
  // On first use: most runtimes have no Consul.
  const { default: ConsulPackage } = await import("consul");
  return (maxSockets) => {
    const common = { keepAlive: true, keepAliveMsecs: keepAliveMs, maxSockets };
    const agent = isSecure
      ? new https.Agent({ ...common, ...(ca !== undefined && { ca }) })
      : new http.Agent(common);
    const client = new ConsulPackage({
      host: urlHost(options.host),
      port: options.port,
      secure: isSecure,
      agent,
      defaults: {
        ...(options.token !== undefined && { token: options.token }),
        ...(options.datacenter !== undefined && { dc: options.datacenter }),
      },
    }) as unknown as Package;
    client._ext("onRequest", end);
    client._ext("onResponse", handOn);
    return { client, agent };
  };
}

/** A peer that is gone without a word is noticed after this and ten probes, one a second. */
const keepAliveMs = 5000;
/** Far above Consul's largest: the list of 5,000 services takes 0.5 MB, and 1,000 contracts of 40 kB take 54 MB. */
const maxAnswerBytes = 64 * 1024 * 1024;
/** Bytes. One of the largest and a great many others. */
const maxHeldBytes = 2 * maxAnswerBytes;

async function readCa(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new ProtocolConfigurationError(`consul_ca cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** (1) Failures are left to the package: it hangs the response on them. */
function handOn({ err, res }: PackageRequest, next: Next): void {
  if (err === undefined && res !== undefined) next(false, undefined, [res, res.body]);
  else next();
}

/** An answer that is being read. */
interface UnderWay {
  bytes: number;
  /** Ends it with an error of its request. */
  readonly end: (reason: string) => void;
}

/** The package waits for ever for the rest of an answer that is cut off, and keeps all of one without an end. (2) (3) */
function endAnswers(): (request: PackageRequest, next: Next) => void {
  const underWay = new Set<UnderWay>();
  let held = 0;
  const leave = (one: UnderWay): void => {
    if (underWay.delete(one)) held -= one.bytes;
  };
  const take = (one: UnderWay, bytes: number): void => {
    one.bytes += bytes;
    held += bytes;
    if (one.bytes > maxAnswerBytes) one.end(`it is larger than ${maxAnswerBytes} bytes`);
    if (held <= maxHeldBytes) return;
    const largest = [...underWay].reduce((a, b) => (b.bytes > a.bytes ? b : a));
    largest.end(`it is the largest of ${underWay.size} that hold more than ${maxHeldBytes} bytes together`);
  };
  const watch = (outgoing: http.ClientRequest, answer: http.IncomingMessage): void => {
    const one: UnderWay = {
      bytes: 0,
      end: (reason) => {
        leave(one);
        outgoing.emit("error", new AnswerTooLargeError(reason));
        answer.removeAllListeners("data");
        answer.destroy();
      },
    };
    underWay.add(one);
    answer.once("aborted", () => outgoing.emit("error", new Error("the answer was cut off")));
    answer.once("close", () => leave(one));
    answer.on("data", (chunk: Buffer) => take(one, chunk.length));
  };
  return (request, next) => {
    const { transport } = request;
    request.transport = {
      request(options) {
        const outgoing = transport.request(options);
        return outgoing.once("response", (answer) => watch(outgoing, answer));
      },
    };
    next();
  };
}
