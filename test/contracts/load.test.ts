/** The contracts that the package ships: every one loads, and editors find its schema. */
import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import addFormats from "ajv-formats";
import { Ajv2020 } from "ajv/dist/2020.js";
import { expect, it } from "vitest";
import { parse } from "yaml";
import { discoveryOptions } from "../../src/cli/compose.ts";
import { scanNodes } from "../../src/contract/node-scan.ts";
import { loadModule } from "../../src/execution/modules.ts";
import { HandlerHttp } from "../../src/handlers/http.ts";
import { HandlerMCP } from "../../src/handlers/mcp.ts";
import { discoverHandlers } from "../../src/runtime/contracts.ts";
import { constructHandler } from "../../src/runtime/loader.ts";
import { blocksOf, readPages } from "../docs/markdown.ts";
import { Contracts } from "../runtime/support.ts";
import { root } from "../support/runtime.ts";

const contractsDir = join(root, "contracts");

/** Paths of the files of one name, relative to the contracts directory. */
async function shipped(fileName: string): Promise<string[]> {
  const files = await readdir(contractsDir, { recursive: true });
  return files.filter((file) => basename(file) === fileName).sort();
}

it("every shipped node contract is loaded as a tool, with nothing to report", async () => {
  const { entries, contracts } = await scanNodes({ directory: contractsDir, env: {} });
  const paths = await shipped("contract.yaml");
  expect(paths).toHaveLength(4);
  expect(
    entries.map(({ path, outcome, reason, informational }) => [path, outcome, reason, informational]),
  ).toEqual(paths.map((path) => [path, "loaded", undefined, undefined]));
  const kinds = [...contracts.values()].map(({ toolName, execution }) => [toolName, execution.kind]);
  expect(Object.fromEntries(kinds)).toEqual({
    get_order: "rest",
    quote_shipping: "onex",
    text_statistics: "local",
    wait: "local",
  });
});

it("every shipped handler contract is loaded, and its class makes a handler", async () => {
  const { handlers, failed, skipped, report } = await discoverHandlers({
    contractsDir,
    handlerSource: { mode: "contract", allowBootstrapOverride: false },
    bootstrap: [],
    allowedNamespaces: [],
    env: {},
    importModule: loadModule,
  });
  expect([...failed, ...skipped]).toEqual([]);
  expect(report.entries.map(({ path, outcome }) => [path, outcome])).toEqual(
    (await shipped("handler_contract.yaml")).map((path) => [path, "loaded"]),
  );
  const made = handlers.map(({ type, contract, Class }) => [
    type,
    constructHandler(Class, contract.handlerClass, {}).handlerType,
  ]);
  expect(made).toEqual([
    ["greeting", "greeting"],
    ["http", "infra_handler"],
    ["mcp", "infra_handler"],
  ]);
  expect(handlers.slice(1).map(({ Class }) => Class)).toEqual([HandlerHttp, HandlerMCP]);
});

it("the contract in the documentation switches the shipped HTTP handler off, unless its variable is set", async () => {
  const blocks = readPages().flatMap(blocksOf);
  const { code } = blocks.find(({ info, code }) => info === "yaml handler" && /#HandlerHttp$/m.test(code))!;
  await using contracts = await Contracts.make();
  await contracts.write("http/handler_contract.yaml", code);
  const discover = (env: Record<string, string>) =>
    discoverHandlers(
      discoveryOptions({
        contractsDir: contracts.dir,
        env,
        runtime: {
          handlerSource: { mode: "hybrid", allowBootstrapOverride: false },
          allowedNamespaces: [],
        },
      }),
    );
  const off = await discover({});
  expect(off.handlers.map(({ type }) => type)).toEqual(["mcp"]);
  expect([...off.skipped.keys()]).toEqual(["http"]);
  const on = await discover({ ONEX_HTTP_HANDLER: "1" });
  expect(on.handlers.map(({ type }) => type).sort()).toEqual(["http", "mcp"]);
});

it("the first line of every shipped YAML file points to the schema that describes it", async () => {
  const schemaOf: Readonly<Record<string, string>> = {
    "contract.yaml": "node_contract",
    "handler_contract.yaml": "handler_contract",
    "runtime_config.yaml": "runtime_config",
  };
  const ajv = new Ajv2020({ strict: false });
  addFormats.default(ajv);
  for (const [fileName, schemaName] of Object.entries(schemaOf)) {
    const paths = await shipped(fileName);
    expect(paths, fileName).not.toEqual([]);
    for (const path of paths) {
      const file = join(contractsDir, path);
      const text = await readFile(file, "utf8");
      const [, reference = ""] = /^# yaml-language-server: \$schema=(\S+)\n/.exec(text) ?? [];
      const schemaFile = resolve(dirname(file), reference);
      expect(relative(root, schemaFile), path).toBe(`schemas/${schemaName}.schema.json`);
      const validate = ajv.compile(JSON.parse(await readFile(schemaFile, "utf8")));
      // The configuration holds variables, which its own test expands first.
      if (fileName !== "runtime_config.yaml") validate(parse(text));
      expect(validate.errors ?? [], path).toEqual([]);
    }
  }
});
