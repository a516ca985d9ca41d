import { createServer } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { banner } from "../../src/cli/banner.ts";
import { folder, launcher, root, run, serve, start } from "./cli.ts";

const mcp = "consul_host: x, consul_port: 1, kafka_enabled: false, dev_mode: true, port: 0";
const config = (rest = ""): Record<string, string> => ({
  "contracts/runtime/runtime_config.yaml": `health: {port: 0}\nhandlers:\n  mcp: {${mcp}}\n${rest}`,
});
const handlerFiles = (name: string, body: string): Record<string, string> => ({
  [`contracts/handlers/${name}/handler_contract.yaml`]: `name: handler-${name}\nhandler_class: ./h.mjs#h\nhandler_type: compute\n`,
  [`contracts/handlers/${name}/h.mjs`]: `import { defineHandler } from "onex-runtime";\nexport const h = defineHandler({ handlerType: "${name}", ${body} });\n`,
});

test("serve on the shipped configuration is ready, live and serves its tools", async () => {
  const { operators, mcp: endpoint, child, ended } = await serve(root);
  expect((await fetch(`${operators}/health`)).status).toBe(200);
  expect((await fetch(`${operators}/ready`)).status).toBe(200);
  const listed = await fetch(new URL("/mcp/tools", endpoint));
  expect(await listed.json()).toMatchObject({
    tools: expect.arrayContaining([expect.objectContaining({ name: "wait" })]),
  });
  child.kill("SIGTERM");
  expect(await ended).toMatchObject({ code: 0, stdout: "" });
});

test("serve without a command and with only options is serve", async () => {
  const cwd = await folder({ "other.yaml": config()["contracts/runtime/runtime_config.yaml"]! });
  const running = start(cwd, ["--config", "other.yaml"]);
  await running.printed("stderr", /onex-runtime is ready/);
  running.child.kill("SIGINT");
  expect((await running.ended).code).toBe(0);
});

test("an envelope is sent to the running host and its answer printed; an error answer ends with 1", async () => {
  const cwd = await folder(config());
  const { operators } = await serve(cwd);
  const listed = await run(cwd, ["send", "mcp.list_tools", "--url", operators]);
  expect(listed.code).toBe(0);
  expect(JSON.parse(listed.stdout)).toMatchObject({
    success: true,
    handler_id: "mcp-handler",
    payload: { tools: [] },
  });
  const refused = await run(cwd, ["send", "nobody.does", "--url", operators]);
  expect(refused.code).toBe(1);
  expect(JSON.parse(refused.stdout)).toMatchObject({ success: false, error: { retryable: false } });
});

test("with keys configured send needs one, given as an option or by ONEX_API_KEY", async () => {
  const cwd = await folder({
    "contracts/runtime/runtime_config.yaml": `health: {port: 0, api_keys: [{name: ops, role: admin, key: opensesame}, {name: guest, key: letmein-please}]}\nhandlers:\n  mcp: {${mcp}}\n`,
  });
  const { operators } = await serve(cwd);
  const args = ["send", "mcp.list_tools", "--url", operators];
  const none = await run(cwd, args);
  expect([none.code, none.stdout]).toEqual([1, ""]);
  expect(none.stderr).toMatch(/answered 401/);
  expect((await run(cwd, [...args, "--api-key", "letmein-please"])).stderr).toMatch(/answered 403/);
  expect((await run(cwd, [...args, "--api-key", "opensesame"])).code).toBe(0);
  expect((await run(cwd, args, { ONEX_API_KEY: "opensesame" })).code).toBe(0);
});

test("send finds the host by ONEX_HTTP_PORT, and the key, as .env has them", async () => {
  const cwd = await folder({
    "contracts/runtime/runtime_config.yaml": `health: {port: 0, api_keys: [{name: ops, role: admin, key: opensesame}]}\nhandlers:\n  mcp: {${mcp}}\n`,
  });
  const { operators } = await serve(cwd);
  const there = await folder({ ".env": "ONEX_API_KEY=opensesame\n" });
  const { port } = new URL(operators);
  expect((await run(there, ["send", "mcp.list_tools"], { ONEX_HTTP_PORT: port })).code).toBe(0);
});

test("send to nobody says where it tried and what to start", async () => {
  const cwd = await folder();
  const { code, stderr } = await run(cwd, ["send", "mcp.list_tools", "--url", "http://127.0.0.1:1"]);
  expect(code).toBe(1);
  expect(stderr).toMatch(
    /^onex: No host answers at http:\/\/127\.0\.0\.1:1 \(.+\)\. Does `onex serve` run there\?\n$/,
  );
});

test("a secret of the configuration is in no line of the log, whatever its key", async () => {
  const files = config("name: ${env:HUSH}\n");
  const { child, ended, printed } = start(await folder(files), ["serve"], { HUSH: "swordfish" });
  await printed("stderr", /onex-runtime is ready/);
  child.kill("SIGTERM");
  const { stderr } = await ended;
  expect(stderr).toContain("Runtime host [redacted] is running");
  expect(stderr).not.toContain("swordfish");
});

test("a port that is taken ends the start with 1 and names host and port, be it the operators' or that of MCP", async () => {
  const holder = createServer();
  const port = await new Promise<number>((resolve) => {
    holder.listen(0, "127.0.0.1", () => resolve((holder.address() as { port: number }).port));
  });
  onTestFinished(() => new Promise<void>((resolve) => void holder.close(() => resolve())));
  const cwd = await folder(config());
  for (const variable of ["ONEX_HTTP_PORT", "HANDLER_MCP_PORT"]) {
    const { code, stderr } = await run(cwd, ["serve"], { [variable]: String(port) });
    expect(code).toBe(1);
    expect(stderr).toContain(`127.0.0.1 port ${port}`);
    expect(stderr).toMatch(/^onex: /m);
    expect(stderr).not.toMatch(/^\s+at /m);
  }
});

test("a configuration with problems ends the start with 1 and lists them all", async () => {
  const cwd = await folder({ "contracts/runtime/runtime_config.yaml": "nam: x\nhandlers: {mcp: {}}\n" });
  const { code, stderr } = await run(cwd, ["serve"]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^onex: 5 problems in the configuration:\n/);
});

test("a host without any port stays until a signal ends it", async () => {
  const cwd = await folder({
    "contracts/runtime/runtime_config.yaml": "health: {port: false}\nhandlers: {mcp: {skip_server: true}}\n",
  });
  const { child, ended, printed } = start(cwd, ["serve"], { ONEX_HTTP_PORT: "" });
  await printed("stderr", /onex-runtime is ready/);
  let isOver = false;
  void ended.then(() => (isOver = true));
  // A process without work would be gone long before another has started and answered.
  await run(cwd, ["--version"]);
  expect(isOver).toBe(false);
  child.kill("SIGTERM");
  expect((await ended).code).toBe(0);
});

test("what a handler prints needs nobody who reads stdout, and process.exit does not end the runtime", async () => {
  const cwd = await folder({
    ...config(),
    ...handlerFiles(
      "loud",
      'operations: { "loud.print": () => { process.stdout.write("noise\\n"); return 1; }, "loud.exit": () => process.exit(0) }',
    ),
  });
  const { child, ended, operators, printed } = await serve(cwd);
  child.stdout?.destroy();
  expect((await run(cwd, ["send", "loud.print", "--url", operators])).code).toBe(0);
  await printed("stderr", /noise/);
  expect((await run(cwd, ["send", "loud.exit", "--url", operators])).code).toBe(1);
  expect((await run(cwd, ["send", "loud.print", "--url", operators])).code).toBe(0);
  child.kill("SIGTERM");
  expect((await ended).code).toBe(0);
});

test("a signal during the start ends it with 0", async () => {
  const cwd = await folder({
    ...config("  slow: {}\n"),
    ...handlerFiles(
      "slow",
      'operations: {}, initialize() { console.error("initializing"); return new Promise(() => setInterval(() => {}, 1000)); }',
    ),
  });
  const running = start(cwd, ["serve"]);
  await running.printed("stderr", /initializing/);
  running.child.kill("SIGTERM");
  expect((await running.ended).code).toBe(0);
});

test("while a call is drained the host is not ready, and a second signal ends it at once with 143", async () => {
  const cwd = await folder({
    ...config(),
    ...handlerFiles(
      "busy",
      'operations: { "busy.wait": () => { console.error("waiting"); return new Promise(() => {}); } }',
    ),
  });
  const { child, ended, operators, printed } = await serve(cwd);
  void fetch(`${operators}/envelopes`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: '{"operation": "busy.wait"}',
  }).catch(() => undefined);
  await printed("stderr", /waiting/);
  child.kill("SIGTERM");
  await expect.poll(async () => (await fetch(`${operators}/ready`)).status).toBe(503);
  child.kill("SIGTERM");
  expect((await ended).code).toBe(143);
});

test("a stop that must be forced ends with 1", async () => {
  const cwd = await folder({
    "contracts/runtime/runtime_config.yaml": `health: {port: 0}\nshutdown: {drain_timeout_seconds: 1, handler_timeout_seconds: 1, grace_period_seconds: 2.1}\nhandlers:\n  mcp: {${mcp}}\n`,
    ...handlerFiles("first", "operations: {}, shutdownPriority: 2, shutdown: () => new Promise(() => {})"),
    ...handlerFiles("second", "operations: {}, shutdownPriority: 1, shutdown: () => new Promise(() => {})"),
    ...handlerFiles("third", "operations: {}, shutdown: () => new Promise(() => {})"),
  });
  const { child, ended } = await serve(cwd);
  child.kill("SIGTERM");
  expect((await ended).code).toBe(1);
});

test("a promise that a handler leaves rejected is logged and the runtime goes on; an exception stops it with 1", async () => {
  const cwd = await folder({
    ...config(),
    ...handlerFiles(
      "wild",
      'operations: { "wild.reject": () => { void Promise.reject(new Error("left behind")); return 1; }, "wild.throw": () => { setImmediate(() => { throw new Error("nobody caught"); }); return 1; } }',
    ),
  });
  const { ended, operators, printed } = await serve(cwd);
  await run(cwd, ["send", "wild.reject", "--url", operators]);
  await printed("stderr", /left behind/);
  expect((await fetch(`${operators}/ready`)).status).toBe(200);
  await run(cwd, ["send", "wild.throw", "--url", operators]);
  const { code, stderr } = await ended;
  expect(stderr).toContain("nobody caught");
  expect(code).toBe(1);
});

test("serve prints where it can be reached only on a terminal", async () => {
  const terminal = ["--import", "data:text/javascript,process.stdout.isTTY=true", launcher];
  const { child, ended, printed } = start(await folder(config()), ["serve"], {}, terminal);
  await printed("stderr", /onex-runtime is ready/);
  child.kill("SIGTERM");
  expect((await ended).stdout).toMatch(/^\nonex-runtime is ready\.\n\nMCP +http:\/\/127\.0\.0\.1:\d+\/mcp\n/);
});

test("on a terminal serve says where it can be reached, what it serves, and how a client connects", () => {
  const text = banner({
    mcp: "http://127.0.0.1:8090/mcp",
    operators: "http://127.0.0.1:8085",
    tools: [
      { name: "wait", description: "Waits a\n while. Use it rarely." },
      ...Array.from({ length: 21 }, (_, index) => ({ name: `t${index}`, description: "x" })),
    ],
    handlers: ["mcp", "greeting"],
    failed: { broken: "why" },
    skipped: { other: "the environment lacks X" },
  });
  expect(text).toContain("MCP        http://127.0.0.1:8090/mcp\n");
  expect(text).toContain(
    "Operators  http://127.0.0.1:8085/health  http://127.0.0.1:8085/ready  POST http://127.0.0.1:8085/envelopes\n",
  );
  expect(text).toContain(
    "Handlers   mcp, greeting\n           broken failed: why\n           other skipped: the environment lacks X\n",
  );
  expect(text).toContain("22 tools\n  wait  Waits a while.\n");
  expect(text).toContain("  and 2 more: onex tools\n");
  expect(text).toContain("claude mcp add --transport http onex http://127.0.0.1:8090/mcp\n");
  expect(text).toContain('{"mcpServers":{"onex":{"type":"http","url":"http://127.0.0.1:8090/mcp"}}}');
});
