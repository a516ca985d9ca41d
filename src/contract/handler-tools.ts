/**
 * The `mcp` block of a handler contract: which of the handler's operations are served as tools. Owns its keys, its
 * defaults and what is wrong with it. Does not own: calling the handler (`runtime/tools.ts`).
 *
 * 1. Keys of one tool stand beside `expose`, those of several under `tools`, never both.
 * 2. Where `expose` is not true nothing is served; the keys are checked all the same.
 */
import { z } from "zod";
import { isObject, type JsonObject } from "../core/json.ts";
import { annotationsOf, tagsOf, type Annotations } from "./hints.ts";
import { normaliseInputSchema, normaliseOutputSchema } from "./input-schema.ts";
import { annotations, inputSchema } from "./node.ts";
import { cleanName, describeTool } from "./tool-name.ts";

const text = z.string().trim().min(1);

const toolKeys = {
  operation: text
    .regex(/^\S{1,200}$/, "expected 1 to 200 characters without spaces")
    .optional()
    .describe("What is called: `<verb>` or `<type>.<verb>`. Default beside expose: execute."),
  tool_name: text.optional().describe("Name of the tool. Default: `<type>_<verb>`."),
  title: text.optional().describe("Name for people."),
  description: z
    .string()
    .optional()
    .describe("What it does, for the model. Default: the contract's description."),
  input_schema: inputSchema.optional().describe("JSON Schema of the payload. Default: any object."),
  output_schema: inputSchema.optional().describe("JSON Schema of the answer's payload."),
  annotations: annotations.optional(),
  tags: z.union([z.array(text), text], { error: "expected a list of tags" }).optional(),
  timeout_seconds: z
    .number()
    .min(1)
    .max(300)
    .optional()
    .describe("Seconds a call may take, 1..300. Default: descriptor.timeout_ms, else the runtime's own."),
};

const toolSchema = z.looseObject({
  ...toolKeys,
  operation: toolKeys.operation.unwrap().describe("What is called: `<verb>` or `<type>.<verb>`."),
});

/** Of both forms of the contract. */
export const handlerMcpSchema = z
  .looseObject({
    expose: z.boolean().optional().describe("Whether MCP clients are served these tools. Default false."),
    ...toolKeys,
    tools: z.array(toolSchema).min(1).optional().describe("Several tools, each with the keys above."),
  })
  .describe("Operations of this handler that are tools.");

export type HandlerMcp = z.output<typeof handlerMcpSchema>;

/** One operation of a handler that is served as a tool, checked and complete. */
export interface HandlerTool {
  /** `<type>.<verb>` */
  readonly operation: string;
  /** 1..64 of `[A-Za-z0-9_.-]`. */
  readonly name: string;
  readonly title?: string;
  readonly description: string;
  readonly inputSchema: JsonObject;
  readonly outputSchema?: JsonObject;
  readonly annotations: Annotations;
  readonly tags: readonly string[];
  readonly timeoutSeconds?: number;
}

/** What of the contract the block's defaults are taken from. */
export interface HandlerFacts {
  readonly protocolType: string;
  readonly description?: string;
  /** Of the contract itself; undefined where it leaves the deadline to the runtime. */
  readonly timeoutMs?: number;
}

export interface ReadTools {
  readonly tools: readonly HandlerTool[];
  /** What was mended or is only for information. */
  readonly notes: readonly string[];
  /** Why the contract is not valid; `ambiguous` where it says two things at once. */
  readonly problems: readonly { readonly message: string; readonly ambiguous?: true }[];
}

/** A key without a value is an absent key, in the block and in each of its tools. */
export function withoutNullKeys(data: Record<string, unknown>): Record<string, unknown> {
  const { mcp } = data;
  if (mcp === null) return Object.fromEntries(Object.entries(data).filter(([key]) => key !== "mcp"));
  if (!isObject(mcp)) return data;
  const block = present(mcp);
  if (Array.isArray(block.tools))
    block.tools = block.tools.map((tool: unknown) => (isObject(tool) ? present(tool) : tool));
  return { ...data, mcp: block };
}

const present = (value: Record<string, unknown>): Record<string, unknown> => {
  const own = Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null));
  if (isObject(own.annotations)) own.annotations = present(own.annotations);
  return own;
};

/** The tools of a block that has passed the schema. Never throws. */
export function readHandlerTools(mcp: HandlerMcp | undefined, facts: HandlerFacts): ReadTools {
  if (mcp === undefined) return { tools: [], notes: [], problems: [] };
  const beside = Object.keys(toolKeys).filter((key) => key in mcp);
  if (mcp.tools !== undefined && beside.length > 0) {
    const message = `mcp: tools and ${beside.join(", ")} beside it: put them into an entry of tools, or leave tools out`; // (1)
    return { tools: [], notes: [], problems: [{ message, ambiguous: true }] };
  }
  const notes: string[] = [];
  const problems: { message: string; ambiguous?: true }[] = [];
  const read = (mcp.tools ?? [mcp]).map((tool, index) =>
    readTool(tool, mcp.tools === undefined ? "mcp" : `mcp.tools[${index}]`, facts, notes, problems),
  );
  const tools = read.filter((tool) => tool !== undefined);
  const names = tools.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) problems.push({ message: `mcp: two tools are named ${twice}`, ambiguous: true });
  return mcp.expose === true ? { tools, notes, problems } : { tools: [], notes: [], problems }; // (2)
}

function readTool(
  tool: z.output<typeof toolSchema> | HandlerMcp,
  path: string,
  facts: HandlerFacts,
  notes: string[],
  problems: { message: string }[],
): HandlerTool | undefined {
  const { protocolType: type, timeoutMs } = facts;
  const { operation = "execute" } = tool;
  const verb = operation.startsWith(`${type}.`) ? operation.slice(type.length + 1) : operation;
  if (verb === "" || (verb === operation && operation.includes("."))) {
    problems.push({
      message: `${path}.operation: expected <verb> or ${type}.<verb>, got ${JSON.stringify(operation)}`,
    });
  }
  const wished = tool.tool_name ?? `${type}_${verb}`;
  const name = cleanName(wished);
  if (name !== wished) notes.push(`${path}: the name ${JSON.stringify(wished)} is served as ${name}`);
  const description = describeTool(name, tool.description, facts.description);
  if (description !== tool.description && description !== facts.description)
    notes.push(`${path}: ${name} has no description; models choose tools by it`);
  const input = normaliseInputSchema(tool.input_schema);
  const output = tool.output_schema === undefined ? undefined : normaliseOutputSchema(tool.output_schema);
  for (const [key, result] of [
    ["input_schema", input],
    ["output_schema", output],
  ] as const) {
    if (result === undefined) continue;
    if (result.ok) notes.push(...result.repairs.map((repair) => `${path}.${key}: ${repair}`));
    else problems.push({ message: `${path}.${key}: ${result.problem}` });
  }
  if (!input.ok || output?.ok === false) return undefined;
  const seconds =
    tool.timeout_seconds ??
    (timeoutMs === undefined ? undefined : Math.min(Math.max(timeoutMs / 1000, 1), 300));
  return {
    operation: `${type}.${verb}`,
    name,
    ...(tool.title !== undefined && { title: tool.title }),
    description,
    inputSchema: input.schema,
    ...(output !== undefined && { outputSchema: output.schema }),
    annotations: annotationsOf(tool.annotations),
    tags: tagsOf(tool.tags),
    ...(seconds !== undefined && { timeoutSeconds: seconds }),
  };
}
