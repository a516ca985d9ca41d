/** Tools written in code: their types, and how a definition becomes a `Tool`. */
import { createHash } from "node:crypto";
import type { Tool, ToolContext, ToolDefinition, ToolFunction } from "./tool.ts";

/** A tool written in code: its definition and its function. */
export interface DefinedTool<Input = Record<string, unknown>> {
  readonly definition: ToolDefinition;
  readonly fn: (input: Input, context: ToolContext) => unknown;
}

/**
 * Types a tool written in code. `Input` is what the input schema promises; arguments are validated before `fn` runs.
 *
 * @example
 * const greet = defineTool<{ name: string }>({ name: "greet", description: "Greets." }, ({ name }) => `Hello ${name}`);
 * handler.registerTool(greet.definition, greet.fn);
 */
export function defineTool<Input = Record<string, unknown>>(
  definition: ToolDefinition,
  fn: (input: Input, context: ToolContext) => unknown,
): DefinedTool<Input> {
  return Object.freeze({ definition: Object.freeze({ ...definition }), fn });
}

let registrations = 0;

/** A definition and its function as a tool of source `handler`. The schema must already be normalised. */
export function toolFromCode(definition: ToolDefinition, fn: ToolFunction): Tool {
  registrations += 1;
  const {
    name,
    description,
    title,
    version,
    inputSchema,
    outputSchema,
    annotations,
    icons,
    tags,
    timeoutSeconds,
  } = definition;
  return Object.freeze({
    name,
    description,
    version: version ?? "1.0.0",
    inputSchema: inputSchema ?? { type: "object", additionalProperties: true },
    annotations: annotations ?? {},
    tags: tags ?? [],
    ...(title !== undefined && { title }),
    ...(outputSchema !== undefined && { outputSchema }),
    ...(icons !== undefined && { icons }),
    ...(timeoutSeconds !== undefined && { timeoutSeconds }),
    execution: { kind: "function" as const, fn },
    source: "handler" as const,
    owner: name,
    // A function has no content to hash: every registration is a new revision.
    revision: createHash("sha256").update(`${name}#${registrations}`).digest("hex").slice(0, 16),
  });
}
