import { expect, test } from "vitest";
import { load, mcpKeys, problemsOf } from "./helpers.ts";

const eventBusOf = async (text: string, env: Record<string, string> = {}) =>
  (await load(text, env)).runtime.eventBus;

test("a Kafka bus gets its defaults; servers are a list or a text with commas", async () => {
  const expected = {
    type: "kafka",
    environment: "local",
    deadLetter: true,
    bootstrapServers: ["a:1", "b.example:9092"],
    acks: "all",
    publishRetries: 3,
    retryBackoffBaseSeconds: 1,
    circuitBreakerThreshold: 5,
    circuitBreakerResetSeconds: 30,
  };
  expect(await eventBusOf('event_bus: {type: kafka, bootstrap_servers: "a:1, b.example:9092"}')).toEqual(
    expected,
  );
  expect(await eventBusOf("event_bus: {type: kafka, bootstrap_servers: [a:1, b.example:9092]}")).toEqual(
    expected,
  );
});

test("every key of a Kafka bus is taken over", async () => {
  const text = `
event_bus:
  type: kafka
  environment: stage
  bootstrap_servers: a:1
  acks: 1
  publish_retries: 0
  retry_backoff_base_seconds: 0.5
  circuit_breaker_threshold: 2
  circuit_breaker_reset_seconds: 10
  dead_letter: false
  partitions: 6
  ssl: {ca: /etc/ca.pem, cert: c.pem, key: "\${file:key.pem}", reject_unauthorized: false}
  sasl: {mechanism: scram-sha-512, username: onex, password: "\${env:KAFKA_PASSWORD}"}
`;
  const { runtime, secrets } = await load(text, { KAFKA_PASSWORD: "hush-hush" }, { "key.pem": "the key\n" });
  expect(runtime.eventBus).toEqual({
    type: "kafka",
    environment: "stage",
    bootstrapServers: ["a:1"],
    acks: 1,
    publishRetries: 0,
    retryBackoffBaseSeconds: 0.5,
    circuitBreakerThreshold: 2,
    circuitBreakerResetSeconds: 10,
    deadLetter: false,
    partitions: 6,
    ssl: { ca: "/etc/ca.pem", cert: "c.pem", key: "the key", rejectUnauthorized: false },
    sasl: { mechanism: "scram-sha-512", username: "onex", password: "hush-hush" },
  });
  expect(secrets).toContain("hush-hush");
  expect(Object.isFrozen(runtime.eventBus)).toBe(true);
});

test("KAFKA_BOOTSTRAP_SERVERS makes the bus Kafka and wins over the file; an empty one is none", async () => {
  const env = { KAFKA_BOOTSTRAP_SERVERS: "broker:9092,other:9093" };
  for (const text of [
    "",
    "event_bus: {type: inmemory}",
    "event_bus: {type: kafka, bootstrap_servers: x:1}",
  ]) {
    expect(await eventBusOf(text, env)).toMatchObject({
      type: "kafka",
      bootstrapServers: ["broker:9092", "other:9093"],
    });
  }
  expect(await eventBusOf("", { KAFKA_BOOTSTRAP_SERVERS: "" })).toMatchObject({ type: "inmemory" });
});

test("values from variables take the types their keys want", async () => {
  const text =
    "event_bus: {type: kafka, bootstrap_servers: '${SERVERS}', acks: '${ACKS}', ssl: '${TLS}', publish_retries: '${N}'}";
  expect(await eventBusOf(text, { SERVERS: "a:1,b:2", ACKS: "0", TLS: "true", N: "7" })).toMatchObject({
    bootstrapServers: ["a:1", "b:2"],
    acks: 0,
    ssl: true,
    publishRetries: 7,
  });
});

test.each([
  [
    "event_bus: {type: kafka}",
    "event_bus.type",
    "set event_bus.bootstrap_servers or the variable KAFKA_BOOTSTRAP_SERVERS",
  ],
  [
    "event_bus: {bootstrap_servers: a:1}",
    "event_bus.bootstrap_servers",
    "set type: kafka, or remove the key",
  ],
  ["event_bus: {type: kafka, bootstrap_servers: a}", "event_bus.bootstrap_servers", "host:port"],
  ["event_bus: {type: kafka, bootstrap_servers: '[::1]:9092'}", "event_bus.bootstrap_servers", "host:port"],
  ["event_bus: {type: kafka, bootstrap_servers: 'a:99999'}", "event_bus.bootstrap_servers", "host:port"],
  ["event_bus: {type: kafka, bootstrap_servers: []}", "event_bus.bootstrap_servers", "host:port"],
  ["event_bus: {type: redis}", "event_bus.type", "redis"],
  ["event_bus: {acks: 2}", "event_bus.acks", "all, 1 or 0"],
  ["event_bus: {sasl: {mechanism: gssapi, username: a, password: b}}", "event_bus.sasl.mechanism", "gssapi"],
  ["event_bus: {sasl: {mechanism: plain, username: a}}", "event_bus.sasl.password", "Missing"],
  ["event_bus: {ssl: maybe}", "event_bus.ssl", "true, false, or ca"],
  ["consul: {port: 8500}", "consul.host", "Missing"],
  ["consul: {host: a, scheme: ftp}", "consul.scheme", "ftp"],
])("%s is refused", async (text, path, message) => {
  const { problems } = await problemsOf(text);
  expect(problems.map((problem) => problem.path)).toEqual([path]);
  expect(problems[0]?.message).toContain(message);
});

test("a wrong server in the variable is reported as the variable's", async () => {
  const { problems } = await problemsOf("", { KAFKA_BOOTSTRAP_SERVERS: "nope" });
  expect(problems.map(({ file, path }) => [file, path])).toEqual([
    ["environment variable KAFKA_BOOTSTRAP_SERVERS", "event_bus.bootstrap_servers"],
  ]);
});

test("kafka_enabled needs a Kafka bus: by the file, or by the variable", async () => {
  const text = `handlers:\n  mcp:${mcpKeys.replace("kafka_enabled: false", "kafka_enabled: true")}\n`;
  const { problems } = await problemsOf(text);
  expect(problems.map(({ path }) => path)).toEqual(["handlers.mcp.kafka_enabled"]);
  expect(problems[0]?.message).toMatch(
    /set kafka_enabled: false.*event_bus\.type: kafka.*KAFKA_BOOTSTRAP_SERVERS/,
  );
  await load(text, { KAFKA_BOOTSTRAP_SERVERS: "a:1" });
  await load(`${text}event_bus: {type: kafka, bootstrap_servers: a:1}\n`);
});

test("the host's Consul is there where it is configured", async () => {
  expect((await load("")).runtime.consul).toBeUndefined();
  const { runtime } = await load("consul: {host: '${CONSUL_HOST}', token: '${env:TOKEN}'}", {
    CONSUL_HOST: "consul.example",
    TOKEN: "secret-token",
  });
  expect(runtime.consul).toEqual({
    host: "consul.example",
    port: 8500,
    scheme: "http",
    token: "secret-token",
  });
  expect(
    (await load("consul: {host: a, port: 1, scheme: https, datacenter: dc1, ca: ca.pem}")).runtime.consul,
  ).toEqual({
    host: "a",
    port: 1,
    scheme: "https",
    datacenter: "dc1",
    ca: "ca.pem",
  });
});
