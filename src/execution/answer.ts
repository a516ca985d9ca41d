/**
 * What an HTTP answer, or the lack of one, means for a call. Owns the rules by status, and the texts. No text holds an
 * address; the facts of an error do, for the log. Does not own: what the body of a good answer is (`body.ts`).
 */
import { STATUS_CODES } from "node:http";
import type { CallSignal } from "../core/abort.ts";
import {
  CancelledError,
  InfraConnectionError,
  InfraTimeoutError,
  InfraUnavailableError,
  OnexError,
  RuntimeHostError,
  type ErrorFacts,
} from "../core/errors.ts";
import { failureResult, textResult, type ToolResult } from "../tools/call.ts";
import type { Tool } from "../tools/tool.ts";
import { encodingOf, readBody } from "./body.ts";
import { addressRefused, connectTimeoutSeconds } from "./pools.ts";
import { AnswerTooLargeError, type HttpAnswer, type HttpHeaders } from "./exchange.ts";
import { AddressRefusedError } from "./networks.ts";
import { mediaTypeOf } from "./media-type.ts";
import { messageIn, shorten } from "./message.ts";
import { noAnswer } from "./no-answer.ts";
import type { Plan } from "./request.ts";
import { maxResultBytes } from "./result.ts";
import { tlsProblem } from "./tls.ts";

/**
 * The answer as the call's result.
 *
 * @throws InfraConnectionError for a 5xx, which a breaker counts
 */
export function readAnswer(answer: HttpAnswer, tool: Tool, plan: Plan): ToolResult {
  const { status } = answer;
  if (status < 300) {
    const result = readBody(answer, tool, plan);
    return typeof result === "string" ? unusable(answer, tool, plan, result) : result;
  }
  if (status < 400)
    return unusable(answer, tool, plan, `it redirects (${name(status)}), and redirects are not followed`);
  const facts = factsOf(answer, plan);
  if (status < 500) return refusedByService(answer, facts);
  throw new InfraConnectionError(`The service behind "${tool.name}" failed (${name(status)}).`, { facts });
}

const name = (status: number): string => `${status} ${STATUS_CODES[status] ?? ""}`.trim();

const factsOf = ({ status, headers }: HttpAnswer, { origin }: Plan): ErrorFacts => ({
  transport: "http",
  target: origin,
  status,
  ...retryAfter(headers),
});

const unusable = (answer: HttpAnswer, tool: Tool, plan: Plan, reason: string): ToolResult =>
  failureResult(
    new RuntimeHostError(`The answer of the service behind "${tool.name}" cannot be used: ${reason}.`, {
      facts: factsOf(answer, plan),
    }),
  );

function refusedByService(answer: HttpAnswer, facts: ErrorFacts): ToolResult {
  const message = messageOfBody(answer);
  const text = `The service answered ${name(answer.status)}${message === undefined ? "." : `: ${message}`}`;
  return answer.status === 408 || answer.status === 429
    ? failureResult(new InfraUnavailableError(text, { facts }))
    : textResult(text, true);
}

function messageOfBody({ body, headers }: HttpAnswer): string | undefined {
  if (body.length === 0 || encodingOf(headers) !== undefined) return undefined;
  const type = mediaTypeOf(headers["content-type"]);
  const text = body.toString("utf8");
  if (type.kind === "json") {
    try {
      return messageIn(JSON.parse(text));
    } catch {
      return undefined;
    }
  }
  return type.kind === "text" && type.mimeType === "text/plain" ? shorten(text) : undefined;
}

/** Retry-After: seconds, or a date. */
function retryAfter(headers: HttpHeaders): Pick<ErrorFacts, "retry_after_seconds"> {
  const header = headers["retry-after"];
  const text = (typeof header === "string" ? header : (header?.[0] ?? "")).trim();
  if (text === "") return {};
  const seconds = /^\d+$/.test(text) ? Number(text) : Math.ceil((Date.parse(text) - Date.now()) / 1000);
  return Number.isFinite(seconds) ? { retry_after_seconds: Math.max(0, seconds) } : {};
}

/** Why there is no answer, as an error that says whether a breaker counts it. */
export function exchangeFailure(error: unknown, tool: Tool, origin: string, signal: CallSignal): OnexError {
  if (error instanceof OnexError) return error;
  if (signal.aborted) return new CancelledError(undefined, { cause: error });
  const { kind, code } = noAnswer(error);
  const service = `The service behind "${tool.name}"`;
  const facts: ErrorFacts = {
    transport: "http",
    target: origin,
    ...(code !== undefined && { reason: code }),
  };
  if (error instanceof AnswerTooLargeError) {
    const size = error.bytes === undefined ? "is larger than" : `has ${error.bytes} bytes, more than`;
    return new RuntimeHostError(
      `The answer of the service behind "${tool.name}" ${size} the limit of ${maxResultBytes} bytes (10 MiB).`,
      { facts },
    );
  }
  if (error instanceof AddressRefusedError) return addressRefused(origin, tool.name, error);
  const insecure = tlsProblem(code);
  if (insecure !== undefined)
    return new InfraConnectionError(`${service} could not be reached: ${insecure.text}.`, {
      cause: error,
      facts: { ...facts, remedy: insecure.remedy },
      // Certificates do not change within a call.
      retryable: false,
    });
  const options = { cause: error, facts };
  switch (kind) {
    case "connect_timeout":
    case "timeout":
      return new InfraTimeoutError(`${service} did not answer in time.`, {
        cause: error,
        facts: { ...facts, timeout_seconds: connectTimeoutSeconds },
      });
    case "closed":
      return new InfraUnavailableError("The runtime is stopping.", options);
    case "unwritable":
      return new RuntimeHostError(
        `The request to the service behind "${tool.name}" could not be written.`,
        options,
      );
    case "lost":
      return new InfraConnectionError(`${service} broke off before its answer was complete.`, options);
    case "not_http":
      return new InfraConnectionError(`${service} gave an answer that is not valid HTTP.`, options);
    case "unreachable":
      return new InfraConnectionError(`${service} could not be reached.`, options);
  }
}
