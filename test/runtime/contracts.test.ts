import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  discoverHandlers,
  type BootstrapHandler,
  type DiscoveryOptions,
} from "../../src/runtime/contracts.ts";
import { defineHandler } from "../../src/runtime/define.ts";
import { Contracts } from "./support.ts";

const Shipped = defineHandler({ handlerType: "shipped", operations: {} });

/** A bootstrap handler of this type, its contract in a folder apart from the contracts directory. */
async function shipped(folder: Contracts, type: string): Promise<BootstrapHandler> {
  const handlerClass = `onex-runtime#${type}`;
  const contractFile = await folder.write(`${type}/handler_contract.yaml`, {
    handler_id: `effect.${type}.handler`,
    name: `shipped ${type}`,
    handler_class: handlerClass,
    descriptor: { node_archetype: "effect" },
  });
  return { handlerClass, contractFile, load: async () => Shipped };
}

async function discover(contracts: Contracts | undefined, more: Partial<DiscoveryOptions> = {}) {
  const found = await discoverHandlers({
    ...(contracts !== undefined && { contractsDir: contracts.dir }),
    handlerSource: { mode: "hybrid", allowBootstrapOverride: false },
    bootstrap: [],
    allowedNamespaces: [],
    env: {},
    ...more,
  });
  return {
    ...found,
    names: Object.fromEntries(found.handlers.map(({ type, contract }) => [type, contract.name])),
    outcomes: Object.fromEntries(found.report.entries.map((entry) => [entry.path, entry.outcome])),
    codes: Object.fromEntries(found.report.entries.map((entry) => [entry.path, entry.code])),
    reasons: Object.fromEntries(found.report.entries.map((entry) => [entry.path, entry.reason])),
  };
}

describe("where handlers come from", () => {
  test("bootstrap: only what the package ships", async () => {
    await using contracts = await Contracts.make();
    await using folder = await Contracts.make();
    await contracts.handler("greet");
    const handlerSource = { mode: "bootstrap", allowBootstrapOverride: false } as const;
    const found = await discover(contracts, { handlerSource, bootstrap: [await shipped(folder, "mcp")] });
    expect(found.names).toEqual({ mcp: "shipped mcp" });
    expect(found.handlers[0]?.Class).toBe(Shipped);
    expect(found.outcomes).toEqual({ "bootstrap:onex-runtime#mcp": "loaded" });
  });

  test("contract: only what lies in the contracts directory", async () => {
    await using contracts = await Contracts.make();
    await using folder = await Contracts.make();
    await contracts.handler("greet");
    const handlerSource = { mode: "contract", allowBootstrapOverride: false } as const;
    const found = await discover(contracts, { handlerSource, bootstrap: [await shipped(folder, "mcp")] });
    expect(found.names).toEqual({ greet: "greet" });
    expect(found.report.directory).toBe(contracts.dir);
  });

  test("hybrid: both, and for one type the contract wins", async () => {
    await using contracts = await Contracts.make();
    await using folder = await Contracts.make();
    await contracts.handler("greet");
    await contracts.handler("mcp");
    const bootstrap = [await shipped(folder, "mcp"), await shipped(folder, "http")];
    const found = await discover(contracts, { bootstrap });
    expect(found.names).toEqual({ greet: "greet", mcp: "mcp", http: "shipped http" });
    expect(found.outcomes["bootstrap:onex-runtime#mcp"]).toBe("skipped");
    expect(found.reasons["bootstrap:onex-runtime#mcp"]).toBe("replaced by mcp/handler_contract.yaml");
  });

  test("hybrid with allow_bootstrap_override: the shipped one wins", async () => {
    await using contracts = await Contracts.make();
    await using folder = await Contracts.make();
    await contracts.handler("mcp");
    const found = await discover(contracts, {
      handlerSource: { mode: "hybrid", allowBootstrapOverride: true },
      bootstrap: [await shipped(folder, "mcp")],
    });
    expect(found.names).toEqual({ mcp: "shipped mcp" });
    expect(found.reasons["mcp/handler_contract.yaml"]).toBe("replaced by bootstrap:onex-runtime#mcp");
  });

  test("a contract may name a shipped class", async () => {
    await using contracts = await Contracts.make();
    await using folder = await Contracts.make();
    await contracts.handler("mcp", {}, { handler_class: "onex-runtime#mcp", name: "mine" });
    const found = await discover(contracts, { bootstrap: [await shipped(folder, "mcp")] });
    expect(found.names).toEqual({ mcp: "mine" });
    expect(found.handlers[0]?.Class).toBe(Shipped);
  });

  test("past bootstrap_expires_at there are no shipped handlers; before it there are", async () => {
    await using folder = await Contracts.make();
    const bootstrap = [await shipped(folder, "mcp")];
    const at = async (bootstrapExpiresAt: string | Date, today: string) =>
      (
        await discover(undefined, {
          bootstrap,
          handlerSource: { mode: "hybrid", allowBootstrapOverride: false, bootstrapExpiresAt },
          today: () => Date.parse(today),
        })
      ).names;
    const both = { mcp: "shipped mcp" };
    expect(await at("2030-01-31T12:00:00+02:00", "2030-01-31T09:59:59Z")).toEqual(both);
    expect(await at("2030-01-31T12:00:00+02:00", "2030-01-31T10:00:00Z")).toEqual({});
    expect(await at(new Date("2030-01-31T10:00:00Z"), "2030-01-31T09:59:59Z")).toEqual(both);
  });

  test.each(["2030-01-31T12:00:00", "2030-01-31", "tomorrow", "2030-13-31T12:00:00Z"])(
    "%s is refused as bootstrap_expires_at",
    async (bootstrapExpiresAt) => {
      const handlerSource = { mode: "hybrid", allowBootstrapOverride: false, bootstrapExpiresAt } as const;
      await expect(discover(undefined, { handlerSource })).rejects.toThrow(
        new RegExp(`bootstrap_expires_at: expected an ISO 8601 date.*${bootstrapExpiresAt}`),
      );
    },
  );
});

describe("the load report", () => {
  test("lists every file with its outcome; a bad file never stops the others", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("good");
    await contracts.write("yaml/handler_contract.yaml", "name: [");
    await contracts.write("schema/handler_contract.yaml", "name: 7\nhandler_class: x\nhandler_type: effect");
    await contracts.write("missing/handler_contract.yaml", "name: x");
    await contracts.write("both/handler_contract.yaml", "handler_type: effect\nhandler_id: a.b");
    await contracts.handler("export", {}, { handler_class: "./export.mjs#Gone" });
    await contracts.handler("module", {}, { handler_class: "./gone.mjs#X" });
    await contracts.handler("python", {}, { handler_class: "acme.handlers.X" });
    await contracts.handler("package", {}, { handler_class: "acme#X" });
    const found = await discover(contracts);
    expect(found.names).toEqual({ good: "good" });
    expect(found.codes).toEqual({
      "good/handler_contract.yaml": undefined,
      "yaml/handler_contract.yaml": "HANDLER_LOADER_002",
      "schema/handler_contract.yaml": "HANDLER_LOADER_003",
      "missing/handler_contract.yaml": "HANDLER_LOADER_004",
      "both/handler_contract.yaml": "HANDLER_LOADER_040",
      "export/handler_contract.yaml": "HANDLER_LOADER_011",
      "module/handler_contract.yaml": "HANDLER_LOADER_010",
      "python/handler_contract.yaml": "HANDLER_LOADER_010",
      "package/handler_contract.yaml": "HANDLER_LOADER_013",
    });
    const entries = found.report.entries.filter((entry) => entry.outcome === "failed");
    expect(entries).toHaveLength(8);
    for (const entry of entries) expect(entry.reason).toMatch(/^(?!HANDLER_LOADER).{10}/);
    expect(found.report.entries.map((entry) => entry.path)).toEqual(
      found.report.entries.map((entry) => entry.path).toSorted(),
    );
    expect([...found.failed.keys()].toSorted()).toEqual([
      "both/handler_contract.yaml",
      "export",
      "missing/handler_contract.yaml",
      "module",
      "package",
      "python",
      "schema/handler_contract.yaml",
      "yaml/handler_contract.yaml",
    ]);
  });

  test("of two contracts for one type the first by path counts, the other is ambiguous", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("b", {}, { protocol_type: "greet" });
    await contracts.handler("a", {}, { protocol_type: "greet" });
    const found = await discover(contracts);
    expect(found.names).toEqual({ greet: "a" });
    expect(found.codes["b/handler_contract.yaml"]).toBe("HANDLER_LOADER_040");
    expect(found.reasons["b/handler_contract.yaml"]).toContain(
      "a/handler_contract.yaml already declares proto.greet",
    );
  });

  test("a handler whose required_env is absent or empty is skipped, and says what it lacks", async () => {
    await using contracts = await Contracts.make();
    const activation = { required_env: ["ACME_URL", "ACME_TOKEN", "ACME_USER"] };
    await contracts.handler("acme", {}, { activation });
    const env = { ACME_URL: "x", ACME_TOKEN: "" };
    const found = await discover(contracts, { env });
    expect(found.names).toEqual({});
    expect(found.skipped.get("acme")).toContain("lacks ACME_TOKEN, ACME_USER");
    expect(found.outcomes).toEqual({ "acme/handler_contract.yaml": "skipped" });
    expect(found.failed.size).toBe(0);
    const whole = await discover(contracts, { env: { ACME_URL: "x", ACME_TOKEN: "y", ACME_USER: "z" } });
    expect(whole.names).toEqual({ acme: "acme" });
  });

  test("keys without effect are informational, and the handler is loaded", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet", {}, { input_model: "x", owner: "y" });
    const { report } = await discover(contracts);
    expect(report.entries).toEqual([
      {
        path: "greet/handler_contract.yaml",
        kind: "handler",
        outcome: "loaded",
        name: "greet",
        informational: ["input_model", "owner"],
      },
    ]);
  });

  test.each([
    ["HANDLER_LOADER_020", "absent"],
    ["HANDLER_LOADER_022", "file"],
  ])("%s: the directory is %s; shipped handlers are there all the same", async (code, what) => {
    await using folder = await Contracts.make();
    await folder.write("file", "");
    const found = await discover(undefined, {
      contractsDir: join(folder.dir, what),
      bootstrap: [await shipped(folder, "mcp")],
    });
    expect(found.codes["."]).toBe(code);
    expect(found.names).toEqual({ mcp: "shipped mcp" });
  });

  test("a shipped handler whose contract is gone or whose class does not load is reported", async () => {
    await using folder = await Contracts.make();
    const broken = {
      ...(await shipped(folder, "mcp")),
      load: async () => {
        throw new Error("cannot load");
      },
    };
    const gone = {
      ...broken,
      handlerClass: "onex-runtime#gone",
      contractFile: join(folder.dir, "gone.yaml"),
    };
    const found = await discover(undefined, { bootstrap: [broken, gone] });
    expect(found.codes["bootstrap:onex-runtime#gone"]).toBe("HANDLER_LOADER_001");
    expect(found.reasons["bootstrap:onex-runtime#mcp"]).toContain("cannot load");
    expect(found.names).toEqual({});
  });
});
