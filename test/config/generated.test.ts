import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { configSchema, generatedFiles } from "../../scripts/schemas.ts";
import { loadConfig } from "../../src/config/load.ts";

const root = join(import.meta.dirname, "../..");
const read = (path: string): Promise<string> => readFile(join(root, path), "utf8");

test("the committed JSON Schemas and the table of keys are what the schemas generate", async () => {
  for (const [path, text] of await generatedFiles())
    expect(await read(path), `${path}: run node scripts/schemas.ts`).toBe(text);
});

interface Schema {
  readonly type?: string;
  readonly default?: unknown;
  readonly properties?: Record<string, Schema>;
}

test("every key of the configuration is in the table with its default", async () => {
  const rows = (await read("docs/configuration.md"))
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/^`(.*)`$/, "$1")));
  const missing: string[] = [];
  const walk = (schema: Schema, section: string): void => {
    for (const [key, value] of Object.entries(schema.properties ?? {})) {
      if (value.type === "object") {
        walk(value, section === "" ? key : `${section}.${key}`);
        continue;
      }
      const standard = value.default === undefined ? "none" : JSON.stringify(value.default);
      const found = rows.some(
        ([, name, where, , shown]) =>
          name === key && where === (section === "" ? "top" : section) && shown === standard,
      );
      if (!found) missing.push(`${section}.${key} = ${standard}`);
    }
  };
  walk(configSchema(), "");
  expect(rows.length).toBeGreaterThan(50);
  expect(missing).toEqual([]);
});

test("every variable of the shipped configuration is in .env.example, which sets what the file would take anyway", async () => {
  const shipped = (await read("contracts/runtime/runtime_config.yaml")).replaceAll(/^\s*#.*$/gm, "");
  const example = await read(".env.example");
  const variables = [...shipped.matchAll(/\$\{([A-Z_]+)(?::-([^}]*))?\}/g)];
  expect(variables.length).toBeGreaterThan(8);
  for (const [, name, fallback] of variables) {
    const [, value] = new RegExp(`^${name}=(.*)$`, "m").exec(example) ?? [];
    expect(value, name).toBeDefined();
    if (fallback !== undefined) expect(value, name).toBe(fallback);
  }
});

test("the shipped configuration loads, and its schema accepts it with its variables unexpanded", async () => {
  const { handlers, contractsDir } = await loadConfig({
    cwd: root,
    env: {},
    file: "contracts/runtime/runtime_config.yaml",
  });
  expect(contractsDir).toBe(join(root, "contracts"));
  expect(handlers.mcp?.config).toMatchObject({ port: 8090, dev_mode: true, contracts_dir: contractsDir });

  const text = await read("contracts/runtime/runtime_config.yaml");
  expect(text.split("\n")[0]).toBe(
    "# yaml-language-server: $schema=../../schemas/runtime_config.schema.json",
  );
  const schema: unknown = JSON.parse(await read("schemas/runtime_config.schema.json"));
  const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(schema as object);
  expect(validate(parse(text)), JSON.stringify(validate.errors)).toBe(true);
  expect(validate({ handlers: { mcp: { prot: 1 } } })).toBe(false);
  expect(validate({ health: { port: "abc" } })).toBe(false);
});
