import { expect, test } from "vitest";
import { folder, run, serve } from "./cli.ts";

const config = (mcp = ""): string => `
handlers:
  mcp: {consul_host: 127.0.0.1, consul_port: 1, kafka_enabled: false, dev_mode: true, port: 0, contracts_dir: contracts${mcp}}
`;
const contract = (name: string, mcp = "", nodeType = "ORCHESTRATOR"): string => `
name: ${name}
node_type: ${nodeType}
description: The tool ${name}.
mcp:
  expose: true
  execution: {kind: local, module: ./tool.mjs}
${mcp}`;
const node = (name: string, mcp?: string, nodeType?: string): Record<string, string> => ({
  [`contracts/nodes/${name}/contract.yaml`]: contract(name, mcp, nodeType),
  [`contracts/nodes/${name}/tool.mjs`]: "export default () => 1;",
});

const adminKey = "the-key-of-an-admin";
const keys = `, api_keys: [{name: root, role: admin, key: ${adminKey}}, {name: guest, key: the-key-of-a-guest}]`;

test("onex plan shows what a configuration would add, remove and change in a running server, and why", async () => {
  const running = await folder({
    "contracts/runtime/runtime_config.yaml": config(),
    ...node("kept"),
    ...node("changed"),
    ...node("gone"),
    ...node("tagged"),
  });
  const { mcp } = await serve(running);
  const next = await folder({
    "contracts/runtime/runtime_config.yaml": config(),
    ...node("kept"),
    ...node("changed", "  title: Another title\n  timeout_seconds: 7\n  tags: [a]"),
    ...node("tagged", "  tags: [internal]"),
    ...node("new"),
  });
  const url = new URL(mcp).origin;
  const { code, stdout, stderr } = await run(next, ["plan", "--url", url]);
  expect([code, stderr]).toEqual([0, ""]);
  expect(stdout.split("\n")).toEqual([
    "+ new      from contract",
    "- gone     no source speaks of a tool or service of this name",
    '- tagged   the tag "internal" is in excluded_tags',
    "~ changed  other title",
    "1 to add, 2 to remove, 1 to change, 1 as they are",
    "",
  ]);
  const json = JSON.parse((await run(next, ["plan", "--url", url, "--json"])).stdout) as object;
  expect(json).toMatchObject({ added: [{ name: "new", from: "contract" }], unchanged: 1 });
});

test("onex plan without --url asks the server where the configuration says that it listens", async () => {
  const files = { "contracts/runtime/runtime_config.yaml": config(), ...node("kept") };
  const { mcp } = await serve(await folder(files));
  const next = await folder({
    ...files,
    "contracts/runtime/runtime_config.yaml": config().replace("port: 0", `port: ${new URL(mcp).port}`),
  });
  expect((await run(next, ["plan"])).stdout).toBe("0 to add, 0 to remove, 0 to change, 1 as they are\n");
});

test("onex plan says so where nobody answers, where it is no runtime, and where the key is missing", async () => {
  const files = { "contracts/runtime/runtime_config.yaml": config(keys), ...node("kept") };
  const cwd = await folder(files);
  const nobody = await run(cwd, ["plan", "--url", "http://127.0.0.1:1"]);
  expect([nobody.code, nobody.stderr]).toEqual([
    1,
    expect.stringContaining("No host answers at http://127.0.0.1:1"),
  ]);
  const { mcp, operators } = await serve(cwd);
  const other = await run(cwd, ["plan", "--url", operators]);
  expect([other.code, other.stderr]).toEqual([1, expect.stringContaining("answered 404 for /mcp/tools")]);
  const url = new URL(mcp).origin;
  const stranger = await run(cwd, ["plan", "--url", url]);
  expect([stranger.code, stranger.stderr]).toEqual([1, expect.stringContaining("answered 401")]);
  expect((await run(cwd, ["plan", "--url", url, "--api-key", adminKey])).code).toBe(0);
  expect((await run(cwd, ["plan", "--url", "nonsense"])).code).toBe(2);
});

test("onex tools --explain says why a name is served, in this process and by a running server", async () => {
  const files = {
    "contracts/runtime/runtime_config.yaml": config(keys),
    ...node("kept"),
    ...node("hidden", "  tags: [unsafe]"),
  };
  const cwd = await folder(files);
  const served = await run(cwd, ["tools", "--explain", "kept"]);
  expect(served.code).toBe(0);
  expect(served.stdout).toMatch(
    /^kept is served: served by contract nodes\/kept\/contract\.yaml\n\n\+ contracts nodes\/kept\/contract\.yaml {2}it is served \(version 0\.0\.0, revision [0-9a-f]{16}, learnt \d+ s ago\)\n$/,
  );
  const hidden = await run(cwd, ["tools", "--explain", "hidden"]);
  expect(hidden.code).toBe(1);
  expect(hidden.stdout).toContain('hidden is not served: the tag "unsafe" is in excluded_tags');

  const { mcp } = await serve(cwd);
  const at = ["--url", new URL(mcp).origin, "--api-key"];
  const there = await run(cwd, ["tools", "--explain", "hidden", ...at, adminKey, "--json"]);
  expect(JSON.parse(there.stdout)).toMatchObject({
    name: "hidden",
    served: false,
    records: [{ source: "contracts", kind: "contract", used: false }],
  });
  const guest = await run(cwd, ["tools", "--explain", "hidden", ...at, "the-key-of-a-guest"]);
  expect([guest.code, guest.stderr]).toEqual([1, expect.stringContaining("answered 403")]);
});
