import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { KafkaBusOptions, SaslMechanism } from "../../src/bus/kafka.ts";
import { resolveKafkaOptions, securityOf } from "../../src/bus/kafka-options.ts";
import { describeWithOwnKafka, startKafka, type KafkaOptions } from "../services/index.ts";
import { deadServer, makeBus, read, startedBus, text, uniqueTopic } from "./kafka.ts";

const servers = ["a:1"];

describe("options of the Kafka bus", () => {
  test.each<[Partial<KafkaBusOptions>, string]>([
    [{ bootstrapServers: [] }, "at least one host:port"],
    [{ bootstrapServers: ["a"] }, 'got "a"'],
    [{ bootstrapServers: ["[::1]:9092"] }, "a name or an IPv4 address"],
    [{ publishRetries: -1 }, "publishRetries must be a whole number of at least 0, got -1"],
    [{ concurrency: 0 }, "concurrency"],
    [{ partitions: 0.5 }, "partitions"],
    [{ retryBackoffBaseSeconds: NaN }, "retryBackoffBaseSeconds"],
    [{ circuitBreakerThreshold: 0 }, "failureThreshold"],
    [{ sasl: { mechanism: "plain", username: "", password: "x" } }, "a username and a password"],
    [{ sasl: { mechanism: "gssapi" as SaslMechanism, username: "a", password: "x" } }, 'got "gssapi"'],
  ])("%j is refused", async (options, message) => {
    const make = async () => {
      const bus = makeBus({ bootstrapServers: servers, ...options });
      await bus.start();
    };
    await expect(make()).rejects.toThrow(message);
  });

  test("certificates are PEM text or files; nothing is sent that was not given", async () => {
    const folder = await temporaryFolder();
    const { ca } = await certificates(folder);
    const security = (options: Partial<KafkaBusOptions>) =>
      securityOf(resolveKafkaOptions({ bootstrapServers: servers, ...options }));
    expect(await security({})).toEqual({});
    expect(await security({ ssl: true })).toEqual({ ssl: true });
    expect(await security({ ssl: { ca: join(folder, "ca.pem") } })).toEqual({
      ssl: { ca, rejectUnauthorized: true },
    });
    expect(await security({ ssl: { ca, rejectUnauthorized: false } })).toEqual({
      ssl: { ca, rejectUnauthorized: false },
    });
    const sasl = { mechanism: "scram-sha-256", username: "u", password: "p" } as const;
    expect(await security({ sasl })).toEqual({ sasl });
    await expect(security({ ssl: { key: join(folder, "none.pem") } })).rejects.toThrow(/ssl\.key.*none\.pem/);
  });
});

test("a start that fails for a certificate leaves a bus that closes, and can be started again", async () => {
  const folder = await temporaryFolder();
  const ca = join(folder, "late.pem");
  const bus = makeBus({ bootstrapServers: [await deadServer()], ssl: { ca } });
  await expect(bus.start()).rejects.toThrow(/ssl\.ca.*late\.pem/);
  expect(bus.health()).toMatchObject({ healthy: false, detail: "the bus is not started" });
  await writeFile(ca, (await certificates(folder)).ca);
  await bus.start();
  await bus.close();

  const hopeless = makeBus({ bootstrapServers: servers, ssl: { ca: join(folder, "none.pem") } });
  await expect(hopeless.start()).rejects.toThrow(/none\.pem/);
  await hopeless.close();
  expect(hopeless.health().detail).toBe("the bus is closed");
});

describeWithOwnKafka("a Kafka that wants to know who comes", () => {
  test("takes the certificate and the SCRAM login of the options, and no others", async () => {
    const { ca, cert, key } = await certificates(await temporaryFolder());
    const login = { username: "onex", password: "opensesame" };
    await using kafka = await startKafka({
      sasl: { mechanism: "SCRAM-SHA-512", ...login },
      tls: { key, cert, ca },
    } satisfies KafkaOptions);
    const options = {
      bootstrapServers: [kafka.bootstrapServers],
      ssl: { ca, cert, key },
      sasl: { mechanism: "scram-sha-512", ...login },
      publishRetries: 0,
    } as const;
    const bus = await startedBus(options);
    expect(bus.health()).toEqual({ healthy: true, type: "kafka" });
    const topic = uniqueTopic();
    const got: string[] = [];
    await bus.subscribe(topic, topic, async (message) => void got.push(read(message)));
    await bus.publish(topic, text("k", "x"));
    await vi.waitFor(() => expect(got).toEqual(["x"]));
    await bus.close();

    const wrong = await startedBus({ ...options, sasl: { ...options.sasl, password: "wrong" } });
    expect(wrong.health().detail).toMatch(/uthentication/);
    expect(wrong.health().detail).not.toContain("wrong");
    await expect(wrong.publish(topic, text("k", "x"))).rejects.toMatchObject({
      name: "InfraAuthenticationError",
      retryable: false,
    });
    const stranger = await startedBus({ ...options, ssl: true });
    expect(stranger.health().detail).toMatch(/self-signed|certificate/);
    const plain = await startedBus({ bootstrapServers: [kafka.bootstrapServers], publishRetries: 0 });
    expect(plain.health().healthy).toBe(false);
  }, 90_000);

  test("takes a PLAIN login", async () => {
    const login = { username: "onex", password: "opensesame" };
    await using kafka = await startKafka({ sasl: { mechanism: "PLAIN", ...login } });
    const bus = await startedBus({
      bootstrapServers: [kafka.bootstrapServers],
      sasl: { mechanism: "plain", ...login },
    });
    expect(bus.health()).toEqual({ healthy: true, type: "kafka" });
    await bus.publish(uniqueTopic(), text("k", "x"));
  }, 60_000);
});

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "onex-tls-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** A certificate for 127.0.0.1 that is its own authority. */
async function certificates(folder: string): Promise<{ ca: string; cert: string; key: string }> {
  const openssl =
    "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out ca.pem -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1";
  execFileSync("openssl", openssl.split(" "), { cwd: folder, stdio: "ignore" });
  const ca = await readFile(join(folder, "ca.pem"), "utf8");
  return { ca, cert: ca, key: await readFile(join(folder, "key.pem"), "utf8") };
}
