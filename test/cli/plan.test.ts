/** `onex plan` and `onex tools --explain` as processes, against servers and sources that answer and that do not. */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { nodeContract } from "../contract/nodes.ts";
import { Operator, uniqueName } from "../discovery/consul-agent.ts";
import { createTopic, openBus, publish, uniqueTopic, withAdmin } from "../discovery/event-sources.ts";
import { consulAddress, describeWithServices, kafkaServers } from "../services/index.ts";
import { silentPeer } from "../support/silent.ts";
import { folder, run, serve } from "./cli.ts";

const configOf = (contracts: string, more = ""): string => `
name: plan
health: { port: false }
handlers:
  mcp:
    consul_host: 127.0.0.1
    consul_port: 9
    kafka_enabled: false
    dev_mode: true
    contracts_dir: ${contracts}
    port: 0
${more}`;

const contract = (name: string, more: object = {}): string =>
  nodeContract({
    name,
    mcp: { execution: { kind: "onex", endpoint: "http://127.0.0.1:9", path: "/" }, ...more },
  });

/** The configuration with Consul followed. */
const outside = (config: string): string => config.replace("dev_mode: true", "dev_mode: false");

/** A folder with a configuration that is served, and another one in `next.yaml`. */
const project = (more = ""): Promise<string> =>
  folder({
    "contracts/runtime/runtime_config.yaml": configOf("./contracts/now", more),
    "next.yaml": configOf("./contracts/next"),
    "contracts/now/a/contract.yaml": contract("kept"),
    "contracts/now/b/contract.yaml": contract("changed"),
    "contracts/now/c/contract.yaml": contract("gone"),
    "contracts/next/a/contract.yaml": contract("kept"),
    "contracts/next/b/contract.yaml": contract("changed", { description: "Another one." }),
    "contracts/next/d/contract.yaml": contract("added"),
    "contracts/next/e/contract.yaml": contract("gone", { expose: false }),
  });

const origin = (endpoint: string): string => new URL(endpoint).origin;

describeWithServices("onex tools", () => {
  test("reads Consul and Kafka, and writes nothing: no last good state, no topic", async () => {
    const { host, port } = consulAddress();
    const service = uniqueName("read");
    const topic = uniqueTopic();
    const operator = new Operator({ host, port });
    await operator.register(service);
    onTestFinished(() => operator.deregister(service));
    const more = `    state_dir: ./state\n    registration_topics: [${topic}]\n    max_tools: 1000`;
    const cwd = await folder({
      "contracts/runtime/runtime_config.yaml": outside(configOf("./contracts", more))
        .replace("kafka_enabled: false", "kafka_enabled: true")
        .replace("consul_port: 9", `consul_port: ${port}`),
    });
    const { stdout, stderr } = await run(cwd, ["tools"], { KAFKA_BOOTSTRAP_SERVERS: kafkaServers() });
    expect(stdout).toContain(service);
    expect(stderr).toContain(`source events: `);
    expect(await readdir(cwd)).toEqual(["contracts"]);
    expect(await withAdmin(kafkaServers(), (admin) => admin.listTopics())).not.toContain(topic);
  });

  test("says in one line how many registration events are rejected, and at level debug of each why", async () => {
    const topic = uniqueTopic();
    await createTopic(kafkaServers(), topic, 1);
    const bus = await openBus(kafkaServers());
    for (const id of ["a", "b", "c"]) await publish(bus, topic, { service_id: id, event_type: "odd" });
    const cwd = await folder({
      "contracts/runtime/runtime_config.yaml": outside(
        configOf("./contracts", `    registration_topics: [${topic}]`),
      ).replace("kafka_enabled: false", "kafka_enabled: true"),
    });
    const env = { KAFKA_BOOTSTRAP_SERVERS: kafkaServers() };
    const about = (text: string): string[] =>
      text.split("\n").filter((line) => line.startsWith("{") && line.includes("registration event"));
    const lines = about((await run(cwd, ["tools"], env)).stderr);
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      level: "warn",
      rejected: 3,
      msg: expect.stringContaining("onex tools --explain NAME"),
    });
    const config = join(cwd, "contracts/runtime/runtime_config.yaml");
    await writeFile(config, `${await readFile(config, "utf8")}\nlogging: { level: debug }\n`);
    const each = about((await run(cwd, ["tools"], env)).stderr).map((line) => JSON.parse(line) as object);
    expect(each.filter((line) => "reason" in line)).toMatchObject(
      ["a", "b", "c"].map((id) => ({ level: "debug", keyed_by: id })),
    );
    const explained = await run(cwd, ["tools", "--explain", "b"], env);
    expect(explained.stdout).toContain("event_type");
  });
});

describe("onex tools", () => {
  test("ends where Consul and Kafka take connections and never answer, and names both", async () => {
    const { host, port } = await silentPeer();
    const config = outside(configOf("./contracts"))
      .replace("kafka_enabled: false", "kafka_enabled: true")
      .replace("consul_port: 9", `consul_port: ${port}`);
    const cwd = await folder({ "contracts/runtime/runtime_config.yaml": config });
    const { code, stderr } = await run(cwd, ["tools"], { KAFKA_BOOTSTRAP_SERVERS: `${host}:${port}` });
    expect(code).toBe(0);
    expect(stderr).toMatch(/^source consul: there was no answer within 5 s/m);
    expect(stderr).toMatch(
      /^source events: node\.registration\.v1: no Kafka broker could be reached since \S+: no broker answered within 3 s$/m,
    );
  });
});

describe("onex plan", () => {
  test("says what a configuration would add, remove and change in a running server", async () => {
    const cwd = await project();
    const url = origin((await serve(cwd)).mcp);
    const same = await run(cwd, ["plan", "--url", url]);
    expect(same).toMatchObject({ code: 0, stdout: "0 to add, 0 to remove, 0 to change, 3 as they are\n" });
    const next = await run(cwd, ["plan", "--url", url, "--config", "next.yaml", "--json"]);
    expect(JSON.parse(next.stdout)).toEqual({
      added: [{ name: "added", from: "contract" }],
      removed: [{ name: "gone", reason: "e/contract.yaml is skipped: mcp.expose is not true" }],
      changed: [{ name: "changed", keys: ["description"] }],
      unchanged: 1,
    });
    const text = await run(cwd, ["plan", "--url", url, "--config", "next.yaml"]);
    expect(text.stdout).toMatch(
      /^\+ added +from contract\n- gone +e\/contract\.yaml is skipped.*\n~ changed +other description\n1 to add/,
    );
  });

  test("names a source that it could not ask", async () => {
    const cwd = await project();
    const url = origin((await serve(cwd)).mcp);
    await writeFile(join(cwd, "next.yaml"), outside(configOf("./contracts/now")));
    const { code, stdout, stderr } = await run(cwd, ["plan", "--url", url, "--config", "next.yaml"]);
    expect([code, stdout]).toEqual([0, "0 to add, 0 to remove, 0 to change, 3 as they are\n"]);
    expect(stderr).toMatch(/^source consul is starting, the plan lacks what it would say: Consul at /m);
  });

  test("says of a tool that nobody names which source was never reached; so does onex tools --explain", async () => {
    const cwd = await project();
    const url = origin((await serve(cwd)).mcp);
    await writeFile(join(cwd, "next.yaml"), outside(configOf("./contracts/none")));
    await mkdir(join(cwd, "contracts/none"));
    const { stdout } = await run(cwd, ["plan", "--url", url, "--config", "next.yaml"]);
    const unknown =
      /no source speaks of a tool or service of this name; the source consul was never reached: Consul at .* cannot be reached/;
    expect(stdout).toMatch(unknown);
    const explained = await run(cwd, ["tools", "--explain", "kept", "--config", "next.yaml"]);
    expect(explained).toMatchObject({ code: 1, stdout: expect.stringMatching(unknown) });
  });

  test("without the key of the server ends with 1 and says how to give one", async () => {
    const cwd = await project("    api_keys: [{ name: reader, key: a-reader-key }]");
    const url = origin((await serve(cwd)).mcp);
    const refused = await run(cwd, ["plan", "--url", url, "--api-key", "another-key"]);
    expect(refused).toMatchObject({ code: 1, stdout: "" });
    expect(refused.stderr).toMatch(/answered 401 for \/mcp\/tools: .*--api-key or ONEX_API_KEY/);
    expect((await run(cwd, ["plan", "--url", url], { ONEX_API_KEY: "a-reader-key" })).code).toBe(0);
  });

  test("needs to be told where a server is that takes any port, and waits for none that is silent", async () => {
    const cwd = await project();
    expect(await run(cwd, ["plan"])).toMatchObject({ code: 2, stderr: expect.stringContaining("--url") });
    const { host, port } = await silentPeer();
    const silent = await run(cwd, ["plan", "--url", `http://${host}:${port}`]);
    expect(silent).toMatchObject({ code: 1, stderr: expect.stringContaining("nothing within 5 s") });
  });

  test("asks the server where the environment says that it listens", async () => {
    const cwd = await project();
    const { port } = await silentPeer();
    const { stderr } = await run(cwd, ["plan"], { HANDLER_MCP_PORT: String(port) });
    expect(stderr).toContain(`http://127.0.0.1:${port}`);
  });
});

describe("onex tools --explain", () => {
  test("says why a tool is served, or not, in this configuration and at a running server", async () => {
    const cwd = await project();
    const url = origin((await serve(cwd)).mcp);
    for (const there of [[], ["--url", url]]) {
      const served = await run(cwd, ["tools", "--explain", "kept", ...there]);
      expect(served).toMatchObject({ code: 0 });
      expect(served.stdout).toMatch(/^kept is served: served by contract a\/contract\.yaml\n/);
      expect(served.stdout).toMatch(
        /^\+ contracts a\/contract\.yaml {2}it is served \(version .*learnt \d+ s ago\)$/m,
      );
    }
    const skipped = await run(cwd, ["tools", "--explain", "gone", "--config", "next.yaml"]);
    expect(skipped.code).toBe(1);
    expect(skipped.stdout).toMatch(/^! contracts e\/contract\.yaml {2}e\/contract\.yaml is skipped/m);
    const mistyped = await run(cwd, ["tools", "--explain", "kpet"]);
    expect(mistyped).toMatchObject({ code: 1, stderr: expect.stringContaining("Did you mean kept?") });
  });

  test("--url without it is an error of the command line, not ignored", async () => {
    const cwd = await project();
    expect(await run(cwd, ["tools", "--url", "http://127.0.0.1:9"])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("--explain"),
    });
  });

  test("tells a tool of the last good state as such, and leaves that as it is", async () => {
    const savedAt = "2026-01-31T12:00:00.000Z";
    const claim = { toolName: "orders" };
    const instance = {
      source: "consul",
      serviceId: "a",
      serviceName: "orders",
      claim,
      definition: {},
      live: true,
    };
    const record = {
      key: "node-1/a",
      instance: { ...instance, url: "http://127.0.0.1:9", weight: 1, index: 5 },
    };
    const state = { version: 1, source: "consul", saved_at: savedAt, records: [record] };
    const cwd = await folder({
      "contracts/runtime/runtime_config.yaml": outside(configOf("./contracts", "    state_dir: ./state")),
      "state/consul.json": JSON.stringify(state),
    });
    const { code, stdout, stderr } = await run(cwd, ["tools", "--explain", "orders"]);
    expect(code).toBe(0);
    expect(stdout).toContain(`saved at ${savedAt} and not confirmed since`);
    expect(stderr).toContain("source consul: ");
    expect(await readFile(join(cwd, "state/consul.json"), "utf8")).toBe(JSON.stringify(state));
  });
});
