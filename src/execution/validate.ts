/**
 * Checks arguments and results against a tool's schemas. Owns the compiled validators. Does not own: what a bad schema
 * at load time means, nor the sentences (`explain.ts`).
 *
 * 1. A validator is compiled on its first use and shared by all tools with an equal schema; the least recently used are
 *    given up. A compiled one holds its own Ajv, so giving it up frees everything.
 * 2. Nothing is fetched: an external `$ref` is an error.
 * 3. What a value costs grows with its size and not faster, as far as that can be had: `uniqueItems` compares by a set,
 *    and a pattern that backtracks too long goes on in V8's linear engine. What that engine lacks is still the
 *    contract's own risk: lookaround, backreferences, large counts (`{1,200}`), `\p{…}`, characters beyond U+FFFF.
 */
import { createHash } from "node:crypto";
import { setFlagsFromString } from "node:v8";
import { Ajv, type ErrorObject, type FuncKeywordDefinition, type Options, type ValidateFunction } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import type { DataValidateFunction } from "ajv/dist/types/index.js";
import addFormatsModule from "ajv-formats";
import { messageOf, ProtocolConfigurationError, RuntimeHostError } from "../core/errors.ts";
import type { JsonValue } from "../core/json.ts";
import { failureResult, type ToolResult } from "../tools/call.ts";
import type { JsonSchema, Tool } from "../tools/tool.ts";
import { explain, pathsOf } from "./explain.ts";
import { measure, type Measure } from "./limits.ts";

/** Bytes of a call's arguments. */
export const maxArgumentBytes = 1024 * 1024;
/** Objects and arrays one inside the other; the arguments object is the first. */
const maxArgumentDepth = 10;

/**
 * Up to this many bytes all problems are reported. In a megabyte of wrong items every item is an error object of its own
 * and Ajv has no bound: beyond this size it stops at the first problem.
 */
const maxBytesForAllErrors = 16 * 1024;

/** A compiled validator takes about 80 kB. */
const defaultCapacity = 1000;

/** A failed check: `text` is for the caller, `paths`, which hold no values, for the log. */
export interface Invalid {
  readonly text: string;
  readonly paths: readonly string[];
}

/** The package is CommonJS: TypeScript sees a namespace where Node gives the function. */
const addFormats = addFormatsModule as unknown as typeof addFormatsModule.default;

/** What only the "u" flag understands, or what tells characters beyond U+FFFF from each other or from U+FFFF. */
const needsUnicode =
  /\\[pP]|\\u\{|\\u[dD][89a-fA-F]|\\u[fF]{4}|\\k<|\\[1-9]|\(\?[ims-]|[\ud800-\udfff\uffff]/;
const astral = /[\ud800-\udbff][\udc00-\udfff]/g;

/**
 * A `pattern`, which by JSON Schema has the "u" flag. V8's linear engine does not know that flag, so a pattern that means
 * the same without it is built without. All that is lost is that a character beyond U+FFFF is one; to such a pattern they
 * are all alike, and like U+FFFF, which stands in for them. (3)
 */
class Pattern {
  readonly #source: string;
  readonly #expression: RegExp;
  readonly #isPlain: boolean;

  /** @throws SyntaxError where it is not an expression under the "u" flag */
  constructor(source: string) {
    const unicode = new RegExp(source, "u");
    this.#source = source;
    this.#isPlain = !needsUnicode.test(source);
    this.#expression = this.#isPlain ? new RegExp(source) : unicode;
  }

  test(text: string): boolean {
    return this.#expression.test(this.#isPlain ? text.replace(astral, "\uffff") : text);
  }

  /** By this Ajv tells patterns apart. */
  toString(): string {
    return `/${this.#source}/u`;
  }
}

let hasLinearEngine = false;

/** For the whole process, and for expressions that run for the first time after it. */
function useLinearEngine(): void {
  if (hasLinearEngine) return;
  hasLinearEngine = true;
  setFlagsFromString("--enable-experimental-regexp-engine-on-excessive-backtracks");
}

/** Ajv's own compares every two items that are not scalars. (3) */
const uniqueItems: FuncKeywordDefinition = {
  keyword: "uniqueItems",
  type: "array",
  schemaType: "boolean",
  compile: (wanted: boolean) => {
    const validate: DataValidateFunction = (items: readonly unknown[]) => {
      const found = wanted ? firstRepeated(items) : undefined;
      if (found === undefined) return true;
      const { i, j } = found;
      const message = `must NOT have duplicate items (items ## ${j} and ${i} are identical)`;
      validate.errors = [{ keyword: "uniqueItems", params: found, message }];
      return false;
    };
    return validate;
  },
};

/** The first item, `i`, that equals an earlier one, `j`. */
function firstRepeated(items: readonly unknown[]): { readonly i: number; readonly j: number } | undefined {
  const seen = new Map<unknown, number>();
  for (const [i, item] of items.entries()) {
    // The quote keeps a text apart from the text of an object.
    const key =
      typeof item === "string"
        ? `"${item}`
        : typeof item === "object" && item !== null
          ? canonical(item)
          : item;
    const j = seen.get(key);
    if (j !== undefined) return { i, j };
    seen.set(key, i);
  }
  return undefined;
}

/** JSON text that is the same for values that are equal: object members in one order. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join(",")}}`;
}

const ajvOptions: Options = {
  // Contracts are other people's: an unknown keyword is theirs to have.
  strict: false,
  // Errors then carry the value and the schema around it.
  verbose: true,
  // Checked when the contract is loaded; here it would compile the meta-schema.
  validateSchema: false,
  logger: false,
  code: { regExp: Object.assign((source: string) => new Pattern(source), { code: "pattern" }) },
};

class Compiled {
  /** Grows with every use of any. */
  usedAt = 0;
  readonly #schema: JsonSchema;
  #all: ValidateFunction | undefined;
  #first: ValidateFunction | undefined;

  constructor(schema: JsonSchema) {
    this.#schema = schema;
  }

  check(value: unknown, allErrors: boolean): readonly ErrorObject[] | undefined {
    const validate = allErrors
      ? (this.#all ??= compile(this.#schema, true))
      : (this.#first ??= compile(this.#schema, false));
    return validate(value) ? undefined : (validate.errors ?? []);
  }
}

function compile(schema: JsonSchema, allErrors: boolean): ValidateFunction {
  useLinearEngine();
  const options = { ...ajvOptions, allErrors };
  const ajv = isDraft7(schema.$schema) ? new Ajv(options) : new Ajv2020(options);
  addFormats(ajv);
  ajv.removeKeyword("uniqueItems");
  ajv.addKeyword(uniqueItems);
  return ajv.compile(schema);
}

/** @throws Error where the dialect is neither JSON Schema 2020-12, the default, nor draft-07 */
function isDraft7(dialect: unknown): boolean {
  if (dialect === undefined) return false;
  const text = typeof dialect === "string" ? dialect : "";
  if (text.includes("/draft-07/")) return true;
  if (text.includes("/2020-12/")) return false;
  throw new Error(
    `its dialect is ${JSON.stringify(dialect)}; supported are JSON Schema 2020-12 and draft-07`,
  );
}

export class Validators {
  readonly #capacity: number;
  /** By content. (1) */
  readonly #compiled = new Map<string, Compiled>();
  #uses = 0;
  /** Spares the hash of a schema object seen before. */
  readonly #keys = new WeakMap<JsonSchema, string>();

  constructor(capacity = defaultCapacity) {
    this.#capacity = capacity;
  }

  /** How many validators are held. */
  get size(): number {
    return this.#compiled.size;
  }

  /**
   * Undefined where `args` satisfy the limits and the tool's input schema.
   *
   * @throws RuntimeHostError where the schema cannot be compiled
   */
  checkArguments(tool: Tool, args: Readonly<Record<string, unknown>>): Invalid | undefined {
    const size = measure(args, maxArgumentBytes, maxArgumentDepth);
    if (size.kind !== "ok") return sizeProblem(size);
    const errors = this.#check(tool, "input", tool.inputSchema, args, size.bytes <= maxBytesForAllErrors);
    return errors && { text: explain(errors).join("; "), paths: pathsOf(errors) };
  }

  /**
   * The first reason why a result's structured content breaks `schema`, if any.
   *
   * @throws RuntimeHostError where the schema cannot be compiled
   */
  checkOutput(tool: Tool, schema: JsonSchema, value: JsonValue | undefined): Invalid | undefined {
    if (value === undefined) return { text: "there is no structured content", paths: [] };
    const errors = this.#check(tool, "output", schema, value, false);
    return errors && { text: explain(errors).join("; "), paths: pathsOf(errors) };
  }

  /** Gives up every validator whose schema no tool of `tools` has. */
  retain(tools: readonly Tool[]): void {
    if (this.#compiled.size === 0) return;
    const wanted = new Set<string>();
    for (const tool of tools) {
      for (const schema of [tool.inputSchema, tool.outputSchema]) {
        const key = schema && this.#keys.get(schema);
        if (key !== undefined) wanted.add(key);
      }
    }
    for (const key of this.#compiled.keys()) if (!wanted.has(key)) this.#compiled.delete(key);
  }

  #check(
    tool: Tool,
    side: "input" | "output",
    schema: JsonSchema,
    value: unknown,
    allErrors: boolean,
  ): readonly ErrorObject[] | undefined {
    const compiled = this.#validatorOf(schema);
    try {
      return compiled.check(value, allErrors);
    } catch (error) {
      throw new RuntimeHostError(`The ${side} schema of "${tool.name}" cannot be used: ${messageOf(error)}`, {
        cause: error,
        facts: { tool_name: tool.name },
      });
    }
  }

  #validatorOf(schema: JsonSchema): Compiled {
    let key = this.#keys.get(schema);
    if (key === undefined) {
      key = createHash("sha256").update(JSON.stringify(schema)).digest("base64");
      this.#keys.set(schema, key);
    }
    let compiled = this.#compiled.get(key);
    if (compiled === undefined) {
      compiled = new Compiled(schema);
      this.#compiled.set(key, compiled);
      if (this.#compiled.size > this.#capacity) this.#giveUpOldest(compiled);
    }
    compiled.usedAt = ++this.#uses;
    return compiled;
  }

  #giveUpOldest(newest: Compiled): void {
    let oldest: string | undefined;
    let usedAt = Infinity;
    for (const [key, compiled] of this.#compiled) {
      if (compiled === newest || compiled.usedAt >= usedAt) continue;
      oldest = key;
      usedAt = compiled.usedAt;
    }
    if (oldest !== undefined) this.#compiled.delete(oldest);
  }
}

function sizeProblem(size: Exclude<Measure, { readonly kind: "ok" }>): Invalid {
  switch (size.kind) {
    case "too-large":
      return { text: `larger than ${maxArgumentBytes} bytes`, paths: [] };
    case "too-deep":
      return {
        text: `${size.path}: nested deeper than ${maxArgumentDepth} levels`,
        paths: [size.path],
      };
    case "not-json":
      return { text: `${size.path}: a ${size.type} is not a JSON value`, paths: [size.path] };
  }
}

/** The answer to a call whose arguments do not pass. The error's own message holds no values: it may be logged. */
export function invalidArguments(tool: Tool, { text, paths }: Invalid): ToolResult {
  const where =
    paths.length === 0 ? "" : ` at ${paths.map((path) => (path === "" ? "the top" : path)).join(", ")}`;
  const failure = new ProtocolConfigurationError(`Invalid arguments for "${tool.name}"${where}`, {
    facts: { operation: "call_tool", tool_name: tool.name },
  });
  return failureResult(failure, `Invalid arguments for "${tool.name}": ${text}`);
}
