/**
 * The fast door: plain requests (`hot-request.ts`) answered without a server of the SDK for each, which costs ten times
 * as much. Owns: which of them it takes, and the calls under way. Does not own: sessions, running a call, or who may come in.
 *
 * 1. It answers as the SDK's door does: same status, same message, same headers. What it cannot, it does not take.
 * 2. It never takes a tool that may report progress or log lines: its answer may be a stream.
 */
import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { Deadlines } from "../core/deadlines.ts";
import { ToolNotFoundError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { CallTool, Principal, ToolResult } from "../tools/call.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { Tool } from "../tools/tool.ts";
import { acceptedBy } from "./accept.ts";
import { Answers, errorText, idText, responseText, type AnswerOptions } from "./hot-answer.ts";
import { HotCall, sendBytes, sendJson } from "./hot-call.ts";
import { mayBePlain, readPlain, type Era, type PlainRequest } from "./hot-request.ts";
import { mayReport } from "./heartbeat.ts";
import { hasParamHeaders } from "./params.ts";
import type { Session } from "./session.ts";
import type { Sessions } from "./sessions.ts";

export interface HotOptions extends AnswerOptions {
  readonly snapshot: () => Snapshot;
  readonly call: CallTool;
  /** Undefined: session ids mean nothing. */
  readonly sessions: Sessions | undefined;
  readonly log: Logger;
}

/** As long as the SDK leaves a stream silent. */
const keepAliveMs = 15_000;
const internalError = -32603;

export class Hot {
  readonly #options: HotOptions;
  readonly #answers: Answers;
  /** Calls under way, by when the next sign of life is due. */
  readonly #keeper = new Deadlines(keepAliveMs);

  constructor(options: HotOptions) {
    this.#options = options;
    this.#answers = new Answers(options);
  }

  /** Whether a POST with these headers may be taken; the body has the last word. */
  mayTake(headers: IncomingHttpHeaders): boolean {
    return mayBePlain(headers);
  }

  /** False where the request is not taken: nothing of it has been answered. (1) */
  take(request: IncomingMessage, response: ServerResponse, text: string, principal: Principal): boolean {
    const { headers } = request;
    const plain = readPlain(headers, text);
    if (plain === undefined) return false;
    const { sessions } = this.#options;
    const id = plain.era === "legacy" ? headers["mcp-session-id"] : undefined;
    let session: Session | undefined;
    if (sessions !== undefined && id !== undefined) {
      session = typeof id === "string" ? sessions.present(id, principal) : undefined;
      if (session === undefined) return false;
    }
    switch (plain.method) {
      case "tools/call":
        return this.#call(plain, headers, response, principal, session);
      case "tools/list": {
        const page = this.#answers.page(this.#options.snapshot(), plain.cursor, plain.era);
        if (page === undefined || session?.use(plain.id) === false) return false;
        sendBytes(response, page, `${idText(plain.id)}}`, session?.id);
        return true;
      }
      case "ping":
        if (session?.use(plain.id) === false) return false;
        sendJson(response, responseText("{}", plain.id), session?.id);
        return true;
    }
  }

  #call(
    plain: Extract<PlainRequest, { readonly method: "tools/call" }>,
    headers: IncomingHttpHeaders,
    response: ServerResponse,
    principal: Principal,
    session: Session | undefined,
  ): boolean {
    const { snapshot, call } = this.#options;
    const tool = snapshot().byName.get(plain.name);
    if (tool === undefined || mayReport(tool)) return false; // (2)
    if (plain.era === "modern" && hasParamHeaders(tool)) return false;
    const accepted = acceptedBy(headers.accept);
    const takesStream = accepted === "both" || accepted === "any";
    const hot = new HotCall(plain.id, response, session, takesStream, this.#keeper);
    if (session?.beginPlain(hot) === false) return false;
    hot.begin();
    const toolCall = {
      name: plain.name,
      arguments: plain.arguments,
      correlationId: randomUUID(),
      meta: plain.meta,
      principal,
    };
    call(toolCall, hot.cancellation)
      .then((result) => this.#answer(hot, result, tool, plain.era))
      .catch((error: unknown) => {
        const says = "a call failed that should have had an outcome";
        this.#options.log.error({ err: error, tool: plain.name }, says);
        hot.answer(errorText(internalError, "Internal error", plain.id));
      });
    return true;
  }

  #answer(hot: HotCall, result: ToolResult, { outputSchema }: Tool, era: Era): void {
    const { failure } = result;
    const text =
      failure instanceof ToolNotFoundError
        ? errorText(failure.rpcCode, failure.message, hot.id)
        : responseText(this.#answers.callResult(result, outputSchema, era), hot.id);
    hot.answer(text);
  }
}
