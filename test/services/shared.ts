/**
 * The Consul and the Kafka that every test of a run may use: from the environment, else from docker compose, else
 * started here. Each is started on the first call, once.
 */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { promisify } from "node:util";
import { composeService } from "./compose.ts";
import { hasLeader, startConsul } from "./consul.ts";
import { startKafka } from "./kafka.ts";
import { consulProgram, kafkaProgram, type Progress } from "./programs.ts";

/** What a test can ask for: a service all tests share, or the program for one of its own. */
export const partNames = ["consul", "kafka", "consul-program", "kafka-program"] as const;
export type PartName = (typeof partNames)[number];

interface Started {
  /** `host:port`, or the program's path. */
  readonly address: string;
  readonly stop?: () => Promise<void>;
}

export class SharedServices {
  readonly #started = new Map<PartName, Promise<Started>>();
  readonly #running = new Set<Started>();
  #stopped = false;
  readonly #progress: Progress;
  readonly #environment: NodeJS.ProcessEnv;

  constructor(progress: Progress, environment: NodeJS.ProcessEnv) {
    this.#progress = progress;
    this.#environment = environment;
  }

  /** The address of a part; rejects with the reason why it cannot be had. Asked again, the answer is the same. */
  async address(part: PartName): Promise<string> {
    let started = this.#started.get(part);
    if (started === undefined) {
      started = this.#start(part).then((part) => this.#keep(part));
      this.#started.set(part, started);
    }
    return (await started).address;
  }

  /** Stops what was started here; what is still being built or started is stopped when it is there. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const { stop } of this.#running) await stop?.();
  }

  async #keep(started: Started): Promise<Started> {
    if (this.#stopped) await started.stop?.();
    else this.#running.add(started);
    return started;
  }

  async #start(part: PartName): Promise<Started> {
    const progress: Progress = (line) => this.#progress(`${part}: ${line}`);
    if (part === "consul-program") return { address: await consulProgram(progress) };
    if (part === "kafka-program") return { address: await kafkaProgram(progress) };
    const begun = performance.now();
    const started =
      part === "consul"
        ? ((await consulFrom(this.#environment)) ??
          (await this.#compose("consul", progress)) ??
          (await ownConsul(progress)))
        : ((await kafkaFrom(this.#environment)) ??
          (await this.#compose("kafka", progress)) ??
          (await ownKafka(progress)));
    progress(`${started.address}, after ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    return started;
  }

  async #compose(service: "consul" | "kafka", progress: Progress): Promise<Started | undefined> {
    const run = promisify(execFile);
    try {
      // A daemon that hangs is none.
      await run("docker", ["info"], { timeout: 10_000 });
      await run("docker", ["compose", "version"]);
    } catch {
      return undefined;
    }
    return composeService(service, progress);
  }
}

const ownConsul = async (progress: Progress): Promise<Started> => {
  const consul = await startConsul({ progress });
  return { address: `${consul.host}:${consul.port}`, stop: () => consul.stop() };
};

const ownKafka = async (progress: Progress): Promise<Started> => {
  const kafka = await startKafka({ progress });
  return { address: kafka.bootstrapServers, stop: () => kafka.stop() };
};

/** CONSUL_HTTP_ADDR as Consul's own tools read it, without TLS. */
async function consulFrom(environment: NodeJS.ProcessEnv): Promise<Started | undefined> {
  const value = environment["CONSUL_HTTP_ADDR"];
  if (!value) return undefined;
  const url = URL.parse(value.includes("://") ? value : `http://${value}`);
  if (url?.protocol !== "http:")
    throw new Error(`CONSUL_HTTP_ADDR is ${value}: not host:port or http://host:port`);
  const port = Number(url.port || 80);
  await hasLeader(port, url.hostname).catch((error: unknown) => {
    throw new Error(`no Consul with a leader at ${value} (CONSUL_HTTP_ADDR)`, { cause: error });
  });
  return { address: `${url.hostname}:${port}` };
}

async function kafkaFrom(environment: NodeJS.ProcessEnv): Promise<Started | undefined> {
  const value = environment["KAFKA_BOOTSTRAP_SERVERS"];
  if (!value) return undefined;
  const [host, port] = value.split(",")[0]!.split(":");
  const socket = connect(Number(port), host);
  try {
    await once(socket, "connect");
  } catch (error) {
    throw new Error(`nothing listens at ${value} (KAFKA_BOOTSTRAP_SERVERS)`, { cause: error });
  } finally {
    socket.destroy();
  }
  return { address: value };
}
