/** The project's Markdown files, and what tests look for in them. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

export const root = join(import.meta.dirname, "../..");

export interface Page {
  /** Relative to the root. */
  readonly path: string;
  readonly text: string;
}

/** Every Markdown file, but for what is installed, built or hidden. */
export function readPages(folder = root): Page[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.name.startsWith(".") || ["node_modules", "dist"].includes(entry.name)) return [];
    if (entry.isDirectory()) return readPages(path);
    if (!entry.name.endsWith(".md")) return [];
    return [{ path: relative(root, path), text: readFileSync(path, "utf8") }];
  });
}

export interface Block {
  readonly page: string;
  /** What stands behind the fence: `yaml contract`. */
  readonly info: string;
  readonly code: string;
}

const fence = /^( *)```([^\n`]*)\n(.*?)^\1```$/gms;

/** Fenced code. */
export const blocksOf = ({ path, text }: Page): Block[] =>
  [...text.matchAll(fence)].map(([, , info = "", code = ""]) => ({ page: path, info: info.trim(), code }));

const withoutBlocks = (text: string): string => text.replaceAll(fence, "");

/** Fenced and inline code, line by line. */
export function codeLines(page: Page): string[] {
  const inline = [...withoutBlocks(page.text).matchAll(/`([^`\n]+)`/g)].map(([, code = ""]) => code);
  return [...blocksOf(page).flatMap(({ code }) => code.split("\n")), ...inline];
}

export interface Link {
  readonly page: string;
  readonly target: string;
  /** Relative to the root. */
  readonly file: string;
  readonly anchor: string | undefined;
}

/** Links to files and headings of the project. */
export function linksOf({ path, text }: Page): Link[] {
  const prose = withoutBlocks(text).replaceAll(/`[^`\n]*`/g, (code) => code.replaceAll(/[[\]()]/g, ""));
  return [...prose.matchAll(/\]\(([^()\s]+)\)/g)]
    .map(([, target = ""]) => target)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [file = "", anchor] = target.split("#", 2);
      return { page: path, target, file: file === "" ? path : join(dirname(path), file), anchor };
    });
}

/** The anchors that a page's headings have on GitHub. */
export function anchorsOf({ text }: Page): Set<string> {
  const headings = [...withoutBlocks(text).matchAll(/^#{1,6} +(.+)$/gm)].map(([, title = ""]) => title);
  const seen = new Map<string, number>();
  return new Set(
    headings.map((title) => {
      const slug = title
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-");
      const before = seen.get(slug) ?? 0;
      seen.set(slug, before + 1);
      return before === 0 ? slug : `${slug}-${before}`;
    }),
  );
}

/** Cells of the table whose header row begins with these cells, without the header; code marks taken out. */
export function tableOf({ text }: Page, ...header: readonly string[]): string[][] {
  const rows = text.split("\n").map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll("`", "")),
  );
  const start = rows.findIndex((cells) => header.every((name, index) => cells[index] === name));
  if (start === -1) return [];
  const behind = rows.slice(start + 2);
  const end = behind.findIndex((cells) => cells.length === 0);
  return behind.slice(0, end === -1 ? undefined : end);
}
