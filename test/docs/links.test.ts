/** What the documentation says can be followed, typed and copied. */
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { runtimeConfigIssues } from "../../src/config/schema.ts";
import { parseHandlerContract } from "../../src/contract/handler.ts";
import { scanNodes } from "../../src/contract/node-scan.ts";
import { isObject } from "../../src/core/json.ts";
import { folder, run } from "../cli/cli.ts";
import { anchorsOf, blocksOf, codeLines, linksOf, readPages, root, type Block } from "./markdown.ts";

const pages = readPages();
const blocks = pages.flatMap(blocksOf);
const blocksCalled = (info: string): [string, Block][] =>
  blocks
    .filter((block) => block.info === info)
    .map((block) => [`${block.page}: ${block.code.slice(0, 60).replaceAll(/\s+/g, " ")}`, block]);

describe("links", () => {
  it("were found", () => {
    expect(pages.map(({ path }) => path)).toEqual(expect.arrayContaining(["README.md", "docs/tools.md"]));
    expect(pages.flatMap(linksOf).length).toBeGreaterThan(20);
  });

  it("lead to files that exist", () => {
    const dead = pages.flatMap(linksOf).filter(({ file }) => !existsSync(join(root, file)));
    expect(dead).toEqual([]);
  });

  it("lead to headings that exist", () => {
    const anchors = new Map(pages.map((page) => [page.path, anchorsOf(page)]));
    const dead = pages
      .flatMap(linksOf)
      .filter(({ file, anchor }) => anchor !== undefined && anchors.get(file)?.has(anchor) !== true);
    expect(dead).toEqual([]);
  });

  it("reach every page of docs/ from the README", () => {
    const readme = pages.filter(({ path }) => path === "README.md").flatMap(linksOf);
    const missing = pages
      .map(({ path }) => path)
      .filter((path) => path.startsWith("docs/") && !readme.some(({ file }) => file === path));
    // Of interest to those who work on the runtime itself; its own links lead there.
    expect(missing.filter((path) => path !== "docs/requirements.md")).toEqual([]);
  });
});

it("every onex command in the documentation exists, with its options", async () => {
  const used = pages.flatMap((page) =>
    codeLines(page).flatMap((line) => {
      const [, command, rest = ""] = /(?:^|[\s/])onex ([a-z]+)(?![\w.:-])(.*)$/.exec(line) ?? [];
      if (command === undefined) return [];
      const options = [...rest.replace(/[|#].*$/, "").matchAll(/(?<=\s)--?[a-z][a-z-]*/g)].map(
        ([name]) => name,
      );
      return [{ page: page.path, command, options }];
    }),
  );
  const names = [...new Set(used.map(({ command }) => command))];
  expect(names).toEqual(expect.arrayContaining(["serve", "stdio", "check", "tools", "call", "send", "init"]));
  const cwd = await folder();
  const help = new Map(
    await Promise.all(names.map(async (name) => [name, await run(cwd, [name, "--help"])] as const)),
  );
  const unknown = used.filter(({ command, options }) => {
    const text = help.get(command)?.stdout ?? "";
    // For an unknown command the program's own help is shown.
    if (!text.startsWith(`Usage: onex ${command} `)) return true;
    return options.some((option) => !new RegExp(`${option}\\b`).test(text));
  });
  expect(unknown).toEqual([]);
});

describe("examples of node contracts", () => {
  it.each(blocksCalled("yaml contract"))("%s", async (_title, { code }) => {
    const contract: unknown = parse(code);
    const execution = isObject(contract) && isObject(contract.mcp) ? contract.mcp.execution : undefined;
    const directory = await folder({ "contract.yaml": code });
    if (isObject(execution) && typeof execution.module === "string") {
      const module = join(directory, execution.module);
      await mkdir(dirname(module), { recursive: true });
      await writeFile(module, "");
    }
    const { entries } = await scanNodes({ directory, env: {} });
    expect(entries).toEqual([expect.objectContaining({ outcome: "loaded" })]);
    expect(entries[0]).not.toHaveProperty("informational");
  });
});

describe("examples of handler contracts", () => {
  it.each(blocksCalled("yaml handler"))("%s", (_title, { code }) => {
    expect(parseHandlerContract(parse(code))).toMatchObject({ ok: true, contract: { informational: [] } });
  });
});

describe("examples of the configuration", () => {
  it.each(blocksCalled("yaml config"))("%s", (_title, { code }) => {
    const issues = runtimeConfigIssues(parse(code)).map(({ message }) => message);
    // An example shows a part of the file.
    expect(issues.filter((message) => !message.startsWith("Missing required config"))).toEqual([]);
  });
});
