/**
 * A node contract that comes from Consul's key-value store. Owns what it may say of a service's tool. Does not own: which
 * contract belongs to which instance, or where the instances are.
 *
 * 1. Its text is never expanded: `${HOME}` stays what it is.
 * 2. It names neither code nor files of this machine, nor servers: instances come from Consul.
 * 3. What it does not say is absent: the defaults are the catalog's.
 * 4. A text that would cost the parser seconds or hundreds of megabytes is refused before: anyone may have written it.
 */
import type { JsonObject, JsonValue } from "../core/json.ts";
import { isObject, typeName } from "../core/json.ts";
import { withoutNulls } from "../core/config-issues.ts";
import { type Annotations, annotationsOf, type Icon, iconsOf, tagsOf } from "./hints.ts";
import { type NormalisedSchema, normaliseInputSchema, normaliseOutputSchema } from "./input-schema.ts";
import { type ExecutionDocument, type NodeContractDocument, nodeContractSchema } from "./node.ts";
import { onexExecution, restExecution } from "./node-execution.ts";
import { type Problem, problemsOf, problemText, valueText } from "./problems.ts";
import { parseYaml } from "./yaml.ts";

/** How the service's instances are called; where is theirs to say. */
export type RemoteExecution =
  | { readonly kind: "onex"; /** Below the instance's URL; empty: that itself. */ readonly path: string }
  | {
      readonly kind: "rest";
      readonly method: string;
      /** After the instance's URL: empty, or a path that begins with `/`. */
      readonly url: string;
      readonly query?: Readonly<Record<string, JsonValue>>;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: JsonValue;
      readonly result?: string;
    };

/** What a remote contract says of its tool. */
export interface RemoteDefinition {
  readonly title?: string;
  readonly description?: string;
  readonly version?: string;
  /** Normalised. */
  readonly inputSchema?: JsonObject;
  readonly outputSchema?: JsonObject;
  readonly annotations?: Annotations;
  readonly icons?: readonly Icon[];
  readonly tags?: readonly string[];
  readonly timeoutSeconds?: number;
  readonly execution?: RemoteExecution;
}

export type RemoteReading =
  | { readonly ok: true; readonly definition: RemoteDefinition; readonly notes: readonly string[] }
  | { readonly ok: false; readonly reason: string };

/**
 * Reads a node contract's YAML or JSON. Never throws: what is wrong with it is the reason, all of it at once.
 *
 * @param bytes UTF-8
 */
export function readRemoteContract(bytes: Uint8Array): RemoteReading {
  const excess = excessOf(bytes);
  if (excess !== undefined) return { ok: false, reason: excess };
  const parsed = parseYaml(bytes);
  if (!parsed.ok) return { ok: false, reason: parsed.problem };
  if (!isObject(parsed.data)) {
    // Of a text that is no contract nothing is shown: whoever names the key may not be one who may read it.
    return { ok: false, reason: `expected the keys of a node contract, got ${typeName(parsed.data)}` };
  }
  const document = prepared(parsed.data);
  const problems: Problem[] = [];
  const result = nodeContractSchema.safeParse(document);
  if (!result.success) return refused(problemsOf(result.error, document));
  const { mcp } = result.data;
  const notes: string[] = [...parsed.warnings];
  if (mcp.expose === false) {
    problems.push({ path: ["mcp", "expose"], message: "is false, but the instance is tagged as a tool" });
  }
  const isGiven = isObject(parsed.data.mcp) && parsed.data.mcp.execution != null;
  const execution = isGiven ? remoteExecution(mcp.execution, problems) : undefined;
  const inputSchema = schemaOf("input_schema", mcp.input_schema, normaliseInputSchema, notes, problems);
  const outputSchema = schemaOf("output_schema", mcp.output_schema, normaliseOutputSchema, notes, problems);
  if (problems.length > 0) return refused(problems);
  const definition: RemoteDefinition = {
    ...plainParts(result.data, notes),
    ...(inputSchema !== undefined && { inputSchema }),
    ...(outputSchema !== undefined && { outputSchema }),
    ...(execution !== undefined && { execution }),
  };
  return { ok: true, definition, notes };
}

/** Twice what Consul stores under a key. */
const maxBytes = 1024 * 1024;
/** Far above any contract's: those in texts count too, where they need no partner. */
const maxUnpaired = 1000;
/** `- - - -` at the start of a line: each is a level. */
const maxMarks = 200;

/** `-`, `?` and `:`. */
const listMarks: ReadonlySet<number> = new Set([0x2d, 0x3f, 0x3a]);
const isBlank = (byte: number | undefined): boolean => byte === 0x20 || byte === 0x09;

/** What is too much of it, found in one cheap pass over the bytes. (4) */
function excessOf(bytes: Uint8Array): string | undefined {
  if (bytes.length > maxBytes) return `it has ${bytes.length} bytes, at most ${maxBytes} are read`;
  let depth = 0;
  let marks = 0;
  let isAtStart = true;
  for (const [at, byte] of bytes.entries()) {
    if (byte === 0x5b || byte === 0x7b) depth += 1;
    else if (byte === 0x5d || byte === 0x7d) depth -= 1;
    if (Math.abs(depth) > maxUnpaired) return `more than ${maxUnpaired} of its brackets have no partner`;
    if (byte === 0x0a) {
      isAtStart = true;
      marks = 0;
    } else if (isAtStart && !isBlank(byte)) {
      isAtStart = listMarks.has(byte) && isBlank(bytes[at + 1]);
      if (isAtStart) marks += 1;
    }
    if (marks > maxMarks) return `a line of it begins with more than ${maxMarks} marks of a list`;
  }
  return undefined;
}

const refused = (problems: readonly Problem[]): RemoteReading => ({
  ok: false,
  reason: problemText(problems),
});

/** Keys without a value are absent, and what only a file must have is not asked for. */
function prepared(data: Record<string, unknown>): Record<string, unknown> {
  const { mcp } = data;
  const own = isObject(mcp) ? mcp : {};
  const { input_schema, output_schema, execution, ...rest } = own;
  const how = isObject(execution) ? { ...execution } : execution;
  // The URL of an instance is whole without one.
  if (isObject(how) && how.kind === "rest" && (how.url === undefined || how.url === "")) how.url = "/";
  const section = {
    ...(withoutNulls(rest) as Record<string, unknown>),
    ...(input_schema != null && { input_schema }),
    ...(output_schema != null && { output_schema }),
    execution: how ?? { kind: "onex" },
  };
  const node = Object.fromEntries(Object.entries(data).filter(([, value]) => value !== null));
  return { ...node, mcp: mcp === undefined || mcp === null || isObject(mcp) ? section : mcp };
}

const here = ["mcp", "execution"] as const;
/** Stands where the instance's URL will, so that what comes after it is judged as in any other contract. */
const anyInstance = "http://instance";

/** (2) */
function remoteExecution(document: ExecutionDocument, problems: Problem[]): RemoteExecution | undefined {
  const refuse = (key: string, message: string): void => {
    problems.push({ path: [...here, key], message });
  };
  switch (document.kind) {
    case "local":
      refuse("kind", "local is for contract files only, never for a contract in Consul");
      return undefined;
    case "bus":
      refuse("kind", "bus is for contract files only; a tool of Consul is called at its instances");
      return undefined;
    case "onex": {
      for (const key of ["endpoint", "endpoints", "service"] as const) {
        if (document[key] !== undefined) refuse(key, "leave it out: the instances come from Consul");
      }
      const checked = onexExecution({ kind: "onex", path: document.path, endpoint: anyInstance }, problems);
      return checked.kind === "onex"
        ? { kind: "onex", path: checked.path === "/" ? "" : checked.path }
        : undefined;
    }
    case "rest": {
      const { url } = document;
      if (!/^\/(?!\/)/.test(url)) {
        const message = `expected a path that begins with "/", got ${valueText(url)}: the instances come from Consul`;
        refuse("url", message);
        return undefined;
      }
      const checked = restExecution({ ...document, url: `${anyInstance}${url}` }, problems);
      if (checked.kind !== "rest") return undefined;
      return { ...checked, url: url === "/" ? "" : url };
    }
  }
}

function schemaOf(
  key: "input_schema" | "output_schema",
  schema: unknown,
  normalise: (schema: unknown) => NormalisedSchema,
  notes: string[],
  problems: Problem[],
): JsonObject | undefined {
  if (schema === undefined) return undefined;
  const result = normalise(schema);
  if (result.ok) {
    notes.push(...result.repairs.map((repair) => `mcp.${key}: ${repair}`));
    return result.schema;
  }
  problems.push({ path: ["mcp", key], message: result.problem });
  return undefined;
}

function plainParts(node: NodeContractDocument, notes: string[]): RemoteDefinition {
  const { mcp } = node;
  const description = [mcp.description, node.description].find(
    (text) => text !== undefined && text.trim() !== "",
  );
  const version = node.node_version ?? node.contract_version;
  return {
    ...(mcp.title !== undefined && { title: mcp.title }),
    ...(description !== undefined && { description }),
    ...(version !== undefined && {
      version: typeof version === "string" ? version : `${version.major}.${version.minor}.${version.patch}`,
    }),
    ...(mcp.annotations !== undefined && { annotations: annotationsOf(mcp.annotations) }),
    ...(mcp.icons !== undefined && { icons: iconsOf(mcp.icons, notes) }),
    ...(mcp.tags !== undefined && { tags: tagsOf(mcp.tags) }),
    ...(mcp.timeout_seconds !== undefined && { timeoutSeconds: mcp.timeout_seconds }),
  };
}
