import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { authority } from "../support/certificates.ts";
import { folder, root, run } from "./cli.ts";

const goodConfig = `
handlers:
  mcp: {consul_host: x, consul_port: 1, kafka_enabled: false, dev_mode: true, contracts_dir: contracts}
`;
const contract = (name: string, rest: string): string =>
  `name: ${name}\nnode_type: ORCHESTRATOR\ndescription: A tool.\nmcp:\n  expose: true\n${rest}`;

test("the shipped configuration and contracts have no problem", async () => {
  const { code, stdout, stderr } = await run(root, ["check"]);
  expect([code, stderr]).toEqual([0, ""]);
  expect(stdout).toContain(`configuration: ${join(root, "contracts/runtime/runtime_config.yaml")}`);
  expect(stdout).toMatch(/loaded\s+handlers\/mcp\/handler_contract\.yaml/);
  expect(stdout).not.toMatch(/^ {2}failed/m);
});

test("every problem of configuration, handlers and tools is reported at once, with exit code 1", async () => {
  const cwd = await folder({
    "contracts/runtime/runtime_config.yaml": "max_concurency: 3\nhandlers:\n  mcp: {prot: 1}\n",
    "contracts/handlers/x/handler_contract.yaml": "name: x\n",
    "contracts/nodes/broken/contract.yaml": "name: [",
    "contracts/nodes/silent/contract.yaml": "name: silent\n",
    "contracts/nodes/no-module/contract.yaml": contract(
      "a",
      "  execution: {kind: local, module: ./missing.mjs}\n",
    ),
    "contracts/nodes/no-export/contract.yaml": contract(
      "b",
      "  execution: {kind: local, module: ./b.mjs, export: nope}\n",
    ),
    "contracts/nodes/no-export/b.mjs": "export default () => 1;",
    "contracts/nodes/throws/contract.yaml": contract("c", "  execution: {kind: local, module: ./c.mjs}\n"),
    "contracts/nodes/throws/c.mjs": 'throw new Error("top level trouble");',
  });
  const { code, stdout, stderr } = await run(cwd, ["check"]);
  expect(code).toBe(1);
  expect(stdout).toMatch(/^configuration: not valid$/m);
  expect(stdout).toMatch(/^ {2}skipped {3}nodes\/silent\/contract\.yaml.*: it has no mcp section$/m);
  expect(stderr).toContain("runtime_config.yaml:1:1 max_concurency: Unknown config key");
  expect(stderr).toContain("Missing required config: 'dev_mode'");
  expect(stderr).toContain("handlers/x/handler_contract.yaml: HANDLER_LOADER_004");
  expect(stderr).toContain("nodes/broken/contract.yaml: HANDLER_LOADER_002");
  expect(stderr).toContain("nodes/no-module/contract.yaml");
  expect(stderr).toMatch(/nodes\/no-export\/contract\.yaml: tool b: .* has no function nope/);
  expect(stderr).toMatch(/nodes\/throws\/contract\.yaml: tool c: .*top level trouble/);
});

test("certificates and keys that cannot be used are problems, wherever they are named", async () => {
  const own = authority();
  const [one, other] = [own.issue(), own.issue()];
  const configOf = (ca: string, key: string): string => `
event_bus: {type: kafka, bootstrap_servers: "127.0.0.1:1", ssl: {ca: ${ca}, cert: ${one.certFile}, key: ${key}}}
consul: {host: 127.0.0.1, scheme: https, ca: ${ca}}
handlers:
  mcp: {consul_host: x, consul_port: 1, consul_scheme: https, consul_ca: ${ca}, kafka_enabled: false, dev_mode: false,
    service_ca: ${ca}, service_cert: ${one.certFile}, service_key: ${key}}
`;
  const cwd = await folder({ "bad.yaml": configOf("no.pem", other.keyFile) });
  const bad = await run(cwd, ["check", "--config", "bad.yaml"]);
  expect(bad.code).toBe(1);
  const missing = `${join(cwd, "no.pem")} cannot be read (ENOENT): give the path of a PEM file that this user can read.`;
  const wrongKey = `${other.keyFile} is not the key of the certificate: give both of one pair.`;
  for (const line of [
    `onex: Config key 'event_bus.ssl.ca': ${missing}`,
    `onex: Config key 'event_bus.ssl.key': ${wrongKey}`,
    `onex: Config key 'consul.ca': ${missing}`,
    `onex: handlers.mcp: Config key 'consul_ca': ${missing}`,
    `onex: handlers.mcp: Config key 'service_ca': ${missing}`,
    `onex: handlers.mcp: Config key 'service_key': ${wrongKey}`,
  ])
    expect(bad.stderr.split("\n")).toContain(line);
  await writeFile(join(cwd, "good.yaml"), configOf(own.caFile, one.keyFile));
  const good = await run(cwd, ["check", "--config", "good.yaml"]);
  expect(good.stderr).not.toContain("Config key");
});

test("a handler that is configured but declared nowhere is a problem", async () => {
  const cwd = await folder({ "contracts/runtime/runtime_config.yaml": `${goodConfig}  ghost: {}\n` });
  const { code, stderr } = await run(cwd, ["check"]);
  expect([code, stderr]).toEqual([
    1,
    "onex: handlers.ghost is configured, but no handler contract declares proto.ghost\n",
  ]);
});

test("what the mcp handler would refuse at its start is a problem, wherever it is written", async () => {
  const unconfigured = await folder({ "contracts/runtime/runtime_config.yaml": "name: x\n" });
  const { code, stderr } = await run(unconfigured, ["check"]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^onex: handlers\.mcp: Missing required config: 'dev_mode'/m);
  const exposed = await folder({
    "contracts/runtime/runtime_config.yaml": goodConfig,
    "contracts/handlers/mcp/handler_contract.yaml": `handler_id: effect.mcp.handler
name: handler-mcp
contract_version: {major: 1, minor: 0, patch: 0}
descriptor: {node_archetype: effect}
input_model: In
output_model: Out
handler_class: onex-runtime#HandlerMCP
metadata: {transport: {default_host: 0.0.0.0}}
`,
  });
  const outcome = await run(exposed, ["check"]);
  expect([outcome.code, outcome.stderr]).toEqual([
    1,
    expect.stringMatching(/^onex: handlers\.mcp: Config key 'host' is "0\.0\.0\.0".*set api_keys/),
  ]);
});

test("two contracts of one name are shown with the one that is served", async () => {
  const execution = "  tool_name: same\n  execution: {kind: local, module: ../t.mjs}\n";
  const cwd = await folder({
    "contracts/runtime/runtime_config.yaml": goodConfig,
    "contracts/nodes/t.mjs": "export default () => 1;",
    "contracts/nodes/a/contract.yaml": contract("a", execution),
    "contracts/nodes/b/contract.yaml": contract("b", execution),
  });
  const { stdout } = await run(cwd, ["check"]);
  expect(stdout).toMatch(/nodes\/b\/contract\.yaml.*\n.*nodes\/a\/contract\.yaml/);
});

test("a module that would end the process is a problem like any other", async () => {
  const cwd = await folder({
    "contracts/runtime/runtime_config.yaml": goodConfig,
    "contracts/nodes/a/contract.yaml": contract("a", "  execution: {kind: local, module: ./a.mjs}\n"),
    "contracts/nodes/a/a.mjs": "process.exit(0);",
  });
  const { code, stdout, stderr } = await run(cwd, ["check"]);
  expect(code).toBe(1);
  expect(stdout).toMatch(/^ {2}loaded {4}nodes\/a\/contract\.yaml/m);
  expect(stderr).toMatch(/tool a: .*process\.exit\(0\) was called/);
});
