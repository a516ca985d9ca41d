/**
 * The operations of this process's handlers as tools. Owns: the source of tools that a handler such as HandlerMCP is
 * given, and what becomes of a call. Does not own: which operations are tools (`contract/handler-tools.ts`), nor
 * deadlines, retries, breakers and concurrency, which are the host's for every envelope (`call.ts`).
 *
 * 1. A call is an envelope of its own: it carries no id to tell it by, so it is never taken for another one's duplicate.
 * 2. A handler that serves tools is itself none, or a tool that calls tools could call itself without end.
 * 3. There are tools only while their handlers are running, whenever the source was started.
 */
import { createHash } from "node:crypto";
import type { Answer } from "../bus/envelope.ts";
import type { HandlerContract } from "../contract/handler.ts";
import type { HandlerTool } from "../contract/handler-tools.ts";
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/log.ts";
import { content, textResult } from "../tools/call.ts";
import type { ApplyChange, SourceStatus, ToolRecord, ToolSource } from "../tools/source.ts";
import type { Tool, ToolContext } from "../tools/tool.ts";

/** Answers an envelope, as the host does. Never rejects. */
export type HandleEnvelope = (
  envelope: unknown,
  options: { readonly signal: AbortSignal },
) => Promise<Answer>;

/** The tools of the handlers, for the one handler that this source is given to. */
export class HandlerTools implements ToolSource {
  readonly name = "handlers";
  readonly kind = "handler";
  readonly #clock: Clock;
  #apply: ApplyChange | undefined;
  #records: readonly ToolRecord[] = [];
  #currentAt: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#currentAt = clock.now();
  }

  /** Whether its handler serves tools. */
  get isStarted(): boolean {
    return this.#apply !== undefined;
  }

  /** Resolves at once: a handler is initialized before others are running. */
  async start(apply: ApplyChange): Promise<void> {
    this.#apply = apply;
    apply({ put: this.#records, remove: [] });
  }

  status(): SourceStatus {
    if (this.isStarted) return { name: this.name, kind: this.kind, state: "ready", ageSeconds: 0 };
    const ageSeconds = (this.#clock.now() - this.#currentAt) / 1000;
    return { name: this.name, kind: this.kind, state: "closed", ageSeconds };
  }

  async close(): Promise<void> {
    if (this.isStarted) this.#currentAt = this.#clock.now();
    this.#apply = undefined;
  }

  /** From now on these are the tools; none where their handlers stop. (3) */
  serve(records: readonly ToolRecord[]): void {
    const kept = new Set(records.map(({ key }) => key));
    const remove = this.#records.map(({ key }) => key).filter((key) => !kept.has(key));
    this.#records = records;
    if (records.length > 0 || remove.length > 0) this.#apply?.({ put: records, remove });
  }
}

/** What of a running handler makes its tools, and where they are handed to it. */
export interface ToolServing {
  readonly found: { readonly contract: HandlerContract };
  readonly tools: HandlerTools;
}

/** Gives the handlers' tools to every handler that serves tools. (2) */
export function serveTools(active: readonly ToolServing[], handle: HandleEnvelope, log: Logger): void {
  const records: ToolRecord[] = [];
  for (const { found, tools } of active) {
    const { id, tools: exposed } = found.contract;
    if (exposed.length === 0) continue;
    if (!tools.isStarted) records.push(...toolRecords(found.contract, handle));
    else
      log.warn(
        { handler: id, tools: exposed.map(({ name }) => name) },
        `Handler ${id} serves tools, so its own operations are none: they could call themselves without end; remove mcp.expose from its contract`,
      );
  }
  for (const { tools } of active) tools.serve(records);
}

/** Takes the tools back before their handlers stop. (3) */
export function withdrawTools(active: readonly ToolServing[]): void {
  for (const { tools } of active) tools.serve([]);
}

/** The tools that a handler's contract exposes. */
export function toolRecords(contract: HandlerContract, handle: HandleEnvelope): ToolRecord[] {
  return contract.tools.map((tool) => ({
    key: `${contract.id}/${tool.name}`,
    tool: toTool(tool, contract, handle),
  }));
}

function toTool(
  { operation, ...definition }: HandlerTool,
  { id, version }: HandlerContract,
  handle: HandleEnvelope,
): Tool {
  const stated = { ...definition, version, source: "handler" as const, owner: id };
  const revision = createHash("sha256")
    .update(JSON.stringify({ ...stated, operation }))
    .digest("hex");
  const fn = async (input: Readonly<Record<string, unknown>>, context: ToolContext): Promise<unknown> => {
    const { signal, correlationId } = context;
    const envelope = {
      operation,
      payload: input,
      correlation_id: correlationId,
      metadata: { tool_name: definition.name },
    };
    return resultOf(await handle(envelope, { signal })); // (1)
  };
  return Object.freeze({
    ...stated,
    revision: revision.slice(0, 16),
    execution: Object.freeze({ kind: "function" as const, fn }),
  });
}

/** The payload; of an error answer its public message, without the code that leads it. */
function resultOf({ payload, error }: Answer): unknown {
  if (error === undefined) return payload;
  const prefix = `[${error.code}] `;
  const text = error.message.startsWith(prefix) ? error.message.slice(prefix.length) : error.message;
  return content(textResult(text, true).content, { isError: true });
}
