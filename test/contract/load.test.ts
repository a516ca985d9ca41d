import { execFileSync } from "node:child_process";
import { truncate } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { maxFileBytes, readContractFile, scanContracts } from "../../src/contract/load.ts";
import { HandlerLoadError } from "../../src/core/errors.ts";
import { tempFolder } from "./folder.ts";

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return error instanceof HandlerLoadError ? `${error.loaderCode.slice(-3)} ${error.message}` : "no error";
}

describe("one file", () => {
  test("is parsed, with the hash of its bytes", async () => {
    await using folder = await tempFolder();
    await folder.write("a/contract.yaml", "base: &b {x: 1}\nname: tool\nother:\n  <<: *b\n  y: yes\n");
    const file = await readContractFile(folder.path, "a/contract.yaml");
    expect(file).toMatchObject({
      path: "a/contract.yaml",
      file: folder.at("a/contract.yaml"),
      data: { name: "tool", other: { x: 1, y: "yes" } },
      hash: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
  });

  test.each([
    ["a syntax error", "a: [1\n", "line 2, column 1"],
    ["a duplicate key", "a: 1\nb: 2\na: 3\n", "line 3, column 1"],
    ["two documents", "a: 1\n---\nb: 2\n", "line 2"],
    ["an alias to nothing", "a: *none\n", "line 1, column 4"],
    ["bytes that are not UTF-8", Buffer.from([0x61, 0x3a, 0x20, 0xff]), "not UTF-8"],
    ["an anchor that contains itself", "a: &a [*a]\n", "levels deep"],
    ["endless nesting", "[".repeat(100_000), "levels deep"],
    ["nesting that still parses", `${"[".repeat(300)}${"]".repeat(300)}`, "levels deep"],
    [
      "an alias bomb",
      Array.from(
        { length: 12 },
        (_, i) =>
          `a${i}: &a${i} [${
            i === 0
              ? "x"
              : Array(9)
                  .fill(`*a${i - 1}`)
                  .join(", ")
          }]\n`,
      ).join(""),
      "Excessive alias count",
    ],
  ])("%s is error 002 and says where", async (_, text, where) => {
    await using folder = await tempFolder();
    await folder.write("contract.yaml", text);
    const error = await codeOf(readContractFile(folder.path, "contract.yaml"));
    expect(error).toMatch(/^002 /);
    expect(error).toContain(where);
  });

  test("errors name the code: absent 001, too large 005, a folder 007", async () => {
    await using folder = await tempFolder();
    await folder.write("folder/x", "");
    await folder.write("large.yaml", "a: 1");
    await truncate(folder.at("large.yaml"), maxFileBytes + 1);
    expect(await codeOf(readContractFile(folder.path, "none.yaml"))).toMatch(/^001 .*none\.yaml/);
    expect(await codeOf(readContractFile(folder.path, "large.yaml"))).toMatch(/^005 .*10485761/);
    expect(await codeOf(readContractFile(folder.path, "folder"))).toMatch(/^007 /);
  });

  test("a named pipe is 007 and does not hang", async () => {
    await using folder = await tempFolder();
    execFileSync("mkfifo", [folder.at("contract.yaml")]);
    expect(await codeOf(readContractFile(folder.path, "contract.yaml"))).toMatch(/^007 /);
  });

  test("nothing outside the directory is read, by a link or by a path", async () => {
    await using folder = await tempFolder();
    await folder.write("secret.yaml", "a: 1");
    await folder.write("contracts-2/contract.yaml", "a: 1");
    await folder.link("../secret.yaml", "contracts/contract.yaml");
    await folder.link("..", "contracts/up");
    const contracts = folder.at("contracts");
    expect(await codeOf(readContractFile(contracts, "contract.yaml"))).toMatch(/^008 .*leads out/);
    expect(await codeOf(readContractFile(contracts, "../secret.yaml"))).toMatch(/^008 .*leads out/);
    expect(await codeOf(readContractFile(contracts, "up/secret.yaml"))).toMatch(/^008 .*leads out/);
    expect(await codeOf(readContractFile(contracts, "../contracts-2/contract.yaml"))).toMatch(
      /^008 .*leads out/,
    );
  });
});

describe("a scan", () => {
  test("finds files at any depth in one order, without node_modules and hidden folders", async () => {
    await using folder = await tempFolder();
    for (const path of ["b", "a/deep/er", "a-b", "node_modules/x", ".git", "a/.hidden/x", "Z"]) {
      await folder.write(`${path}/contract.yaml`, "a: 1");
    }
    await folder.write("contract.yaml", "a: 1");
    await folder.write("b/handler_contract.yaml", "a: 1");
    await folder.write("b/contract.yaml.bak", "a: 1");
    const { files, failures } = await scanContracts(folder.path, "contract.yaml");
    expect(files.map((file) => file.path)).toEqual([
      "Z/contract.yaml",
      "a-b/contract.yaml",
      "a/deep/er/contract.yaml",
      "b/contract.yaml",
      "contract.yaml",
    ]);
    expect(failures).toEqual([]);
  });

  test("a bad file never stops it, and is in the report with code and reason", async () => {
    await using folder = await tempFolder();
    await folder.write("a/handler_contract.yaml", "a: [");
    await folder.write("b/handler_contract.yaml/x", "a folder of that name");
    await folder.link("nowhere", "c/handler_contract.yaml");
    await folder.write("d/handler_contract.yaml", "a: 1");
    const { files, failures } = await scanContracts(folder.path, "handler_contract.yaml");
    expect(files.map((file) => file.path)).toEqual(["d/handler_contract.yaml"]);
    expect(failures.map(({ path, kind, outcome, code }) => [path, kind, outcome, code])).toEqual([
      ["a/handler_contract.yaml", "handler", "failed", "HANDLER_LOADER_002"],
      ["b/handler_contract.yaml", "handler", "failed", "HANDLER_LOADER_007"],
      ["c/handler_contract.yaml", "handler", "failed", "HANDLER_LOADER_001"],
    ]);
    expect(failures.every(({ reason }) => reason !== undefined && reason !== "")).toBe(true);
  });

  test("follows links that stay inside, each folder once, and reports those that lead out", async () => {
    await using folder = await tempFolder();
    await folder.write("c/real/contract.yaml", "a: 1");
    await folder.link("real", "c/again");
    await folder.link("..", "c/real/circle");
    await folder.write("c/.v1/nodes/contract.yaml", "a: 1");
    await folder.link(".v1/nodes", "c/nodes");
    await folder.write("outside/contract.yaml", "a: 1");
    await folder.link("../outside", "c/out");
    const { files, failures } = await scanContracts(folder.at("c"), "contract.yaml");
    expect(files.map((file) => file.path)).toEqual(["nodes/contract.yaml", "real/contract.yaml"]);
    expect(failures).toMatchObject([
      { path: "out", outcome: "skipped", reason: expect.stringContaining("out of") },
    ]);
  });

  test("reads a volume as Kubernetes lays it out", async () => {
    await using folder = await tempFolder();
    await folder.write("..2024/contract.yaml", "a: 1");
    await folder.link("..2024", "..data");
    await folder.link("..data/contract.yaml", "contract.yaml");
    const { files } = await scanContracts(folder.path, "contract.yaml");
    expect(files.map((file) => [file.path, file.file])).toEqual([
      ["contract.yaml", folder.at("..2024/contract.yaml")],
    ]);
  });

  test("the directory itself: absent 020 names `onex init`, not a directory 022", async () => {
    await using folder = await tempFolder();
    await folder.write("file", "");
    expect(await codeOf(scanContracts(folder.at("none"), "contract.yaml"))).toMatch(/^020 .*none.*onex init/);
    expect(await codeOf(scanContracts(folder.at("file"), "contract.yaml"))).toMatch(/^022 /);
    expect(await codeOf(scanContracts(folder.at("file/below"), "contract.yaml"))).toMatch(/^022 /);
  });

  test("what has the same bytes as before is not parsed again", async () => {
    await using folder = await tempFolder();
    await folder.write("a/contract.yaml", "a: 1");
    await folder.write("b/contract.yaml", "a: 1");
    const first = await scanContracts(folder.path, "contract.yaml");
    await folder.write("b/contract.yaml", "a: 2");
    const known = new Map(first.files.map((file) => [file.path, file]));
    const second = await scanContracts(folder.path, "contract.yaml", known);
    expect(second.files[0]).toBe(first.files[0]);
    expect(second.files[1]?.data).toEqual({ a: 2 });
  });
});
