/**
 * The containers of docker-compose.yml as processes of this machine: each with exactly the command and the environment
 * that stand there, where names of hosts become 127.0.0.1, ports free ones, and mounted folders temporary ones.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { freePorts } from "../services/ports.ts";
import { interpolate, type Compose } from "./files.ts";

/** The ports that each container listens on; the operator port is a default, and so stands in no variable. */
const listening: Readonly<Record<string, readonly number[]>> = {
  consul: [8500, 8300, 8301],
  kafka: [9092, 9093, 9094],
  "runtime-1": [8090, 8085],
  "runtime-2": [8090, 8085],
  sample: [8095],
};

export interface Container {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly healthcheck: readonly string[];
}

export class Machine {
  readonly #compose: Compose;
  readonly #folder: string;
  readonly #ports: ReadonlyMap<string, number>;

  private constructor(compose: Compose, folder: string, ports: ReadonlyMap<string, number>) {
    this.#compose = compose;
    this.#folder = folder;
    this.#ports = ports;
  }

  /** @param folder that mounted folders lie in */
  static async create(compose: Compose, folder: string): Promise<Machine> {
    const keys = Object.entries(listening).flatMap(([host, own]) => own.map((port) => `${host}:${port}`));
    const free = await freePorts(keys.length);
    return new Machine(compose, folder, new Map(keys.map((key, at) => [key, free[at]!])));
  }

  /** Where a container's port is on this machine. */
  port(host: string, port: number): number {
    const mapped = this.#ports.get(`${host}:${port}`);
    if (mapped === undefined) throw new Error(`${host} does not listen on ${port}`);
    return mapped;
  }

  async container(name: string): Promise<Container> {
    const { command = [], environment = {}, healthcheck, volumes = [] } = this.#compose.services[name]!;
    const mounts = volumes.map((mount) => mount.split(":") as [string, string]);
    for (const [volume] of mounts) await mkdir(join(this.#folder, volume), { recursive: true });
    const here = (text: string): string => this.#here(name, text, mounts);
    return {
      command: command.map(here),
      environment: Object.fromEntries(
        Object.entries(environment).map(([key, value]) => [
          key,
          value in listening ? "127.0.0.1" : here(value),
        ]),
      ),
      healthcheck: (healthcheck?.test ?? []).map(here),
    };
  }

  #here(self: string, text: string, mounts: readonly (readonly [string, string])[]): string {
    const published = { KAFKA_PUBLISHED_PORT: "9094", CONSUL_PUBLISHED_PORT: "8500" };
    const hosts = Object.keys(listening);
    const ownPort = (port: string): string => String(this.#ports.get(`${self}:${port}`) ?? port);
    const mounted = mounts.reduce(
      (path, [volume, target]) => path.replaceAll(target, join(this.#folder, volume)),
      interpolate(text, published),
    );
    if (/^\d+$/.test(mounted)) return String(this.#onlyPort(self, mounted));
    return mounted
      .replaceAll(/([a-z0-9-]+):(\d{4})\b/g, (found, host: string, port: string) =>
        hosts.includes(host) ? `127.0.0.1:${this.port(host, Number(port))}` : found,
      )
      .replaceAll(
        /(0\.0\.0\.0|127\.0\.0\.1|localhost|(?<=:\/\/)):(\d{4})\b/g,
        (_, _host, port: string) => `127.0.0.1:${ownPort(port)}`,
      )
      .replaceAll("0.0.0.0", "127.0.0.1");
  }

  /** A number alone: a port of the container itself, else of the only one that has it, else no port at all. */
  #onlyPort(self: string, text: string): string | number {
    const own = this.#ports.get(`${self}:${text}`);
    if (own !== undefined) return own;
    const others = [...this.#ports].filter(([key]) => key.endsWith(`:${text}`));
    return others.length === 1 ? others[0]![1] : text;
  }
}

/** The broker's properties that the image makes of its environment: KAFKA_A_B becomes a.b. */
export const brokerProperties = (environment: Readonly<Record<string, string>>): string =>
  Object.entries(environment)
    .filter(([name]) => name.startsWith("KAFKA_") && name !== "KAFKA_HEAP_OPTS")
    .map(([name, value]) => `${name.slice("KAFKA_".length).toLowerCase().replaceAll("_", ".")}=${value}\n`)
    .join("");
