/**
 * The `consul` package, as it is used: opened on first use, with sockets of our own, and with one fault mended. Does not
 * own: requests (`consul-client.ts`).
 */
import { readFile } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import { messageOf, ProtocolConfigurationError } from "../core/errors.ts";

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
  _ext(event: "onRequest", run: (request: PackageRequest, next: () => void) => void): void;
}

interface PackageRequest {
  transport: { request(options: https.RequestOptions): http.ClientRequest };
}

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
  // On first use: most runtimes have no Consul.
  const { default: ConsulPackage } = await import("consul");
  return (maxSockets) => {
    const common = { keepAlive: true, keepAliveMsecs: keepAliveMs, maxSockets };
    const agent = isSecure
      ? new https.Agent({ ...common, ...(ca !== undefined && { ca }) })
      : new http.Agent(common);
    const client = new ConsulPackage({
      host: options.host.includes(":") ? `[${options.host}]` : options.host,
      port: options.port,
      secure: isSecure,
      agent,
      defaults: {
        ...(options.token !== undefined && { token: options.token }),
        ...(options.datacenter !== undefined && { dc: options.datacenter }),
      },
    }) as unknown as Package;
    client._ext("onRequest", endWithAnswer);
    return { client, agent };
  };
}

/** A peer that is gone without a word is noticed after this and ten probes, one a second. */
const keepAliveMs = 5000;

async function readCa(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new ProtocolConfigurationError(`consul_ca cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** The package waits for ever for the rest of an answer that is cut off: this makes it an error of the request. */
function endWithAnswer(request: PackageRequest, next: () => void): void {
  const { transport } = request;
  request.transport = {
    request(options) {
      const outgoing = transport.request(options);
      outgoing.once("response", (answer) => {
        answer.once("aborted", () => outgoing.emit("error", new Error("the answer was cut off")));
      });
      return outgoing;
    },
  };
  next();
}
