/** Handler contracts that are kept elsewhere, as in Consul's key-value store. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { InfraConnectionError } from "../../src/core/errors.ts";
import {
  discoverHandlers,
  type BootstrapHandler,
  type DiscoveryOptions,
  type RemoteContracts,
} from "../../src/runtime/contracts.ts";
import { defineHandler } from "../../src/runtime/define.ts";
import { Contracts, makeHost, startedHost } from "./support.ts";

const Shipped = defineHandler({ handlerType: "shipped", operations: { "shipped.hi": () => "hi" } });
const shippedClass = "onex-runtime#Shipped";
const prefix = "onex/contracts/handlers/";
const ofConsul = (path: string): string => `consul:${prefix}${path}`;

const contract = (type: string, more: Record<string, unknown> = {}) => ({
  handler_id: `effect.${type}.handler`,
  name: `remote ${type}`,
  handler_class: shippedClass,
  descriptor: { node_archetype: "effect" },
  ...more,
});

function remote(contracts: Record<string, unknown>): RemoteContracts {
  const documents = Object.entries(contracts).map(([path, data]) => ({
    path: prefix + path,
    text: typeof data === "string" || data instanceof Uint8Array ? data : stringify(data),
  }));
  return { name: "consul", read: async () => documents };
}

const unreachable: RemoteContracts = {
  name: "consul",
  read: async () => {
    throw new InfraConnectionError("Consul at http://127.0.0.1:1 could not be reached.", {
      facts: { transport: "consul" },
    });
  },
};

/** A bootstrap handler of this type, its contract in a folder apart from the contracts directory. */
async function bootstrapOf(folder: Contracts, type = "none"): Promise<BootstrapHandler[]> {
  const data = contract(type, { name: `shipped ${type}` });
  const contractFile = await folder.write(`${type}/handler_contract.yaml`, data);
  return [{ handlerClass: shippedClass, contractFile, load: async () => Shipped }];
}

async function discover(more: Partial<DiscoveryOptions>) {
  const found = await discoverHandlers({
    handlerSource: { mode: "hybrid", allowBootstrapOverride: false },
    bootstrap: [],
    allowedNamespaces: [],
    env: {},
    ...more,
  });
  return {
    ...found,
    names: Object.fromEntries(found.handlers.map(({ type, contract: { name } }) => [type, name])),
    entries: Object.fromEntries(found.report.entries.map((entry) => [entry.path, entry])),
  };
}

test("a contract from Consul is a handler like any other, and is reported with its key", async () => {
  await using folder = await Contracts.make();
  const found = await discover({
    bootstrap: await bootstrapOf(folder),
    remote: remote({ "shop/orders.yaml": contract("orders", { owner: "team" }) }),
  });
  expect(found.names).toEqual({ none: "shipped none", orders: "remote orders" });
  expect(found.entries[ofConsul("shop/orders.yaml")]).toEqual({
    path: ofConsul("shop/orders.yaml"),
    kind: "handler",
    outcome: "loaded",
    name: "remote orders",
    informational: ["owner"],
  });
});

describe("of several contracts for one type", () => {
  async function three(source: DiscoveryOptions["handlerSource"], withDirectory = true) {
    await using folder = await Contracts.make();
    await using contracts = await Contracts.make();
    if (withDirectory) await contracts.handler("mcp", {}, { name: "directory mcp" });
    const found = await discover({
      contractsDir: contracts.dir,
      bootstrap: await bootstrapOf(folder, "mcp"),
      remote: remote({ mcp: contract("mcp") }),
      handlerSource: source,
    });
    return {
      served: found.names.mcp,
      reasons: Object.fromEntries(
        found.report.entries
          .filter(({ outcome }) => outcome === "skipped")
          .map(({ path, reason }) => [path, reason]),
      ),
    };
  }
  const bootstrap = `bootstrap:${shippedClass}`;

  test("the contracts directory wins over Consul, and Consul over the package; each says what replaced it", async () => {
    expect(await three({ mode: "hybrid", allowBootstrapOverride: false })).toEqual({
      served: "directory mcp",
      reasons: {
        [bootstrap]: "replaced by mcp/handler_contract.yaml",
        [ofConsul("mcp")]: "replaced by mcp/handler_contract.yaml",
      },
    });
    expect(await three({ mode: "hybrid", allowBootstrapOverride: false }, false)).toEqual({
      served: "remote mcp",
      reasons: { [bootstrap]: `replaced by ${ofConsul("mcp")}` },
    });
  });

  test("with allow_bootstrap_override the shipped one wins over both", async () => {
    expect(await three({ mode: "hybrid", allowBootstrapOverride: true })).toEqual({
      served: "shipped mcp",
      reasons: {
        "mcp/handler_contract.yaml": `replaced by ${bootstrap}`,
        [ofConsul("mcp")]: `replaced by ${bootstrap}`,
      },
    });
  });

  test("in Consul the first by key counts, the other is ambiguous", async () => {
    await using folder = await Contracts.make();
    const found = await discover({
      bootstrap: await bootstrapOf(folder),
      remote: remote({ b: contract("x", { name: "second" }), a: contract("x", { name: "first" }) }),
    });
    expect(found.names.x).toBe("first");
    expect(found.entries[ofConsul("b")]).toMatchObject({
      code: "HANDLER_LOADER_040",
      reason: expect.stringContaining(`${ofConsul("a")} already declares proto.x`),
    });
  });

  test("mode bootstrap does not ask Consul; mode contract does", async () => {
    await using folder = await Contracts.make();
    const options = { bootstrap: await bootstrapOf(folder, "mcp"), remote: remote({ x: contract("x") }) };
    const names = async (mode: "bootstrap" | "contract") =>
      (await discover({ ...options, handlerSource: { mode, allowBootstrapOverride: false } })).names;
    expect(await names("bootstrap")).toEqual({ mcp: "shipped mcp" });
    expect(await names("contract")).toEqual({ x: "remote x" });
  });
});

test("a contract from Consul brings no code: a path in handler_class is error 013 with the reason", async () => {
  await using contracts = await Contracts.make();
  await contracts.write("orders.mjs", "export class Orders {}");
  const absolute = join(contracts.dir, "orders.mjs");
  const found = await discover({
    contractsDir: contracts.dir,
    remote: remote({
      relative: contract("a", { handler_class: "./orders.mjs#Orders" }),
      absolute: contract("b", { handler_class: `${absolute}#Orders` }),
      package: contract("c", { handler_class: "acme#Orders" }),
      python: contract("d", { handler_class: "acme.orders.Orders" }),
    }),
  });
  expect(found.names).toEqual({});
  for (const path of ["relative", "absolute"]) {
    expect(found.entries[ofConsul(path)]).toMatchObject({
      code: "HANDLER_LOADER_013",
      reason: expect.stringMatching(/is a path.*only a contract in the contracts directory may name one/),
    });
  }
  expect(found.entries[ofConsul("package")]).toMatchObject({
    code: "HANDLER_LOADER_013",
    reason: expect.stringContaining("allowed_namespaces"),
  });
  expect(found.entries[ofConsul("python")]?.code).toBe("HANDLER_LOADER_010");
});

test("limits, schema and codes are those of files; a bad one never stops the others", async () => {
  await using folder = await Contracts.make();
  const found = await discover({
    bootstrap: await bootstrapOf(folder),
    remote: remote({
      good: contract("good"),
      yaml: "name: [",
      bytes: new Uint8Array([0xff, 0xfe, 0x00]),
      empty: "",
      schema: contract("x", { descriptor: { node_archetype: "magic" } }),
      missing: { name: "x" },
      both: { handler_type: "effect", handler_id: "a.b" },
      large: `# ${"x".repeat(10 * 1024 * 1024)}`,
    }),
  });
  expect(found.names).toEqual({ none: "shipped none", good: "remote good" });
  const codes = Object.fromEntries(found.report.entries.map(({ path, code }) => [path, code?.slice(-3)]));
  expect(codes).toEqual({
    [`bootstrap:${shippedClass}`]: undefined,
    [ofConsul("good")]: undefined,
    [ofConsul("yaml")]: "002",
    [ofConsul("bytes")]: "002",
    [ofConsul("empty")]: "003",
    [ofConsul("schema")]: "003",
    [ofConsul("missing")]: "004",
    [ofConsul("both")]: "040",
    [ofConsul("large")]: "005",
  });
});

describe("where Consul cannot be read", () => {
  test("the entry says so, the other handlers run, and the host is degraded", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet", { execute: () => "hello" });
    await using host = await startedHost(contracts, { remote: unreachable });
    expect((await host.host.handle({ operation: "greet.x" })).payload).toBe("hello");
    const { status, ready, details } = await host.host.ready();
    expect({ status, ready }).toEqual({ status: "degraded", ready: true });
    const reason = "Consul at http://127.0.0.1:1 could not be reached.";
    expect(details.failed_handlers).toEqual({ consul: reason });
    expect(details.load_report?.entries).toContainEqual({
      path: "consul",
      kind: "handler",
      outcome: "failed",
      reason,
    });
  });

  test("a required handler that is found nowhere else fails the start with that reason", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    await using host = makeHost(contracts, { remote: unreachable, handlers: { orders: { config: {} } } });
    await expect(host.host.start()).rejects.toThrow(
      /required handler orders: .*the contracts in consul.*consul: Consul at .* could not be reached/,
    );
  });
});

test("a handler from Consul answers envelopes, with its configuration section", async () => {
  await using folder = await Contracts.make();
  let config: unknown;
  const Orders = defineHandler({
    handlerType: "orders",
    operations: { "orders.get": ({ id }) => ({ id }) },
    initialize: (given) => {
      config = given;
    },
  });
  const [none] = await bootstrapOf(folder);
  await using host = await startedHost(undefined, {
    bootstrap: [{ ...none!, load: async () => Orders }],
    remote: remote({ orders: contract("orders") }),
    handlers: { orders: { config: { currency: "EUR" } } },
  });
  expect(await host.host.handle({ operation: "orders.get", payload: { id: 7 } })).toMatchObject({
    payload: { id: 7 },
    handler_id: "effect.orders.handler",
  });
  expect(config).toEqual({ currency: "EUR" });
});
