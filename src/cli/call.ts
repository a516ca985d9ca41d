/** `onex call`: one call in this process. Progress and the tool's log go to stderr, the result to stdout. */
import { randomUUID } from "node:crypto";
import { nearestKey } from "../core/config-issues.ts";
import type { ToolResult } from "../tools/call.ts";
import type { Progress } from "../tools/tool.ts";
import { argumentsOf } from "./arguments.ts";
import { watchFailures } from "./failures.ts";
import { openGateway, readConfig } from "./open.ts";
import { takeSignals } from "./signals.ts";
import { claimStdout, print } from "./stdout.ts";

export interface CallOptions {
  readonly config?: string;
  readonly tool: string;
  /** `key=value` */
  readonly pairs: readonly string[];
  readonly args?: string;
  readonly json?: boolean;
}

/** Resolves with the exit code: 1 where the result is an error, 130 or 143 where a signal cancelled the call. */
export async function call(options: CallOptions): Promise<number> {
  const stdout = claimStdout();
  await using open = await openGateway(await readConfig(options.config), { readOnly: true });
  const tool = open.gateway.catalog.snapshot().byName.get(options.tool);
  if (tool === undefined) {
    process.stderr.write(
      `onex: ${unknownTool(options.tool, [...open.gateway.catalog.snapshot().byName.keys()])}\n`,
    );
    return 1;
  }
  using signals = takeSignals();
  using failures = watchFailures(open.log);
  const result = await open.gateway.call(
    {
      name: options.tool,
      arguments: argumentsOf(options.args, options.pairs, tool.inputSchema),
      correlationId: randomUUID(),
      onProgress: (progress) => process.stderr.write(`${progressText(progress)}\n`),
      onLog: (level, data) =>
        process.stderr.write(`${level}: ${typeof data === "string" ? data : JSON.stringify(data)}\n`),
    },
    AbortSignal.any([signals.signal, failures.signal]),
  );
  if (options.json === true) await print(stdout, `${JSON.stringify(wire(result), null, 2)}\n`);
  else if (result.failure !== undefined) process.stderr.write(`onex: ${resultText(result)}`);
  else await print(stdout, resultText(result));
  return signals.exitCode ?? (result.isError || failures.signal.aborted ? 1 : 0);
}

function unknownTool(name: string, known: readonly string[]): string {
  const hint = nearestKey(name, known);
  return `There is no tool ${name}. ${hint === undefined ? "`onex tools` lists what there is." : `Did you mean ${hint}?`}`;
}

const wire = ({ content, structuredContent, isError }: ToolResult): object => ({
  content,
  ...(structuredContent !== undefined && { structuredContent }),
  isError,
});

/** Structured content as JSON; else text as it is and any other block as JSON. */
function resultText({ content, structuredContent, isError }: ToolResult): string {
  if (structuredContent !== undefined && !isError) return `${JSON.stringify(structuredContent, null, 2)}\n`;
  return content
    .map((block) =>
      typeof block.text === "string" && block.type === "text" ? block.text : JSON.stringify(block, null, 2),
    )
    .map((text) => `${text}\n`)
    .join("");
}

function progressText({ done, total, message }: Progress): string {
  return `${done}${total === undefined ? "" : `/${total}`}${message === undefined ? "" : ` ${message}`}`;
}
