/** Operations of handlers as tools, in commands that start no host. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { folder, run } from "./cli.ts";

const config = `
handlers:
  mcp: {consul_host: x, consul_port: 1, kafka_enabled: false, dev_mode: true, contracts_dir: contracts}
  counter: {begin: 40}
logging: {format: json}
`;
const contract = (type: string): string => `
name: handler-${type}
handler_class: ./${type}.mjs#handler
handler_type: effect
mcp: {expose: true, operation: add, description: Adds., input_schema: {type: object, properties: {n: {type: number}}}}
`;
/** Notes what is done to it. */
const counter = `
import { appendFileSync } from "node:fs";
import { defineHandler } from "onex-runtime";
const note = (text) => appendFileSync("notes.txt", text + " ");
export const handler = defineHandler({
  handlerType: "counter",
  operations: { "counter.add": ({ n }, { state, config }) => ({ sum: config.begin + n }) },
  initialize() { note("started"); },
  shutdown() { note("stopped"); },
});
`;
const broken = `
import { defineHandler } from "onex-runtime";
export const handler = defineHandler({
  handlerType: "broken", operations: {}, initialize() { throw new Error("no luck today"); },
});
`;

const files = {
  "contracts/runtime/runtime_config.yaml": config,
  "contracts/handlers/counter/handler_contract.yaml": contract("counter"),
  "contracts/handlers/counter/counter.mjs": counter,
  "contracts/handlers/broken/handler_contract.yaml": contract("broken"),
  "contracts/handlers/broken/broken.mjs": broken,
};

test("onex tools lists them and starts no handler", async () => {
  const cwd = await folder(files);
  const { code, stdout } = await run(cwd, ["tools"]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^broken_add +Adds\.\ncounter_add +Adds\.\n$/);
  expect(existsSync(join(cwd, "notes.txt"))).toBe(false);
});

test("onex call starts the one handler that it needs, with its configuration, and stops it again", async () => {
  const cwd = await folder(files);
  const { code, stdout } = await run(cwd, ["call", "counter_add", "n=2"]);
  expect([code, JSON.parse(stdout)]).toEqual([0, { sum: 42 }]);
  expect(await readFile(join(cwd, "notes.txt"), "utf8")).toBe("started stopped ");
});

test("a handler that does not start is its tools' error, with the reason", async () => {
  const cwd = await folder(files);
  const { code, stdout, stderr } = await run(cwd, ["call", "broken_add", "n=2"]);
  expect(code).toBe(1);
  expect(stdout + stderr).toContain("required handler broken did not start: no luck today");
});
