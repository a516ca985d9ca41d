/**
 * The services around the runtime while it is soaked. Owns: instances that come and go, some of them while they are being
 * called, and contracts that say so. Does not own: who calls.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { onexEcho, removeTool, restEcho, writeConfig, writeTool } from "./contracts.ts";

/** What `/slow` takes, unless the caller goes away before. */
const slowMs = 20_000;
const mostInstances = 4;

interface Instance {
  readonly server: Server;
  readonly url: string;
}

export class World implements AsyncDisposable {
  readonly folder: string;
  /** Never goes. */
  readonly #home: Instance;
  #instances: Instance[] = [];
  /** By their text, the calls of the slow tool that have arrived, and whether their caller went away. */
  readonly slow: Map<string, "begun" | "left">;
  /** Instances that came, and that went. */
  readonly changes = { came: 0, went: 0 };

  private constructor(folder: string, home: Instance, slow: World["slow"]) {
    this.folder = folder;
    this.#home = home;
    this.slow = slow;
  }

  /** Tools that are always there. */
  static readonly tools = ["echo_rest", "echo_onex", "echo_local", "slow"] as const;

  static async build(folder: string): Promise<World> {
    const slow: World["slow"] = new Map();
    const world = new World(folder, await listen(slow), slow);
    await writeConfig(folder);
    await writeTool(folder, "echo_rest", restEcho(world.#home.url));
    await writeTool(folder, "slow", { ...restEcho(world.#home.url), url: `${world.#home.url}/slow` });
    await writeTool(folder, "echo_local", { kind: "local", module: "./echo.mjs" });
    await writeFile(join(folder, "nodes/echo_local/echo.mjs"), "export default ({ text }) => ({ text });\n");
    world.#instances = [await listen(slow), await listen(slow)];
    await world.#publish();
    return world;
  }

  /** Addresses of the tool whose instances come and go. */
  get addresses(): readonly string[] {
    return this.#instances.map(({ url }) => url);
  }

  /** One instance more. */
  async grow(): Promise<void> {
    this.#instances = [...this.#instances, await listen(this.slow)];
    this.changes.came += 1;
    await this.#publish();
  }

  get isFull(): boolean {
    return this.#instances.length >= mostInstances;
  }

  /** The oldest goes before the contract says so: calls that it has not answered are lost with it. */
  async crash(): Promise<void> {
    const [oldest, ...others] = this.#instances;
    this.#instances = others;
    this.changes.went += 1;
    if (oldest !== undefined) await kill(oldest);
    await this.#publish();
  }

  /** The contract says first that the oldest goes. The value ends it, once the runtime has heard that. */
  async retire(): Promise<() => Promise<void>> {
    const [oldest, ...others] = this.#instances;
    this.#instances = others;
    this.changes.went += 1;
    await this.#publish();
    return async () => {
      if (oldest !== undefined) await kill(oldest);
    };
  }

  /** A tool of a name that was not there before. */
  async addGuest(): Promise<string> {
    const name = `guest_${randomUUID().slice(0, 8)}`;
    await writeTool(this.folder, name, restEcho(this.#home.url));
    return name;
  }

  removeGuest(name: string): Promise<void> {
    return removeTool(this.folder, name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#home, ...this.#instances].map(kill));
  }

  #publish(): Promise<void> {
    return writeTool(this.folder, "echo_onex", onexEcho(...this.addresses));
  }
}

async function kill({ server }: Instance): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await closed;
}

/** Echoes like `backend.ts`, and takes its time at `/slow`. */
async function listen(slow: World["slow"]): Promise<Instance> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks).toString();
      if (request.url === "/slow") answerSlowly(response, body, slow);
      else answer(response, request.url === "/onex" ? JSON.stringify(JSON.parse(body).payload) : body);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

function answer(response: ServerResponse, text: string): void {
  response.writeHead(200, { "content-type": "application/json" }).end(text);
}

function answerSlowly(response: ServerResponse, text: string, slow: World["slow"]): void {
  const { text: name } = JSON.parse(text) as { text: string };
  slow.set(name, "begun");
  const timer = setTimeout(() => answer(response, text), slowMs);
  response.once("close", () => {
    clearTimeout(timer);
    if (!response.writableEnded) slow.set(name, "left");
  });
}
