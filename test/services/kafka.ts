/** A Kafka broker of one's own (one node, KRaft), with its data kept over a restart, to be killed at will. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePorts } from "./ports.ts";
import { ServiceProcess, untilReady } from "./process.ts";
import { kafkaProgram, type Progress } from "./programs.ts";

export interface KafkaOptions {
  /** Over the broker's properties. */
  readonly config?: Readonly<Record<string, string>>;
  /** Clients must log in so. */
  readonly sasl?: {
    readonly mechanism: "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512";
    readonly username: string;
    readonly password: string;
  };
  /** Clients must speak TLS to this certificate; PEM, the key as PKCS #8. `ca`: they must show one that it signed. */
  readonly tls?: { readonly key: string; readonly cert: string; readonly ca?: string };
  readonly progress?: Progress;
}

export interface Kafka extends AsyncDisposable {
  /** `127.0.0.1:port`. */
  readonly bootstrapServers: string;
  /** Without SASL and TLS whatever the options say. */
  readonly plainServers: string;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
  /** Starts it again on the same ports and data; resolves when it serves. Kills it first where it runs. */
  restart(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

const host = "127.0.0.1";
const attempts = 3;
/** Any does; 16 bytes in base64 without padding. */
const clusterId = "b25leC1ydW50aW1lLXRlcw";
/** A broker of a few topics needs no more; the default would be a quarter of the memory, at most 1 GB. */
const javaOptions = ["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/** Starts a broker; resolves when it serves. Rejects with its output when it ends first. */
export async function startKafka(options: KafkaOptions = {}): Promise<Kafka> {
  const jars = await kafkaProgram(options.progress ?? (() => undefined));
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(jars, options);
    } catch (error) {
      if (attempt === attempts || !/Address already in use/i.test(String(error))) throw error;
    }
  }
}

async function startOnce(jars: string, options: KafkaOptions): Promise<Kafka> {
  const folder = await mkdtemp(join(tmpdir(), "onex-kafka-"));
  const ports = (await freePorts(3)) as [number, number, number];
  const java = [...javaOptions, "-cp", join(jars, "*")];
  const file = join(folder, "server.properties");
  const properties = Object.entries(brokerProperties(folder, ports, options));
  await writeFile(file, properties.map(([key, value]) => `${key}=${value}\n`).join(""));
  const launch = async (): Promise<ServiceProcess> => {
    const launched = new ServiceProcess("java", [...java, "kafka.Kafka", file], folder);
    await untilReady("Kafka", launched, () => serves(ports[1])).catch(async (error: unknown) => {
      await launched.kill();
      throw error;
    });
    return launched;
  };
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  let broker: ServiceProcess;
  try {
    await promisify(execFile)("java", [
      ...java,
      "kafka.tools.StorageTool",
      ...formatArguments(file, options),
    ]);
    broker = await launch();
  } catch (error) {
    await remove();
    throw error;
  }
  const stop = async (): Promise<void> => {
    await broker.kill();
    await remove();
  };
  return {
    bootstrapServers: `${host}:${ports[0]}`,
    plainServers: `${host}:${ports[1]}`,
    kill: () => broker.kill(),
    restart: async () => {
      await broker.kill();
      broker = await launch();
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function formatArguments(file: string, { sasl }: KafkaOptions): string[] {
  const format = ["format", "--config", file, "--cluster-id", clusterId, "--standalone"];
  if (sasl === undefined || sasl.mechanism === "PLAIN") return format;
  return [...format, "--add-scram", `${sasl.mechanism}=[name=${sasl.username},password=${sasl.password}]`];
}

function brokerProperties(
  folder: string,
  [clients, plain, controller]: readonly [number, number, number],
  { sasl, tls, config }: KafkaOptions,
): Record<string, string> {
  const protocol = `${sasl ? "SASL_" : ""}${tls ? "SSL" : "PLAINTEXT"}`;
  return {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.bootstrap.servers": `${host}:${controller}`,
    listeners: `CLIENTS://${host}:${clients},PLAIN://${host}:${plain},CONTROLLER://${host}:${controller}`,
    "advertised.listeners": `CLIENTS://${host}:${clients},PLAIN://${host}:${plain}`,
    "listener.security.protocol.map": `CLIENTS:${protocol},PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT`,
    "inter.broker.listener.name": "PLAIN",
    "controller.listener.names": "CONTROLLER",
    "log.dirs": join(folder, "data"),
    // A topic is there because someone created it.
    "auto.create.topics.enable": "false",
    "num.partitions": "3",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "5",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    // After SIGKILL a node may only register again when its session has run out: 9 s by default.
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "250",
    "controller.quorum.election.timeout.ms": "300",
    // Compacted topics are compacted while a test can wait for it.
    "log.cleaner.backoff.ms": "200",
    ...(sasl && saslProperties(sasl)),
    ...(tls && tlsProperties(tls)),
    ...config,
  };
}

function saslProperties(sasl: NonNullable<KafkaOptions["sasl"]>): Record<string, string> {
  const { mechanism, username, password } = sasl;
  const plain = "org.apache.kafka.common.security.plain.PlainLoginModule";
  const scram = "org.apache.kafka.common.security.scram.ScramLoginModule";
  const login =
    mechanism === "PLAIN"
      ? `${plain} required user_${username}="${password}";`
      : `${scram} required username="${username}" password="${password}";`;
  return {
    "sasl.enabled.mechanisms": mechanism,
    [`listener.name.clients.${mechanism.toLowerCase()}.sasl.jaas.config`]: login,
  };
}

/** One line each: a property's value goes on over a backslash at the end of a line. */
function tlsProperties(tls: NonNullable<KafkaOptions["tls"]>): Record<string, string> {
  const pem = (text: string): string => text.trim().replaceAll("\n", "\\n");
  return {
    "listener.name.clients.ssl.keystore.type": "PEM",
    "listener.name.clients.ssl.keystore.key": pem(tls.key),
    "listener.name.clients.ssl.keystore.certificate.chain": pem(tls.cert),
    ...(tls.ca !== undefined && {
      "listener.name.clients.ssl.truststore.type": "PEM",
      "listener.name.clients.ssl.truststore.certificates": pem(tls.ca),
      "listener.name.clients.ssl.client.auth": "required",
    }),
  };
}

/**
 * A Metadata request (key 3, version 1) about no topics, as bytes: size, key, version, correlation, no client id, no
 * topics. A client library would be more to load, for every run, than this.
 */
const metadataRequest = Buffer.from("0000000e" + "0003" + "0001" + "00000000" + "ffff" + "00000000", "hex");
/** Where the answer has the number of brokers: after its size and the correlation. */
const brokerCountAt = 8;

/** Rejects until the broker is part of its own cluster: before that it answers, but takes nothing. */
async function serves(port: number): Promise<void> {
  const socket = connect(port, host);
  try {
    const giveUp = AbortSignal.timeout(2000);
    await once(socket, "connect", { signal: giveUp });
    socket.write(metadataRequest);
    let answer = Buffer.alloc(0);
    while (answer.length < brokerCountAt + 4) {
      const [chunk] = (await once(socket, "data", { signal: giveUp })) as [Buffer];
      answer = Buffer.concat([answer, chunk]);
    }
    if (answer.readInt32BE(brokerCountAt) === 0) throw new Error("the broker is not registered yet");
  } finally {
    socket.destroy();
  }
}
