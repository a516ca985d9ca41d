/** `onex register` and `onex deregister` as processes, on a real Consul and a real Kafka. */
import { expect, onTestFinished, test } from "vitest";
import { uniqueTopic } from "../bus/kafka.ts";
import { nodeContract } from "../contract/nodes.ts";
import { Operator, uniqueName } from "../discovery/consul-agent.ts";
import { Agent, eventsOf } from "../discovery/own-registration.ts";
import { consulAddress, describeWithConsul, describeWithServices, kafkaServers } from "../services/index.ts";
import { folder, run, type Outcome } from "./cli.ts";

const configOf = (name: string, topic = "unused", more = ""): string => `
name: ${name}
health: { port: false }
handlers:
  mcp:
    consul_host: "\${CONSUL_HOST:-127.0.0.1}"
    consul_port: "\${CONSUL_PORT:-1}"
    kafka_enabled: false
    dev_mode: false
    port: 8090
    contracts_dir: "\${ONEX_CONTRACTS_DIR}"
    registration_topics: [${topic}]
    register: { name: ${name}, interval_seconds: 1 }
${more}`;

const contract = (name: string): string =>
  nodeContract({
    name,
    node_version: "1.0.0",
    mcp: { execution: { kind: "onex", endpoints: ["http://${SERVICE:-127.0.0.1:1}"], path: "/run" } },
  });

interface Project {
  readonly cwd: string;
  /** Of the runtime and of the tool's service. */
  readonly ids: readonly [string, string];
  readonly tool: string;
  readonly onex: (...args: string[]) => Promise<Outcome>;
}

/** A folder with one tool that is a service and one that is not. */
async function project(options: { topic?: string; env?: Record<string, string> } = {}): Promise<Project> {
  const [name, tool] = [uniqueName("runtime"), uniqueName("tool")];
  const cwd = await folder({
    "contracts/runtime/runtime_config.yaml": configOf(name, options.topic),
    "contracts/service/contract.yaml": contract(tool),
    "contracts/local/contract.yaml": nodeContract({
      name: `${tool}-local`,
      mcp: { execution: { kind: "local", module: "./tool.mjs" } },
    }),
    "contracts/local/tool.mjs": "export default () => 1;",
  });
  const { host, port } = consulAddress();
  const env = { CONSUL_HOST: host, CONSUL_PORT: String(port), ...options.env };
  const ids = [`${name}-127.0.0.1-8090`, `${tool}-127.0.0.1-1`] as const;
  const onex = (...args: string[]): Promise<Outcome> => run(cwd, args, env);
  onTestFinished(async () => {
    const operator = new Operator(consulAddress());
    for (const id of await new Agent(consulAddress()).present(...ids)) await operator.deregister(id);
    await operator.deleteKey(`onex/contracts/nodes/${tool}`);
  });
  return { cwd, ids, tool, onex };
}

const rows = ({ stdout }: Outcome): string[][] =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => line.split(/ {2,}/));

describeWithConsul("onex register", () => {
  test("registers the runtime and its services, prints them, and onex deregister takes them out", async () => {
    const agent = new Agent(consulAddress());
    const { ids, tool, onex } = await project();
    const done = await onex("register");
    expect(done.code).toBe(0);
    expect(rows(done)).toEqual([
      ["ID", "TOOL", "ADDRESS", "CHECK", "CONSUL", "EVENT"],
      [ids[0], "-", "127.0.0.1:8090", "http", "registered", "-"],
      [ids[1], tool, "127.0.0.1:1", "tcp", "registered", "not sent"],
    ]);
    expect(done.stderr).toContain(`${tool}-local is not registered as a service: it runs in the runtime's`);
    expect(done.stderr).toContain("no event is sent: the event bus is inmemory; set KAFKA_BOOTSTRAP_SERVERS");
    expect(await agent.present(...ids)).toEqual(ids);
    expect(await agent.check(ids[0])).toMatchObject({ Type: "http", Interval: "1s" });
    expect(await agent.service(ids[0])).toMatchObject({
      Tags: expect.arrayContaining(["mcp-server"]) as unknown,
    });
    expect(await agent.service(ids[1])).toMatchObject({
      Service: tool,
      Tags: ["mcp-enabled", "node-type:orchestrator", `mcp-tool:${tool}`],
    });
    expect(await agent.key(`onex/contracts/nodes/${tool}`)).toContain('"path": "/run"');

    const undone = await onex("deregister");
    expect([undone.code, rows(undone).map((row) => row[4])]).toEqual([
      0,
      ["CONSUL", "taken out", "taken out"],
    ]);
    expect(await agent.present(...ids)).toEqual([]);
    expect(await agent.key(`onex/contracts/nodes/${tool}`)).toBeUndefined();

    const again = await onex("deregister");
    expect([again.code, rows(again).map((row) => row[4])]).toEqual([
      0,
      ["CONSUL", "not registered", "not registered"],
    ]);
  });

  test("registers what its options say", async () => {
    const agent = new Agent(consulAddress());
    const { ids, tool, onex } = await project();
    const own = uniqueName("own");
    onTestFinished(async () => {
      await onex("deregister", "--id", own);
    });
    const args = ["--id", own, "--address", "::1", "--port", "81", "--check", "none", "--json"];
    const done = await onex("register", ...args);
    expect([done.code, done.stderr]).toEqual([0, ""]);
    expect(JSON.parse(done.stdout)).toMatchObject({
      services: [
        { id: own, tool: null, address: "::1:81", check: "none", consul: "registered" },
        { id: ids[1], tool, check: "none", consul: "registered", event: "not sent" },
      ],
      failures: [],
    });
    expect(await agent.service(own)).toMatchObject({ Address: "::1", Port: 81 });
    expect(await agent.check(own)).toBeUndefined();

    const one = await onex("deregister", "--id", own, "--json");
    expect(JSON.parse(one.stdout)).toMatchObject({
      services: [{ id: own, consul: "taken out", event: "-" }],
    });
    expect(await agent.present(own, ids[1])).toEqual([ids[1]]);
    expect((await onex("deregister", "--id", own)).stdout).toContain("not registered");

    const services = await onex("deregister", "--no-self", "--tool", tool);
    expect([services.code, rows(services).length]).toEqual([0, 2]);
    expect(await agent.present(...ids)).toEqual([]);
  });

  test("--dry-run contacts nobody", async () => {
    const { ids, onex } = await project({ env: { CONSUL_PORT: "1" } });
    for (const [command, outcome] of [
      ["register", "would be registered"],
      ["deregister", "would be taken out"],
    ] as const) {
      const done = await onex(command, "--dry-run");
      expect(done.code).toBe(0);
      expect(rows(done).slice(1)).toEqual([
        [ids[0], "-", "127.0.0.1:8090", "http", outcome, "-"],
        [ids[1], expect.anything(), "127.0.0.1:1", "tcp", outcome, "-"],
      ]);
    }
    expect((await onex("deregister", "--dry-run", "--id", "x")).stdout).toContain("would be taken out");
  });

  test("what a runtime registered itself changes nothing of what it serves; another runtime serves it from Consul", async () => {
    const { cwd, tool, onex } = await project();
    const before = await onex("tools", "--json");
    expect((await onex("register")).code).toBe(0);
    expect((await onex("tools", "--json")).stdout).toBe(before.stdout);

    const other = await folder({ "contracts/runtime/runtime_config.yaml": configOf("other") });
    const { host, port } = consulAddress();
    const env = { CONSUL_HOST: host, CONSUL_PORT: String(port), HANDLER_MCP_MAX_TOOLS: "100000" };
    const served = JSON.parse((await run(other, ["tools", "--json"], env)).stdout) as {
      tools: { name: string }[];
    };
    const own = JSON.parse(before.stdout) as typeof served;
    const named = ({ tools }: typeof served): object | undefined => tools.find(({ name }) => name === tool);
    expect(named(own)).toBeDefined();
    expect(named(served)).toMatchObject({ name: tool, inputSchema: { properties: { city: {} } } });
    expect(cwd).not.toBe(other);
  });
});

describeWithServices("onex register with Kafka", () => {
  test("sends registered, and onex deregister deregistered", async () => {
    const topic = uniqueTopic();
    const { ids, tool, onex } = await project({ topic, env: { KAFKA_BOOTSTRAP_SERVERS: kafkaServers() } });
    const done = await onex("register");
    expect([done.code, rows(done).map((row) => row[5])]).toEqual([0, ["EVENT", "-", "registered"]]);
    const events = await eventsOf(topic);
    await expect.poll(() => events.length, { timeout: 20_000 }).toBe(1);
    const undone = await onex("deregister", "--id", ids[1]);
    expect([undone.code, rows(undone)[1]?.[5]]).toEqual([0, "deregistered"]);
    await expect.poll(() => events.length, { timeout: 20_000 }).toBe(2);
    expect(events.map(({ key, event }) => [key, event.event_type, event.service_name])).toEqual([
      [ids[1], "registered", tool],
      [ids[1], "deregistered", undefined],
    ]);
  });
});

describeWithConsul("onex register fails clearly", () => {
  test.each<[string, Record<string, string>, string[], string]>([
    ["no Consul answers", { CONSUL_PORT: "1" }, [], "Does an agent run there?"],
    ["dev_mode is true", { HANDLER_MCP_DEV_MODE: "true" }, [], "Set dev_mode: false"],
    ["skip_server is true", { HANDLER_MCP_SKIP_SERVER: "true" }, [], "Consul is not configured"],
    ["any port is taken", { HANDLER_MCP_PORT: "0" }, [], "--port"],
    [
      "it is bound to every interface",
      { HANDLER_MCP_HOST: "0.0.0.0", HANDLER_MCP_ALLOW_UNAUTHENTICATED: "true" },
      [],
      "--address",
    ],
    ["there is no such tool", {}, ["--tool", "nope"], 'No contract serves a tool "nope"'],
  ])("with exit code 1 where %s", async (_what, env, args, message) => {
    const { ids, onex } = await project({ env });
    const { code, stdout, stderr } = await onex("register", ...args);
    expect(stderr).toContain(message);
    expect([code, stdout]).toEqual([1, ""]);
    expect(await new Agent(consulAddress()).present(...ids)).toEqual([]);
  });

  test("with exit code 1 where the tool that is asked for is no service", async () => {
    const { tool, onex } = await project();
    const { code, stderr } = await onex("register", "--no-self", "--tool", `${tool}-local`);
    expect(stderr).toContain("it runs in the runtime's process");
    expect(code).toBe(1);
  });
});

test.each([
  [["--check", "udp"], '--check "udp" is none of http, tcp, ttl, none'],
  [["--port", "0"], '--port "0" is not a port: 1 to 65535'],
  [["--address", ""], "--address is empty"],
  [["extra"], "too many arguments"],
])("a wrong command line ends with 2: onex register %j", async (args, message) => {
  const { code, stderr } = await run(await folder(), ["register", ...args]);
  expect(stderr).toContain(message);
  expect(code).toBe(2);
});
