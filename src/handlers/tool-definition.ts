/** Whether a tool written in code can be served. Owns: the checks at registration, and the normalising of its schemas. Pure. */
import { z } from "zod";
import { normaliseInputSchema, normaliseOutputSchema } from "../contract/input-schema.ts";
import { allowedIcon, nameProblem } from "../contract/tool-name.ts";
import { ProtocolConfigurationError } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import type { ToolDefinition } from "../tools/tool.ts";

const definitionShape = z.strictObject({
  name: z.string(),
  description: z.string(),
  title: z.string().optional(),
  version: z.string().optional(),
  // Normalised apart.
  inputSchema: z.unknown().optional(),
  outputSchema: z.unknown().optional(),
  annotations: z
    .strictObject({
      readOnly: z.boolean().optional(),
      destructive: z.boolean().optional(),
      idempotent: z.boolean().optional(),
      openWorld: z.boolean().optional(),
    })
    .optional(),
  icons: z
    .array(
      z.strictObject({
        src: z.string().refine(allowedIcon, { error: "expected an https: URL or data:image" }),
        mimeType: z.string().optional(),
        sizes: z.array(z.string()).optional(),
      }),
    )
    .optional(),
  tags: z.array(z.string()).optional(),
  timeoutSeconds: z.number().min(1).max(300).optional(),
});

/**
 * The definition of a tool written in code, with schemas that every client takes.
 *
 * @throws ProtocolConfigurationError with every reason why it cannot be served
 */
export function servableDefinition(definition: ToolDefinition, fn: unknown): ToolDefinition {
  const shape = definitionShape.safeParse(definition);
  if (!shape.success) throw unservable(definition, shape.error.issues.map(issueText));
  const { name, description, inputSchema, outputSchema } = definition;
  const input = normaliseInputSchema(inputSchema);
  const output = outputSchema === undefined ? undefined : normaliseOutputSchema(outputSchema);
  const problems = [
    nameProblem(name),
    description.trim() === "" ? "description is empty" : undefined,
    input.ok ? undefined : `inputSchema is not valid: ${input.problem}`,
    output?.ok === false ? `outputSchema is not valid: ${output.problem}` : undefined,
    typeof fn === "function" ? undefined : `its function is ${fn === null ? "null" : typeof fn}`,
  ].filter((problem) => problem !== undefined);
  if (problems.length > 0 || !input.ok) throw unservable(definition, problems);
  return {
    ...definition,
    inputSchema: input.schema,
    ...(output?.ok === true && { outputSchema: output.schema }),
  };
}

function unservable(definition: unknown, problems: readonly string[]): ProtocolConfigurationError {
  const name = isObject(definition) && typeof definition.name === "string" ? ` '${definition.name}'` : "";
  return new ProtocolConfigurationError(`Tool${name} cannot be served: ${problems.join("; ")}`, {
    facts: { operation: "register_tool" },
  });
}

function issueText({ path, message }: z.core.$ZodIssue): string {
  return path.length === 0 ? message : `${path.map(String).join(".")}: ${message}`;
}
