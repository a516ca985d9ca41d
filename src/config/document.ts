/**
 * A YAML file as a value with its positions. Owns: variables and secrets in it, what type a value has that came from a
 * variable, and where each key stands. Does not own: which keys there may be.
 *
 * 1. A scalar that held a variable can be read in more than one way (`8090` is a number or a text). The first way is
 *    YAML's own, as if the text had stood there; `alternatives` has the others, for the schema to choose from.
 * 2. The value of a secret is taken as it is: never expanded, text first. It is listed in `secrets`.
 */
import {
  Alias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  Scalar,
  type Document,
  type Node,
} from "yaml";
import { expandVariables } from "../contract/expand.ts";
import { missingVariable, pathText, type ConfigIssue, type ConfigPath } from "../core/config-issues.ts";
import { messageOf, SecretResolutionError } from "../core/errors.ts";
import { isSecretPath } from "../core/redact.ts";
import { withPlaceholders, type Placeholders } from "./placeholders.ts";

export interface Position {
  readonly line: number;
  readonly column: number;
}

export interface ConfigDocument {
  readonly value: unknown;
  readonly issues: readonly (ConfigIssue & { readonly position?: Position })[];
  /** By `pathKey`. (1) */
  readonly alternatives: ReadonlyMap<string, readonly unknown[]>;
  /** Values that must not be shown. (2) */
  readonly secrets: ReadonlySet<string>;
  /** Of the key at `path`, else of the nearest key above it. */
  position(path: ConfigPath): Position | undefined;
}

export interface ReadOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The text of a file named by `${file:…}`. */
  readonly readSecretFile: (path: string) => string;
}

export const pathKey = (path: ConfigPath): string => JSON.stringify(path);

/** Reads the text of a configuration file. Never throws: what is wrong is in `issues`. */
export function readDocument(text: string, options: ReadOptions): ConfigDocument {
  const lines = new LineCounter();
  const placeholders = withPlaceholders(text);
  const document = parseDocument(placeholders.text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { line, column: col };
  };
  const problems = syntaxProblems(document);
  if (problems.length > 0) {
    return {
      value: undefined,
      issues: problems.map(({ message, offset }) => ({ path: [], message, position: at(offset) })),
      alternatives: new Map(),
      secrets: new Set(),
      position: () => undefined,
    };
  }
  const reader = new Reader(document, placeholders, options);
  const value = reader.read(document.contents, [], []);
  return {
    value,
    issues: reader.issues,
    alternatives: reader.alternatives,
    secrets: reader.secrets,
    position(path) {
      for (let length = path.length; length >= 0; length -= 1) {
        const offset = reader.offsets.get(pathKey(path.slice(0, length)));
        if (offset !== undefined) return at(offset);
      }
      return undefined;
    },
  };
}

/** Of the errors that follow from an earlier one only the earliest is of use. Their text may hold a secret: it is cut. */
function syntaxProblems(document: Document.Parsed): { message: string; offset: number }[] {
  return [...document.errors, ...document.warnings]
    .filter(({ code }, index) => index === 0 || code !== "UNEXPECTED_TOKEN")
    .map(({ code, message, pos }) => ({
      message: `This is not valid YAML: ${code === "UNEXPECTED_TOKEN" ? message.replace(/:.*$/s, "") : message}`,
      offset: pos[0],
    }));
}

class Reader {
  readonly issues: ConfigIssue[] = [];
  readonly alternatives = new Map<string, readonly unknown[]>();
  readonly secrets = new Set<string>();
  readonly offsets = new Map<string, number>();
  readonly #document: Document.Parsed;
  readonly #placeholders: Placeholders;
  readonly #options: ReadOptions;

  constructor(document: Document.Parsed, placeholders: Placeholders, options: ReadOptions) {
    this.#document = document;
    this.#placeholders = placeholders;
    this.#options = options;
  }

  read(node: Node | null, path: ConfigPath, parents: readonly Node[]): unknown {
    if (node === null) return null;
    const key = pathKey(path);
    if (!this.offsets.has(key) && node.range) this.offsets.set(key, node.range[0]);
    if (parents.includes(node)) {
      this.issues.push({ path, message: `Config key '${pathText(path)}' contains itself by an alias.` });
      return undefined;
    }
    const inside = [...parents, node];
    if (node instanceof Alias) return this.read(node.resolve(this.#document) ?? null, path, inside);
    if (isSeq<Node>(node)) return node.items.map((item, index) => this.read(item, [...path, index], inside));
    if (isMap<Node, Node | null>(node)) {
      return Object.fromEntries(
        node.items.map((pair) => {
          const written = this.#placeholders.restore(
            isScalar(pair.key) ? String(pair.key.value) : String(pair.key),
          );
          const name = written.includes("${") ? this.#expand(written, path).text : written;
          const below = [...path, name];
          if (pair.key.range) this.offsets.set(pathKey(below), pair.key.range[0]);
          return [name, this.read(pair.value, below, inside)];
        }),
      );
    }
    return isScalar(node) ? this.#scalar(node, path) : undefined;
  }

  #scalar(node: Scalar, path: ConfigPath): unknown {
    if (typeof node.value !== "string") return node.value;
    const value = this.#placeholders.restore(node.value);
    if (!value.includes("${")) return value;
    const { text, hasSecret } = this.#expand(value, path);
    const textFirst = hasSecret || node.type !== Scalar.PLAIN || isSecretPath(path);
    const [first, ...others] = readings(text, textFirst);
    this.alternatives.set(pathKey(path), others);
    return first;
  }

  #expand(source: string, path: ConfigPath): { text: string; hasSecret: boolean } {
    const references: string[] = [];
    // Put aside, so that a secret may stand in a default and its value is not expanded.
    const marked = source.replaceAll(/\$\{((?:env|file):[^}]*)\}/g, (_whole, reference: string) => {
      references.push(reference);
      return `\u0000${references.length - 1}\u0000`;
    });
    const expansion = expandVariables(marked, this.#options.env);
    for (const name of expansion.missing) this.issues.push(missingVariable(path, name));
    let hasSecret = false;
    // eslint-disable-next-line no-control-regex -- NUL cannot occur in YAML, which makes it a safe mark
    const text = expansion.text.replaceAll(/\u0000(\d+)\u0000/g, (_whole, index: string) => {
      hasSecret = true;
      return this.#secret(references[Number(index)] ?? "", path);
    });
    return { text, hasSecret };
  }

  #secret(reference: string, path: ConfigPath): string {
    try {
      const secret = resolveSecret(reference, this.#options);
      this.secrets.add(secret);
      return secret;
    } catch (error) {
      this.issues.push({ path, message: messageOf(error) });
      return "";
    }
  }
}

/**
 * The value of `env:NAME` or `file:PATH`; the line end at the end of a file is not part of it.
 *
 * @throws SecretResolutionError where there is none, or an empty one
 */
function resolveSecret(reference: string, options: ReadOptions): string {
  const name = reference.slice(reference.indexOf(":") + 1).trim();
  if (reference.startsWith("env:")) {
    const value = options.env[name];
    if (value === undefined || value === "")
      throw new SecretResolutionError(`Secret \${${reference}} could not be resolved: ${name} is not set.`);
    return value;
  }
  let value: string;
  try {
    value = options.readSecretFile(name).replace(/\r?\n$/, "");
  } catch (error) {
    throw new SecretResolutionError(`Secret \${${reference}} could not be resolved: ${messageOf(error)}.`, {
      cause: error,
    });
  }
  if (value === "")
    throw new SecretResolutionError(`Secret \${${reference}} could not be resolved: ${name} is empty.`);
  return value;
}

/** What a text from outside YAML can be read as, the likeliest first. (1) */
export function readings(text: string, textFirst: boolean): unknown[] {
  const scalar = yamlScalar(text);
  const list = text.split(",").map((item) => item.trim());
  const lists = [list.every((item) => item === "") ? [] : list];
  if (scalar === text) return [text, ...lists];
  return textFirst ? [text, scalar, ...lists] : [scalar, text, ...lists];
}

/** YAML's core schema for plain scalars; a text that is none of its words or numbers stays a text. */
function yamlScalar(text: string): string | number | boolean | null {
  if (/^(|~|null|Null|NULL)$/.test(text)) return null;
  if (/^(true|True|TRUE)$/.test(text)) return true;
  if (/^(false|False|FALSE)$/.test(text)) return false;
  return /^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$/.test(text) ? Number(text) : text;
}
