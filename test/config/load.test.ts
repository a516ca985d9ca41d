import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { ProtocolConfigurationError } from "../../src/core/errors.ts";
import { configFile, folder, load, mcpKeys, problemsOf } from "./helpers.ts";

test("an empty file is a configuration of defaults", async () => {
  const { runtime, handlers } = await load("");
  expect(handlers).toEqual({});
  expect(runtime).toEqual({
    name: "onex-runtime",
    inputTopic: "requests",
    outputTopic: "responses",
    consumerGroup: "onex-runtime",
    eventBus: { type: "inmemory", environment: "local", deadLetter: true, maxHistory: 1000 },
    handlerSource: { mode: "hybrid", allowBootstrapOverride: false },
    allowedNamespaces: [],
    logging: { level: "info", format: "auto" },
    shutdown: { drainTimeoutSeconds: 30, handlerTimeoutSeconds: 10, gracePeriodSeconds: 60 },
    health: { host: "127.0.0.1", port: 8085, apiKeys: [] },
    healthCheckTimeoutSeconds: 5,
    maxConcurrency: 32,
  });
  expect(Object.isFrozen(runtime)).toBe(true);
});

test("every problem of the whole configuration is reported at once, with file, line, key, value and nearest key", async () => {
  const error = await problemsOf(
    [
      "nam: x",
      'input_topic: "a b"',
      "max_concurrency: 0",
      "logging: {level: loud, formt: json}",
      "health:",
      "  port: 70000",
      "handlers:",
      "  http: 5",
      "  mcp:",
      "    prot: 8090",
      "    consul_port: true",
      "    path: /health",
    ].join("\n"),
    { HANDLER_MCP_PAGE_SIZE: "5000" },
  );
  expect(error).toBeInstanceOf(ProtocolConfigurationError);
  expect(error.problems.map(({ path, line, value, nearest }) => [path, line, value, nearest])).toEqual([
    ["nam", 1, '"x"', "name"],
    ["input_topic", 2, '"a b"', undefined],
    ["max_concurrency", 3, "0", undefined],
    ["logging.level", 4, '"loud"', undefined],
    ["logging.formt", 4, '"json"', "format"],
    ["health.port", 6, "70000", undefined],
    ["handlers.http", 8, "5", undefined],
    ["handlers.mcp.consul_host", 9, undefined, undefined],
    ["handlers.mcp.kafka_enabled", 9, undefined, undefined],
    ["handlers.mcp.dev_mode", 9, undefined, undefined],
    ["handlers.mcp.prot", 10, "8090", "port"],
    ["handlers.mcp.consul_port", 11, "true", undefined],
    ["handlers.mcp.path", 12, '"/health"', undefined],
    ["handlers.mcp.page_size", undefined, "5000", undefined],
  ]);
  expect(error.problems.at(-1)?.file).toBe("environment variable HANDLER_MCP_PAGE_SIZE");
  expect(error.message).toMatch(/^14 problems in the configuration:\n/);
  for (const line of [
    `${configFile}:1:1 nam: Unknown config key 'nam'. Did you mean 'name'?`,
    `${configFile}:9:3 handlers.mcp.dev_mode: Missing required config: 'dev_mode'. Must be set in .env or the runtime config.`,
    `${configFile}:11:5 handlers.mcp.consul_port: Invalid config type for 'consul_port': expected integer, got boolean`,
    `${configFile}:6:3 health.port: Invalid config value for 'health.port': expected at most 65535, got 70000`,
  ])
    expect(error.message).toContain(line);
});

test("variables are expanded anywhere, with defaults, also in flow maps, lists, keys and parts of a text", async () => {
  const { runtime, handlers } = await load(
    [
      "name: ${A}-${B:-b}",
      "health: {host: ${HOST:-127.0.0.1}, port: ${PORT:-8085}}",
      "allowed_namespaces: [${A}, ${C:-${B:-nested}}]",
      "handlers:",
      "  ${A}: {url: 'http://${A}:${PORT}/', size: ${SIZE}, ratio: 1${SIZE}}",
    ].join("\n"),
    { A: "alpha", PORT: "9000", SIZE: "7" },
  );
  expect(runtime.name).toBe("alpha-b");
  expect(runtime.health).toMatchObject({ host: "127.0.0.1", port: 9000 });
  expect(runtime.allowedNamespaces).toEqual(["alpha", "nested"]);
  expect(handlers.alpha?.config).toEqual({ url: "http://alpha:9000/", size: 7, ratio: 17 });
});

test("a value from a variable takes the type its key wants, quoted or not", async () => {
  const { runtime, handlers } = await load(
    [
      "name: ${NUMBER}",
      'max_concurrency: "${NUMBER}"',
      "health: {port: '${OFF}'}",
      "handlers:",
      `  mcp:${mcpKeys}`,
      "    required_tags: ${TAGS}",
      "    excluded_tags: ${NONE:-}",
      "    stateless: '${ON}'",
    ].join("\n"),
    { NUMBER: "64", OFF: "false", ON: "true", TAGS: "a, b" },
  );
  expect(runtime).toMatchObject({ name: "64", maxConcurrency: 64 });
  expect(runtime.health.port).toBe(false);
  expect(handlers.mcp?.config).toMatchObject({ required_tags: ["a", "b"], stateless: true });
});

test("where no type is known a variable in quotes, a secret and a secret's key give text", async () => {
  const { handlers } = await load(
    "handlers:\n  x: {plain: ${N}, quoted: '${N}', secret: ${N}, other: ${env:N}}",
    { N: "7" },
  );
  expect(handlers.x?.config).toEqual({ plain: 7, quoted: "7", secret: "7", other: "7" });
});

test("a number in quotes that is no variable is of the wrong type", async () => {
  const { problems } = await problemsOf('max_concurrency: "64"');
  expect(problems[0]?.message).toBe(
    "Invalid config type for 'max_concurrency': expected integer, got string",
  );
});

test("a variable without value and default is a problem that names it, and one problem only", async () => {
  const { problems } = await problemsOf("max_concurrency: ${NOT_SET}");
  expect(problems).toHaveLength(1);
  expect(problems[0]?.message).toContain("NOT_SET, which is not set and has no default");
});

test(".env is read, the environment wins over it, and an override's variable over the file", async () => {
  const { runtime, env } = await load(
    "name: ${NAME}\ndescription: ${OTHER}\nhealth: {port: 1}",
    { NAME: "from environment", ONEX_HTTP_PORT: "false" },
    { ".env": "NAME=from file\nOTHER=only in file\n" },
  );
  expect(runtime).toMatchObject({ name: "from environment", description: "only in file" });
  expect(runtime.health.port).toBe(false);
  expect(env.OTHER).toBe("only in file");
});

test("HANDLER_MCP_<KEY> sets that key, in the type it wants", async () => {
  const secret = "12345678901234567890";
  const { handlers } = await load(`handlers:\n  mcp:${mcpKeys}\n    port: 1`, {
    HANDLER_MCP_PORT: "0",
    HANDLER_MCP_SESSION_SECRET: secret,
    HANDLER_MCP_REQUIRED_TAGS: "[a, b]",
    HANDLER_MCP_EXCLUDED_TAGS: "c,d",
    HANDLER_OTHER_PORT: "5",
  });
  expect(handlers.mcp?.config).toMatchObject({
    port: 0,
    session_secret: secret,
    required_tags: ["a", "b"],
    excluded_tags: ["c", "d"],
  });
  expect(handlers.mcp?.config).not.toHaveProperty("other_port");
});

test("HANDLER_<TYPE>_<KEY> sets any key of any handler that is configured", async () => {
  const { handlers } = await load("handlers:\n  my-handler: {a: 1}", {
    HANDLER_MY_HANDLER_A: "2",
    HANDLER_MY_HANDLER_LIST: "[x, y]",
    HANDLER_MY_HANDLER_TEXT: '"7"',
    HANDLER_MY_HANDLER_TOKEN: "007",
    HANDLER_MY_HANDLER_EMPTY: "",
  });
  expect(handlers["my-handler"]?.config).toEqual({ a: 2, list: ["x", "y"], text: "7", token: "007" });
});

test("of two handler types the longer one that fits owns a variable", async () => {
  const { handlers } = await load(`handlers:\n  mcp:${mcpKeys}\n  mcp_proxy: {}`, {
    HANDLER_MCP_PROXY_PORT: "5",
  });
  expect(handlers.mcp_proxy?.config).toEqual({ port: 5 });
  expect(handlers.mcp?.config).not.toHaveProperty("proxy_port");
});

test("required is the host's, true unless the section says otherwise, and not handed to the handler", async () => {
  const { handlers } = await load("handlers:\n  a:\n  b: {required: false, x: null}");
  expect(handlers).toEqual({
    a: { required: true, config: {} },
    b: { required: false, config: { x: null } },
  });
});

test("--config wins over ONEX_CONFIG, which wins over the contracts directory", async () => {
  const cwd = await folder({
    "one.yaml": "name: one",
    "two.yaml": "name: two",
    [configFile]: "name: three",
  });
  const name = async (file: string | undefined, env: Record<string, string>): Promise<string> =>
    (await loadConfig({ cwd, env, ...(file === undefined ? {} : { file }) })).runtime.name;
  expect(await name("one.yaml", { ONEX_CONFIG: "two.yaml" })).toBe("one");
  expect(await name(undefined, { ONEX_CONFIG: "two.yaml" })).toBe("two");
  expect(await name(undefined, {})).toBe("three");
});

test("the contracts directory is the key, else ONEX_CONTRACTS_DIR, else the one that holds the file", async () => {
  const cwd = await folder({
    "other/runtime/runtime_config.yaml": "name: ${ONEX_CONTRACTS_DIR}",
    "keyed.yaml": "contracts_dir: ./elsewhere",
  });
  const inPlace = await loadConfig({ cwd, env: {}, file: "other/runtime/runtime_config.yaml" });
  expect(inPlace.contractsDir).toBe(join(cwd, "other"));
  expect(inPlace.runtime.name).toBe(join(cwd, "other"));
  const byVariable = await loadConfig({ cwd, env: { ONEX_CONTRACTS_DIR: "other" } });
  expect(byVariable.contractsDir).toBe(join(cwd, "other"));
  const keyed = await loadConfig({ cwd, env: { ONEX_CONTRACTS_DIR: "other" }, file: "keyed.yaml" });
  expect(keyed.contractsDir).toBe(join(cwd, "elsewhere"));
});

test("without contracts the error names the folder looked in and onex init; without a file, the file", async () => {
  const empty = await folder();
  await expect(loadConfig({ cwd: empty, env: {} })).rejects.toThrow(
    `There is no contracts directory ${join(empty, "contracts")}. Run \`onex init\``,
  );
  const bare = await folder({ "contracts/nodes/x.txt": "" });
  await expect(loadConfig({ cwd: bare, env: {} })).rejects.toThrow(
    `The contracts directory ${join(bare, "contracts")} has no ${join("runtime", "runtime_config.yaml")}`,
  );
  await expect(loadConfig({ cwd: bare, env: {}, file: "no.yaml" })).rejects.toThrow(
    `There is no configuration file ${join(bare, "no.yaml")} (given by --config)`,
  );
});

test("a folder in the configuration's place, and a file that cannot be reached, are told apart from none", async () => {
  const cwd = await folder();
  await symlink("loop.yaml", join(cwd, "loop.yaml"));
  await expect(loadConfig({ cwd, env: {}, file: "." })).rejects.toThrow(
    `${cwd} is a folder, not a configuration file (given by --config)`,
  );
  await expect(loadConfig({ cwd, env: { ONEX_CONFIG: "loop.yaml" } })).rejects.toThrow(
    `The configuration file ${join(cwd, "loop.yaml")} cannot be read: ELOOP`,
  );
});

test("secrets come from the environment and from files, and never show in a problem", async () => {
  const { handlers, secrets } = await load(
    "handlers:\n  x: {a: ${env:TOKEN}, b: ${file:secret.txt}, c: 'pre-${env:TOKEN}'}",
    { TOKEN: "007${NO}" },
    { "secret.txt": "from file\n" },
  );
  expect(handlers.x?.config).toEqual({ a: "007${NO}", b: "from file", c: "pre-007${NO}" });
  expect([...secrets]).toEqual(["007${NO}", "from file"]);

  const error = await problemsOf(
    [
      "input_topic: ${env:TOKEN}",
      "handlers:",
      `  mcp:${mcpKeys}`,
      "    session_secret: hunter2",
      "    api_keys: [swordfish, {name: a, key: opensesame, sha256: shibboleth}]",
      "    pasword: mellon",
    ].join("\n"),
    { TOKEN: "topic secret", HANDLER_MCP_CONSUL_TOKEN: "melon" },
  );
  expect(error.problems.length).toBeGreaterThanOrEqual(6);
  const shown = JSON.stringify(error.problems) + error.message;
  for (const secret of ["topic secret", "hunter2", "swordfish", "opensesame", "shibboleth", "melon"])
    expect(shown).not.toContain(secret);
});

test("a secret that is missing is named with the place where it was looked for", async () => {
  const { problems } = await problemsOf("handlers:\n  x: {a: ${env:NO_TOKEN}, b: ${file:/no/such/file}}");
  expect(problems.map((problem) => problem.message)).toEqual([
    "Secret ${env:NO_TOKEN} could not be resolved: NO_TOKEN is not set.",
    expect.stringMatching(/^Secret \$\{file:\/no\/such\/file\} could not be resolved: ENOENT/),
  ]);
});

test("broken YAML is reported with its line and without the text around it", async () => {
  const error = await problemsOf("name: x\nhandlers:\n  x: {token: hunter2}}}\n");
  expect(error.problems[0]).toMatchObject({ line: 3 });
  expect(error.message).toContain("This is not valid YAML");
  expect(error.message).not.toContain("hunter2");
});

test.each([
  ["a list", "- 1", "Invalid config type for 'configuration': expected object, got array"],
  ["a key twice", "name: a\nname: b", "Map keys must be unique"],
  ["an alias of itself", "handlers: &x {y: *x}", "'handlers.y' contains itself by an alias"],
])("%s is refused", async (_what, text, message) => {
  expect((await problemsOf(text)).message).toContain(message);
});

test("aliases are followed", async () => {
  const { handlers } = await load("handlers:\n  a: &base {x: 1}\n  b: *base");
  expect(handlers.b?.config).toEqual({ x: 1 });
});

test("the grace period must exceed the drain and the slowest handlers", async () => {
  const { problems } = await problemsOf("shutdown: {drain_timeout_seconds: 50}");
  expect(problems.map(({ message }) => message)).toEqual([
    "Invalid config value for 'shutdown.grace_period_seconds': expected more than 60 (drain_timeout_seconds + handler_timeout_seconds), got the default",
  ]);
  await load("shutdown: {drain_timeout_seconds: 50, grace_period_seconds: 60.5}");
});

test("answers may not go to the topic that envelopes come from", async () => {
  const { problems } = await problemsOf("input_topic: a\noutput_topic: a");
  expect(problems.map(({ path }) => path)).toEqual(["output_topic"]);
});

test.each([".", "..", "a/b", "", "a".repeat(250)])("%j is no topic", async (name) => {
  expect((await problemsOf(`output_topic: ${JSON.stringify(name)}`)).problems[0]?.path).toBe("output_topic");
});

test("operator endpoints that other machines reach need a key", async () => {
  expect((await problemsOf("health: {host: 0.0.0.0}")).message).toContain("set health.api_keys");
  await load("health: {host: 0.0.0.0, api_keys: [{name: ops, role: admin, key: opensesame}]}");
  await load("health: {host: 0.0.0.0, port: false}");
});

test("an API key of the operator endpoints is kept as its hash only", async () => {
  const { runtime } = await load("health: {api_keys: [{name: ops, role: admin, key: opensesame}]}");
  expect(runtime.health.apiKeys).toEqual([
    {
      name: "ops",
      role: "admin",
      sha256: "d9fb92e3bbe65be1f1aad4a82eef4567f7a1ebe2cd110c8049b9698be7a70c88",
    },
  ]);
});
