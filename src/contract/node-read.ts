/**
 * From a file's content to a node contract. Owns whether a node is exposed, its defaults, and the list of everything that
 * is wrong with a file at once. Does not own: finding files, or keeping what was read (`node-scan.ts`).
 */
import { isObject } from "../core/json.ts";
import { annotationsOf, iconsOf, tagsOf } from "./hints.ts";
import { cleanName, describeTool } from "./tool-name.ts";
import {
  type NormalisedSchema,
  normaliseFileSchema,
  type ReadSchemaFile,
  type SchemaRole,
} from "./input-schema.ts";
import type { LoadEntry, ScannedFile } from "./load.ts";
import { knownKeys, type NodeContract, type NodeContractDocument, nodeContractSchema } from "./node.ts";
import { checkExecution, type Env, expandExecution } from "./node-execution.ts";
import { type Problem, problemCode, problemsOf, problemText, unknownKeyText, valueText } from "./problems.ts";
import type { Reference, ReferenceKind } from "./references.ts";

export interface NodeReadOptions {
  /** Absolute path of the contract as it was found: references are relative to its folder. */
  readonly location: string;
  readonly env: Env;
  /** Node types that are exposed besides ORCHESTRATOR; a type contains one of them, in any case. */
  readonly exposeNodeTypes: readonly string[];
  /** Looks up what the contract refers to, by absolute path. */
  readonly find: (kind: ReferenceKind, path: string) => Promise<Reference>;
}

export interface NodeReading {
  readonly entry: LoadEntry;
  /** Present where the outcome is `loaded`. */
  readonly contract?: NodeContract;
}

/** Reads one contract. Whatever is wrong with it is in the entry; nothing is thrown. */
export async function readNode(file: ScannedFile, options: NodeReadOptions): Promise<NodeReading> {
  const { location } = options;
  const { name, mcp } = isObject(file.data) ? file.data : {};
  const tool = isObject(mcp) ? mcp.tool_name : undefined;
  const names = {
    ...(typeof name === "string" && { name }),
    ...(typeof tool === "string" && { tool }),
  };
  const entry = (rest: Pick<LoadEntry, "outcome" | "reason" | "code" | "informational">): NodeReading => ({
    entry: { path: file.path, kind: "node", ...names, ...rest },
  });
  const refused = (problems: readonly Problem[]): NodeReading =>
    entry({ outcome: "failed", reason: problemText(problems), code: problemCode(problems) });

  const hidden = exposure(file.data, options.exposeNodeTypes);
  if (hidden !== undefined) {
    return "skip" in hidden ? entry({ outcome: "skipped", reason: hidden.skip }) : refused([hidden.problem]);
  }

  const document = withoutNulls(file.data);
  const problems: Problem[] = [];
  const parsed = nodeContractSchema.safeParse(expanded(document, options.env, problems));
  if (!parsed.success) return refused([...problemsOf(parsed.error, document), ...problems]);
  const node = parsed.data;
  const notes = [...file.warnings, ...unknownKeys(node)];
  const execution =
    problems.length > 0
      ? undefined
      : await checkExecution(node.mcp.execution, location, (path) => options.find("module", path), problems);
  const readSchema: ReadSchemaFile = async (path) => {
    const found = await options.find("schema", path);
    if (!found.ok) throw new Error(found.problem);
    return found.data;
  };
  const schemaOf = async (role: SchemaRole): Promise<NormalisedSchema | undefined> => {
    const schema = role === "input" ? node.mcp.input_schema : node.mcp.output_schema;
    if (role === "output" && schema === undefined) return undefined;
    const result = await normaliseFileSchema(schema, role, location, readSchema);
    if (result.ok) notes.push(...result.repairs.map((repair) => `mcp.${role}_schema: ${repair}`));
    else problems.push({ path: ["mcp", `${role}_schema`], message: result.problem });
    return result;
  };
  const input = await schemaOf("input");
  const output = await schemaOf("output");
  if (execution === undefined || input?.ok !== true || output?.ok === false) return refused(problems);

  const contract: NodeContract = {
    ...definitionOf(node, notes),
    path: file.path,
    inputSchema: input.schema,
    ...(output !== undefined && { outputSchema: output.schema }),
    execution,
  };
  const loaded = entry({ outcome: "loaded", ...(notes.length > 0 && { informational: notes }) });
  return { ...loaded, contract };
}

/** Why a node is not to be served, or what keeps that from being told; undefined: it is to be served. */
function exposure(
  data: unknown,
  exposeNodeTypes: readonly string[],
): { readonly skip: string } | { readonly problem: Problem } | undefined {
  if (!isObject(data)) {
    const found = data === null || data === undefined ? "the file is empty" : `got ${valueText(data)}`;
    return { problem: { path: [], message: `expected the keys of a node contract, ${found}` } };
  }
  const { mcp, node_type: nodeType } = data;
  if (mcp === undefined || mcp === null) return { skip: "it has no mcp section" };
  if (!isObject(mcp)) {
    return { problem: { path: ["mcp"], message: `expected an object, got ${valueText(mcp)}` } };
  }
  const { expose } = mcp;
  if (expose === undefined || expose === null || expose === false) return { skip: "mcp.expose is not true" };
  if (expose !== true) {
    return { problem: { path: ["mcp", "expose"], message: `expected boolean, got ${valueText(expose)}` } };
  }
  const types = ["ORCHESTRATOR", ...exposeNodeTypes.filter((type) => type !== "")];
  if (typeof nodeType !== "string" || nodeType === "") return undefined;
  if (types.some((type) => nodeType.toUpperCase().includes(type.toUpperCase()))) return undefined;
  return {
    skip: `node_type ${nodeType} contains none of ${types.join(", ")} (expose_node_types widens this)`,
  };
}

/** A key without a value is an absent key. Only where this contract's own keys are: data and schemas stay as they are. */
function withoutNulls(data: unknown): Record<string, unknown> {
  const clean = (value: unknown): Record<string, unknown> =>
    isObject(value) ? Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null)) : {};
  const document = clean(data);
  const mcp = clean(document.mcp);
  for (const key of ["annotations", "execution"]) if (isObject(mcp[key])) mcp[key] = clean(mcp[key]);
  return { ...document, mcp };
}

function expanded(document: Record<string, unknown>, env: Env, problems: Problem[]): unknown {
  const { mcp } = document;
  if (!isObject(mcp) || mcp.execution === undefined) return document;
  return { ...document, mcp: { ...mcp, execution: expandExecution(mcp.execution, env, problems) } };
}

function unknownKeys({ mcp }: NodeContractDocument): string[] {
  const list = (value: object | undefined, known: readonly string[], path: readonly string[]): string[] =>
    Object.keys(value ?? {})
      .filter((key) => !known.includes(key))
      .map((key) => unknownKeyText([...path, key], known));
  return [
    ...list(mcp, knownKeys.mcp, ["mcp"]),
    ...list(mcp.annotations, knownKeys.annotations, ["mcp", "annotations"]),
    ...list(mcp.execution, knownKeys.execution[mcp.execution.kind], ["mcp", "execution"]),
  ];
}

type Definition = Omit<NodeContract, "path" | "inputSchema" | "outputSchema" | "execution">;

function definitionOf(node: NodeContractDocument, notes: string[]): Definition {
  const { mcp } = node;
  const wished = mcp.tool_name ?? node.name;
  const toolName = cleanName(wished);
  if (toolName !== wished) notes.push(`the name ${JSON.stringify(wished)} is served as ${toolName}`);
  const description = describeTool(toolName, mcp.description, node.description);
  if (description !== mcp.description && description !== node.description) {
    notes.push("it has no description; models choose tools by it");
  }
  return {
    toolName,
    description,
    version: versionText(node.node_version ?? node.contract_version),
    annotations: annotationsOf(mcp.annotations),
    icons: iconsOf(mcp.icons, notes),
    tags: tagsOf(mcp.tags),
    ...(mcp.title !== undefined && { title: mcp.title }),
    ...(mcp.timeout_seconds !== undefined && { timeoutSeconds: mcp.timeout_seconds }),
  };
}

function versionText(version: NodeContractDocument["node_version"]): string {
  if (version === undefined) return "0.0.0";
  return typeof version === "string" ? version : `${version.major}.${version.minor}.${version.patch}`;
}
