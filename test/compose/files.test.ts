/** docker-compose.yml against the specification of such files, and its variables against what reads them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Ajv } from "ajv";
import { beforeAll, expect, it } from "vitest";
import { keyRows } from "../../scripts/schemas.ts";
import { loadConfig } from "../../src/config/load.ts";
import { consulVersion, kafkaVersion } from "../services/programs.ts";
import { root } from "../support/runtime.ts";
import { interpolate, readCompose, type Compose } from "./files.ts";

let compose: Compose;
const read = (path: string): Promise<string> => readFile(join(root, path), "utf8");
const replicas = ["runtime-1", "runtime-2"] as const;

beforeAll(async () => {
  compose = await readCompose();
});

/** What the schema of the Compose Specification, which dclint brings, finds wrong. */
async function violations(document: unknown): Promise<readonly string[]> {
  const { $schema: _, ...schema } = JSON.parse(await read("node_modules/dclint/schemas/compose.schema.json"));
  const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });
  ajv.validate(schema, document);
  return (ajv.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);
}

it("docker-compose.yml conforms to the Compose Specification's schema", async () => {
  expect(await violations(compose)).toEqual([]);
  // The schema can say no.
  const wrong = structuredClone(compose) as any;
  wrong.services.kafka.evironment = {};
  wrong.services.consul.healthcheck = "yes";
  const found = (await violations(wrong)).join("\n");
  expect(found).toContain("/services/kafka must NOT have additional properties");
  expect(found).toContain("/services/consul/healthcheck must be object");
});

it("every part that a service refers to is there", () => {
  const { services, volumes } = compose as Compose & { readonly volumes: object };
  for (const [name, service] of Object.entries(services as Record<string, any>)) {
    for (const other of Object.keys(service.depends_on ?? {})) {
      expect(services[other]?.healthcheck, `${name} waits for the health of ${other}`).toBeDefined();
    }
    for (const mount of service.volumes ?? []) expect(volumes, name).toHaveProperty(mount.split(":")[0]);
  }
});

it("every variable of the replicas is one that the configuration reads, and those of the shipped file are in .env.example", async () => {
  const shipped = [...(await read("contracts/runtime/runtime_config.yaml")).matchAll(/^[^#\n]*\$\{(\w+)/gm)];
  const contracts = await Promise.all(
    ["get_order", "quote_shipping"].map((tool) => read(`contracts/nodes/${tool}/contract.yaml`)),
  );
  const inContracts = [...contracts.join("\n").matchAll(/\$\{(\w+)/g)];
  const own = keyRows().map(({ environment }) => environment);
  const example = await read(".env.example");
  const documented = [...example.matchAll(/^(?:# )?([A-Z_]+)=/gm)].map(([, name]) => name);
  for (const replica of replicas) {
    for (const name of Object.keys(compose.services[replica]!.environment!)) {
      const known =
        [...shipped, ...inContracts].some(([, variable]) => variable === name) || own.includes(name);
      expect(known, `${replica}: ${name} is read by nothing`).toBe(true);
      if (!name.startsWith("HANDLER_")) expect(documented, `.env.example: ${name}`).toContain(name);
    }
  }
});

it("the shipped configuration loads with the variables of each replica", async () => {
  for (const replica of replicas) {
    const environment = compose.services[replica]!.environment!;
    const env = Object.fromEntries(
      Object.entries(environment).map(([name, value]) => [name, interpolate(value)]),
    );
    const { runtime, handlers } = await loadConfig({ cwd: root, env });
    expect(runtime.name).toBe(replica);
    expect(handlers["mcp"]?.config).toMatchObject({
      consul_host: "consul",
      consul_port: 8500,
      kafka_enabled: true,
      dev_mode: false,
      state_dir: "/app/state",
    });
  }
});

it("the replicas differ in name, state and published port only", () => {
  const [one, two] = replicas.map((name) => compose.services[name]!);
  const own = { environment: 0, ports: 0, volumes: 0 };
  expect({ ...two, ...own }).toEqual({ ...one, ...own });
  expect({ ...two!.environment, ONEX_NAME: "" }).toEqual({ ...one!.environment, ONEX_NAME: "" });
});

it("every variable of the sample node is one that it reads", async () => {
  const source = await read("examples/sample-service.mjs");
  for (const name of Object.keys(compose.services["sample"]!.environment!)) {
    expect(source, name).toMatch(new RegExp(`env\\.${name}|\\b${name}:? .*= env|\\b${name}: .*\\} = env`));
  }
});

it("everything is published on loopback only", () => {
  for (const [name, { ports = [] }] of Object.entries(compose.services)) {
    for (const port of ports) expect(port, name).toMatch(/^127\.0\.0\.1:/);
  }
});

it("the images are of the versions that the tests run", () => {
  expect(compose.services["consul"]!.image).toBe(`hashicorp/consul:${consulVersion}`);
  expect(compose.services["kafka"]!.image).toBe(`apache/kafka:${kafkaVersion}`);
});
