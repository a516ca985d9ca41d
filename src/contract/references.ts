/**
 * What contracts refer to: schema files and modules, as they are during one scan. Owns reading them once, within the
 * directory, and telling whether one has changed since an earlier scan.
 */
import { createHash } from "node:crypto";
import { realpath, stat } from "node:fs/promises";
import { extname } from "node:path";
import { messageOf } from "../core/errors.ts";
import { isInside, readContained, reasonOf } from "./load.ts";
import { parseYaml } from "./yaml.ts";

export type Reference = { readonly version: string } & (
  | { readonly ok: true; /** Absolute, links resolved. */ readonly file: string; readonly data?: unknown }
  | { readonly ok: false; readonly problem: string }
);

export type ReferenceKind = "schema" | "module";

const moduleTypes = [".ts", ".mts", ".js", ".mjs"];

export class References {
  readonly #root: string;
  readonly #seen = new Map<string, Promise<Reference>>();

  /** @param root the contracts directory, links resolved */
  constructor(root: string) {
    this.#root = root;
  }

  /** The file at an absolute path. A schema's version is its content, a module's only its place. */
  get(kind: ReferenceKind, path: string): Promise<Reference> {
    const key = `${kind} ${path}`;
    let reference = this.#seen.get(key);
    if (reference === undefined) {
      reference = kind === "schema" ? this.#schema(path) : this.#module(path);
      this.#seen.set(key, reference);
    }
    return reference;
  }

  async #schema(path: string): Promise<Reference> {
    try {
      const { file, bytes, hash } = await readContained(this.#root, path);
      const parsed = extname(path) === ".json" ? parseJson(bytes) : parseYaml(bytes);
      return parsed.ok
        ? { ok: true, version: hash, file, data: parsed.data }
        : failure(`${path} cannot be parsed: ${parsed.problem}`, hash);
    } catch (error) {
      return failure(reasonOf(error));
    }
  }

  async #module(path: string): Promise<Reference> {
    if (!moduleTypes.includes(extname(path))) {
      return failure(`${path} must be an ES module: ${moduleTypes.join(", ")}`);
    }
    try {
      const file = await realpath(path);
      if (!isInside(this.#root, file)) return failure(`${path} leads out of the contracts directory`);
      return (await stat(file)).isFile()
        ? { ok: true, version: file, file }
        : failure(`${path} is not a file`);
    } catch {
      return failure(`${path} does not exist`);
    }
  }
}

const failure = (problem: string, version = ""): Reference => ({
  ok: false,
  version: createHash("sha256").update(`${version} ${problem}`).digest("hex"),
  problem,
});

function parseJson(
  bytes: Buffer,
): { readonly ok: true; readonly data: unknown } | { readonly ok: false; readonly problem: string } {
  try {
    return { ok: true, data: JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as unknown };
  } catch (error) {
    return { ok: false, problem: messageOf(error) };
  }
}
