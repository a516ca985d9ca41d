/**
 * Checks arguments and results against a tool's schemas. Owns the compiled validators. Does not own: what a bad schema
 * at load time means, nor the sentences (`explain.ts`).
 *
 * 1. A validator is compiled on its first use and shared by all tools with an equal schema; the least recently used are
 *    given up. A compiled one holds its own Ajv, so giving it up frees everything.
 * 2. Nothing is fetched: an external `$ref` is an error.
 */
import { createHash } from "node:crypto";
import { Ajv, type ErrorObject, type Options, type ValidateFunction } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
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

const ajvOptions: Options = {
  // Contracts are other people's: an unknown keyword is theirs to have.
  strict: false,
  // Errors then carry the value and the schema around it.
  verbose: true,
  // Checked when the contract is loaded; here it would compile the meta-schema.
  validateSchema: false,
  addUsedSchema: false,
  logger: false,
};

class Compiled {
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
  const options = { ...ajvOptions, allErrors };
  const ajv = isDraft7(schema.$schema) ? new Ajv(options) : new Ajv2020(options);
  addFormats(ajv);
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
  /** Content -> validator, least recently used first. (1) */
  readonly #compiled = new Map<string, Compiled>();
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
    const known = this.#compiled.get(key);
    const compiled = known ?? new Compiled(schema);
    // Re-inserted, it is the youngest.
    if (known !== undefined) this.#compiled.delete(key);
    this.#compiled.set(key, compiled);
    if (this.#compiled.size > this.#capacity) {
      const [oldest] = this.#compiled.keys();
      if (oldest !== undefined) this.#compiled.delete(oldest);
    }
    return compiled;
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
