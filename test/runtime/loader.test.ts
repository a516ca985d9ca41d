import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { HandlerLoadError } from "../../src/core/errors.ts";
import { defineHandler } from "../../src/runtime/define.ts";
import { constructHandler, loadHandlerClass, type LoaderOptions } from "../../src/runtime/loader.ts";
import { Contracts } from "./support.ts";

const importModule = async (path: string) =>
  (await import(/* @vite-ignore */ pathToFileURL(path).href)) as Record<string, unknown>;

async function load(contracts: Contracts, handlerClass: string, more: Partial<LoaderOptions> = {}) {
  const file = join(contracts.dir, "greet", "handler_contract.yaml");
  return await loadHandlerClass(handlerClass, file, {
    contractsDir: contracts.dir,
    allowedNamespaces: [],
    importModule,
    ...more,
  });
}

async function codeOf(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await work;
  } catch (thrown) {
    if (thrown instanceof HandlerLoadError) return { code: thrown.loaderCode, message: thrown.message };
    throw thrown;
  }
  throw new Error("expected a HandlerLoadError");
}

describe("a class in the contracts directory", () => {
  test("is found relative to the contract, beside it or elsewhere inside", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    await contracts.write("shared/other.mjs", "export class Other {}");
    expect((await load(contracts, "./greet.mjs#TestHandler")).name).toBe("TestHandler");
    expect((await load(contracts, "../shared/other.mjs#Other")).name).toBe("Other");
  });

  test("the value of defineHandler is a class", async () => {
    await using contracts = await Contracts.make();
    const define = new URL("../../src/runtime/define.ts", import.meta.url).href;
    await contracts.write(
      "greet/defined.mjs",
      `import { defineHandler } from ${JSON.stringify(define)};
       export default defineHandler({ handlerType: "greet", operations: { "greet.hello": () => "hi" } });`,
    );
    const Class = await load(contracts, "./defined.mjs#default");
    expect(constructHandler(Class, "x", {}).handlerType).toBe("greet");
  });

  test("HANDLER_LOADER_010: a Python-style path is told that module#Export is needed", async () => {
    await using contracts = await Contracts.make();
    expect(await codeOf(load(contracts, "acme.handlers.greet.GreetHandler"))).toEqual({
      code: "HANDLER_LOADER_010",
      message: expect.stringMatching(/"acme.handlers.greet.GreetHandler".*Python.*module#Export is needed/),
    });
  });

  test.each(["./greet.mjs", "./greet.mjs#", "#Greet", "greet"])(
    "HANDLER_LOADER_010: %s names no export",
    async (handlerClass) => {
      await using contracts = await Contracts.make();
      expect(await codeOf(load(contracts, handlerClass))).toMatchObject({
        code: "HANDLER_LOADER_010",
        message: expect.stringContaining("module#Export"),
      });
    },
  );

  test("HANDLER_LOADER_010: a module that is not there", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    expect(await codeOf(load(contracts, "./gone.mjs#X"))).toMatchObject({
      code: "HANDLER_LOADER_010",
      message: expect.stringContaining("./gone.mjs does not exist"),
    });
  });

  test("HANDLER_LOADER_007: a module that is a folder", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    await mkdir(join(contracts.dir, "greet", "folder"));
    expect((await codeOf(load(contracts, "./folder#X"))).code).toBe("HANDLER_LOADER_007");
  });

  test("HANDLER_LOADER_011: an export that is not there; the message lists those that are", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    expect(await codeOf(load(contracts, "./greet.mjs#Missing"))).toMatchObject({
      code: "HANDLER_LOADER_011",
      message: expect.stringContaining("it has TestHandler"),
    });
    expect((await codeOf(load(contracts, "./greet.mjs#toString"))).code).toBe("HANDLER_LOADER_011");
  });

  test.each([
    ["throws", "throw new Error('boom');", /boom/],
    ["does not parse", "export class {", /./],
    ["imports what is not there", "import './nowhere.mjs';", /nowhere/],
  ])("HANDLER_LOADER_012: a module that %s", async (_what, source, message) => {
    await using contracts = await Contracts.make();
    await contracts.write("greet/broken.mjs", source);
    expect(await codeOf(load(contracts, "./broken.mjs#X"))).toEqual({
      code: "HANDLER_LOADER_012",
      message: expect.stringMatching(message),
    });
  });

  test("HANDLER_LOADER_013: no path leads out of the directory, by dots, absolutely or by a link", async () => {
    await using contracts = await Contracts.make();
    await contracts.handler("greet");
    const outside = await mkdtemp(join(tmpdir(), "onex-outside-"));
    try {
      await writeFile(join(outside, "evil.mjs"), "export class Evil {}");
      await symlink(join(outside, "evil.mjs"), join(contracts.dir, "greet", "link.mjs"));
      const paths = [
        `../../${outside.split("/").at(-1) ?? ""}/evil.mjs`,
        `${outside}/evil.mjs`,
        "./link.mjs",
        "../../none.mjs",
      ];
      for (const path of paths) {
        expect(await codeOf(load(contracts, `${path}#Evil`))).toMatchObject({
          code: "HANDLER_LOADER_013",
          message: expect.stringContaining("leads out of the contracts directory"),
        });
      }
    } finally {
      await rm(outside, { recursive: true });
    }
  });

  test("HANDLER_LOADER_006: an export that is no class", async () => {
    await using contracts = await Contracts.make();
    await contracts.write(
      "greet/values.mjs",
      "export const text = 'x'; export const arrow = () => 1; export const nil = null;",
    );
    for (const name of ["text", "arrow", "nil"]) {
      expect(await codeOf(load(contracts, `./values.mjs#${name}`))).toMatchObject({
        code: "HANDLER_LOADER_006",
        message: expect.stringContaining("defineHandler"),
      });
    }
  });
});

describe("constructing a handler", () => {
  test("HANDLER_LOADER_006: what is missing of the interface is named", async () => {
    class Half {
      async initialize() {}
      async execute() {}
    }
    const failed = codeOf((async () => constructHandler(Half as never, "./half.mjs#Half", {}))());
    expect(await failed).toEqual({
      code: "HANDLER_LOADER_006",
      message: expect.stringMatching(
        /half\.mjs#Half is not a handler: it lacks handlerType, shutdown, healthCheck, describe$/,
      ),
    });
  });

  test("HANDLER_LOADER_006: a handlerId that could not stand in an answer", async () => {
    const Greet = defineHandler({ handlerType: "greet", operations: {} });
    class Numbered extends Greet {
      override readonly handlerId = 7n as never;
    }
    expect(await codeOf((async () => constructHandler(Numbered, "./n.mjs#Numbered", {}))())).toEqual({
      code: "HANDLER_LOADER_006",
      message: expect.stringMatching(
        /n\.mjs#Numbered is not a handler: it lacks a handlerId that is a string$/,
      ),
    });
  });

  test("methods may be fields", () => {
    class Fields {
      handlerType = "fields";
      initialize = async () => undefined;
      execute = async () => 1;
      shutdown = async () => undefined;
      healthCheck = async () => ({ healthy: true });
      describe = () => ({ handler_type: "fields" });
    }
    expect(constructHandler(Fields, "x", {}).handlerType).toBe("fields");
  });

  test("HANDLER_LOADER_012: a constructor that throws", async () => {
    class Bad {
      handlerType = "bad";
      constructor() {
        throw new Error("no luck");
      }
    }
    expect(await codeOf((async () => constructHandler(Bad as never, "x#Bad", {}))())).toMatchObject({
      code: "HANDLER_LOADER_012",
      message: expect.stringContaining("no luck"),
    });
  });
});

describe("a class in a package", () => {
  test("HANDLER_LOADER_013: a package that no allowed namespace covers", async () => {
    await using contracts = await Contracts.make();
    for (const handlerClass of [
      "acme-handlers#X",
      "node:fs#X",
      "file:///etc/x.mjs#X",
      "acmeevil#X",
      "acme/../evil#X",
    ]) {
      expect(await codeOf(load(contracts, handlerClass, { allowedNamespaces: ["acme"] }))).toMatchObject({
        code: "HANDLER_LOADER_013",
        message: expect.stringContaining("allowed_namespaces"),
      });
    }
  });

  test("what the caller has at hand is not imported, and the runtime's own name needs no permission", async () => {
    await using contracts = await Contracts.make();
    const Class = defineHandler({ handlerType: "mine", operations: {} });
    const own = new Map([["onex-runtime#HandlerMCP", async () => Class]]);
    expect(await load(contracts, "onex-runtime#HandlerMCP", { own })).toBe(Class);
  });

  // In a process of its own: inside the test runner bare specifiers are not resolved by Node alone.
  test("is found beside the contract where an allowed namespace covers it; else 010", async () => {
    await using contracts = await Contracts.make();
    await contracts.write(
      "node_modules/@acme/handlers/package.json",
      '{"name":"@acme/handlers","type":"module","exports":{".":"./index.js","./sub":"./sub.js"}}',
    );
    await contracts.write("node_modules/@acme/handlers/index.js", "export class Greet {}");
    await contracts.write("node_modules/@acme/handlers/sub.js", "export class Sub {}");
    await contracts.write(
      "node_modules/@acme/broken/package.json",
      '{"name":"@acme/broken","type":"module","exports":"./index.js"}',
    );
    await contracts.write("node_modules/@acme/broken/index.js", "import 'not-installed-anywhere';");
    const loader = new URL("../../src/runtime/loader.ts", import.meta.url).href;
    const script = await contracts.write(
      "try.mjs",
      `import { loadHandlerClass } from ${JSON.stringify(loader)};
       const tryOne = async (name) => {
         try {
           return (await loadHandlerClass(name, ${JSON.stringify(join(contracts.dir, "handler_contract.yaml"))}, { allowedNamespaces: ["@acme"] })).name;
         } catch (error) { return error.loaderCode; }
       };
       const names = ["@acme/handlers#Greet", "@acme/handlers/sub#Sub", "@acme/handlers/private#X", "@acme/none#X", "@acme/broken#X", "@acme/handlers#Gone"];
       console.log(JSON.stringify(await Promise.all(names.map(tryOne))));`,
    );
    const { stdout } = await promisify(execFile)(process.execPath, [script]);
    expect(JSON.parse(stdout)).toEqual([
      "Greet",
      "Sub",
      "HANDLER_LOADER_010",
      "HANDLER_LOADER_010",
      "HANDLER_LOADER_012",
      "HANDLER_LOADER_011",
    ]);
  });
});
