/** Services of a test's own: killed, started again, configured, and gone with their owner. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { access, mkdtemp, readdir, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { Kafka as Client, logLevel, type KafkaConfig } from "kafkajs";
import { expect, it, onTestFinished, vi } from "vitest";
import { root } from "../support/runtime.ts";
import {
  describeWithOwnConsul,
  describeWithOwnKafka,
  describeWithOwnServices,
  startConsul,
  startKafka,
} from "./index.ts";
import { consulVersion, kafkaVersion } from "./programs.ts";

const run = promisify(execFile);
const keyValue = (port: number, key: string): string => `http://127.0.0.1:${port}/v1/kv/${key}?raw`;

async function listens(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  return once(socket, "connect").then(
    () => (socket.destroy(), true),
    () => false,
  );
}

/** A folder for temporary files that nothing else writes to. */
async function ownTemporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "onex-services-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

describeWithOwnConsul("a Consul of a test's own", () => {
  it("comes back after SIGKILL at the same address, with its data", async () => {
    await using consul = await startConsul();
    const key = keyValue(consul.port, "kept");
    await fetch(key, { method: "PUT", body: "still here" });
    await consul.kill();
    expect(await listens(consul.port)).toBe(false);
    await consul.restart();
    expect(await (await fetch(key)).text()).toBe("still here");
  });

  it("takes configuration: access control", async () => {
    const token = "5ce9a4a4-8c0a-4f0f-9d9f-8d7b6ad7b7a1";
    await using consul = await startConsul({
      config: { acl: { enabled: true, default_policy: "deny", tokens: { initial_management: token } } },
    });
    const services = `http://127.0.0.1:${consul.port}/v1/agent/services`;
    const statusWith = async (headers: Record<string, string>): Promise<number> =>
      (await fetch(services, { headers })).status;
    // A token may not be known yet: the first is written once there is a leader.
    await expect.poll(() => statusWith({ "x-consul-token": token })).toBe(200);
    expect((await fetch(keyValue(consul.port, "x"), { method: "PUT", body: "" })).status).toBe(403);
  });

  it("serves TLS with a certificate it is given", async () => {
    const { key, cert } = await selfSigned();
    await using consul = await startConsul({ tls: { key, cert } });
    const { Agent, request } = await import("undici");
    const agent = new Agent({ connect: { ca: cert } });
    const answer = await request(`https://127.0.0.1:${consul.httpsPort}/v1/status/leader`, {
      dispatcher: agent,
    });
    expect(answer.statusCode).toBe(200);
    await answer.body.dump();
    await agent.close();
  });

  it("says why it does not start, and leaves nothing", async () => {
    const folder = await ownTemporaryFolder();
    vi.stubEnv("TMPDIR", folder);
    onTestFinished(() => void vi.unstubAllEnvs());
    await expect(startConsul({ config: { no_such_key: 1 } })).rejects.toThrow(
      /invalid config key no_such_key/,
    );
    expect(await readdir(folder)).toEqual([]);
  });

  it("is gone, and its data with it, when the process that started it is killed", async () => {
    const folder = await ownTemporaryFolder();
    const owner = spawn(process.execPath, [join(import.meta.dirname, "fixture/start.ts"), "own"], {
      env: { ...process.env, TMPDIR: folder },
    });
    const [line] = (await once(createInterface({ input: owner.stdout }), "line")) as [string];
    const port = Number(line.split(":")[1]);
    expect(await listens(port)).toBe(true);
    expect(await readdir(folder)).toHaveLength(1);
    owner.kill("SIGKILL");
    await expect.poll(() => listens(port)).toBe(false);
    await expect.poll(() => readdir(folder)).toEqual([]);
  });
});

/** A certificate for 127.0.0.1 that is its own authority. */
async function selfSigned(): Promise<{ readonly key: string; readonly cert: string }> {
  const request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout - -out -";
  const names = ["-addext", "subjectAltName=IP:127.0.0.1"];
  const { stdout } = await run("openssl", [...request.split(" "), ...names]);
  const block = (title: string): string =>
    new RegExp(`-----BEGIN ${title}-----[^]*-----END ${title}-----`).exec(stdout)![0];
  return { key: block("PRIVATE KEY"), cert: block("CERTIFICATE") };
}

describeWithOwnKafka("a Kafka of a test's own", () => {
  it("comes back after SIGKILL at the same address, with its data", async () => {
    await using kafka = await startKafka();
    const client = clientOf(kafka.bootstrapServers);
    await send(client, "kept");
    await kafka.kill();
    expect(await listens(Number(kafka.bootstrapServers.split(":")[1]))).toBe(false);
    await kafka.restart();
    await send(client, "kept");
    expect(await written(client, "kept")).toBe(2);
  }, 60_000);

  it.each([
    ["PLAIN", "plain"],
    ["SCRAM-SHA-512", "scram-sha-512"],
  ] as const)(
    "takes clients by TLS and %s, and turns wrong passwords away",
    async (mechanism, name) => {
      const { key, cert } = await selfSigned();
      const login = { username: "onex", password: "a secret" };
      await using kafka = await startKafka({ tls: { key, cert }, sasl: { mechanism, ...login } });
      const withPassword = (password: string): Client =>
        clientOf(kafka.bootstrapServers, {
          ssl: { ca: [cert] },
          sasl: { mechanism: name, username: login.username, password } as NonNullable<KafkaConfig["sasl"]>,
        });
      await send(withPassword(login.password), "secured");
      expect(await written(clientOf(kafka.plainServers), "secured")).toBe(1);
      await expect(send(withPassword("wrong"), "secured")).rejects.toThrow(/[Aa]uthentication/);
    },
    60_000,
  );
});

const clientOf = (servers: string, options: Partial<KafkaConfig> = {}): Client =>
  new Client({ brokers: [servers], logLevel: logLevel.NOTHING, ...options });

async function send(client: Client, topic: string): Promise<void> {
  const [admin, producer] = [client.admin(), client.producer()];
  try {
    await admin.connect();
    await admin.createTopics({ topics: [{ topic }] });
    await producer.connect();
    await producer.send({ topic, messages: [{ value: "message" }] });
  } finally {
    await Promise.all([admin.disconnect(), producer.disconnect()]);
  }
}

async function written(client: Client, topic: string): Promise<number> {
  const admin = client.admin();
  await admin.connect();
  const offsets = await admin.fetchTopicOffsets(topic);
  await admin.disconnect();
  return offsets.reduce((sum, { high }) => sum + Number(high), 0);
}

describeWithOwnServices("npm run services", () => {
  it("prints the variables by which both are found, and stops them on Ctrl-C", async () => {
    const developer = spawn(process.execPath, [join(root, "scripts/services.ts")], {
      env: withoutServices(),
    });
    onTestFinished(() => void developer.kill("SIGKILL"));
    const variables = new Map<string, string>();
    const lines = createInterface({ input: developer.stdout });
    lines.on("line", (line) => {
      const [, name, value] = /^export (\w+)=(\S+)$/.exec(line)!;
      variables.set(name!, value!);
    });
    await expect.poll(() => variables.size, { timeout: 60_000 }).toBe(4);
    expect(variables.get("CONSUL_HTTP_ADDR")).toBe(
      `${variables.get("CONSUL_HOST")}:${variables.get("CONSUL_PORT")}`,
    );
    const ports = [variables.get("CONSUL_PORT"), variables.get("KAFKA_BOOTSTRAP_SERVERS")!.split(":")[1]].map(
      Number,
    );
    expect(await Promise.all(ports.map(listens))).toEqual([true, true]);
    developer.kill("SIGINT");
    expect(await once(developer, "exit")).toEqual([0, null]);
    expect(await Promise.all(ports.map(listens))).toEqual([false, false]);
  }, 90_000);

  it("with --build starts nothing and says where the programs are", async () => {
    const script = join(root, "scripts/services.ts");
    const { stdout } = await run(process.execPath, [script, "--build"], { env: withoutServices() });
    const programs = stdout.trim().split("\n");
    expect(programs.map((path) => basename(path))).toEqual([
      `consul-${consulVersion}`,
      `kafka-${kafkaVersion}`,
    ]);
    await Promise.all(programs.map((path) => access(path)));
  });
});

/** This environment, where it names no services: they are started then. */
const withoutServices = (): NodeJS.ProcessEnv => ({
  ...process.env,
  CONSUL_HTTP_ADDR: "",
  KAFKA_BOOTSTRAP_SERVERS: "",
});
