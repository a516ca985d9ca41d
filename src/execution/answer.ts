/**
 * What an HTTP answer, or the lack of one, means for a call. Owns the rules by status and content type, and the texts.
 * No text holds an address; the facts of an error do, for the log.
 */
import { isUtf8 } from "node:buffer";
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
import { isObject } from "../core/json.ts";
import { withoutInternals } from "../core/public-text.ts";
import { failureResult, textResult, type ToolResult } from "../tools/call.ts";
import type { Tool } from "../tools/tool.ts";
import { addressRefused, connectTimeoutSeconds } from "./pools.ts";
import { AnswerTooLargeError, type HttpAnswer, type HttpHeaders } from "./exchange.ts";
import { AddressRefusedError } from "./networks.ts";
import { noAnswer } from "./no-answer.ts";
import type { Plan } from "./request.ts";
import { maxResultBytes, toResult } from "./result.ts";
import { resolvePointer } from "./template.ts";

/** Characters of a service's own message. */
const maxMessageLength = 500;

/**
 * The answer as the call's result.
 *
 * @throws InfraConnectionError for a 5xx, which a breaker counts
 */
export function readAnswer(answer: HttpAnswer, tool: Tool, plan: Plan): ToolResult {
  const { status, headers } = answer;
  const facts: ErrorFacts = { transport: "http", target: plan.origin, status, ...retryAfter(headers) };
  if (status >= 500)
    throw new InfraConnectionError(`The service behind "${tool.name}" failed (${name(status)}).`, { facts });
  if (status >= 400) return refusedByService(answer, facts);
  if (status >= 300)
    return unusable(tool, facts, `it redirects (${name(status)}), and redirects are not followed`);
  return readBody(answer, tool, plan, facts);
}

const name = (status: number): string => `${status} ${STATUS_CODES[status] ?? ""}`.trim();

const unusable = (tool: Tool, facts: ErrorFacts, reason: string): ToolResult =>
  failureResult(
    new RuntimeHostError(`The answer of the service behind "${tool.name}" cannot be used: ${reason}.`, {
      facts,
    }),
  );

function refusedByService(answer: HttpAnswer, facts: ErrorFacts): ToolResult {
  const message = messageOfBody(answer);
  const text = `The service answered ${name(answer.status)}${message === undefined ? "." : `: ${message}`}`;
  return answer.status === 408 || answer.status === 429
    ? failureResult(new InfraUnavailableError(text, { facts }))
    : textResult(text, true);
}

function readBody(answer: HttpAnswer, tool: Tool, plan: Plan, facts: ErrorFacts): ToolResult {
  const { body, headers, status } = answer;
  const encoding = first(headers["content-encoding"]);
  // None was asked for; decoding would have to be bounded, as a few bytes can stand for gigabytes.
  if (encoding !== "" && encoding !== "identity")
    return unusable(tool, facts, `it is encoded (${encoding.slice(0, 40)})`);
  if (body.length === 0 || status === 204) return toResult(undefined);
  const type = contentType(headers);
  const structured = tool.outputSchema !== undefined;
  if (type.essence.startsWith("text/") && plan.pointer.length === 0) {
    const text = decode(body, type.charset);
    if (text === undefined) return unusable(tool, facts, "it is text in an unknown character set");
    return toResult(text, { structured });
  }
  if (!type.isJson && type.essence !== "")
    return unusable(tool, facts, `its type is ${type.essence.slice(0, 80)}, not JSON or text`);
  if (!isUtf8(body)) return unusable(tool, facts, "it is not UTF-8 text");
  const json = decode(body, "utf-8") ?? "";
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    // Small services often send text without saying what it is.
    if (!type.isJson && plan.pointer.length === 0) return toResult(json, { structured });
    return unusable(tool, facts, "it is not valid JSON");
  }
  if (plan.kind === "onex" && isObject(value) && value.success === false)
    return textResult(messageIn(value) ?? "The service reported a failure without a message.", true);
  if (plan.pointer.length === 0) return toResult(value, { structured, json });
  const found = resolvePointer(value, plan.pointer);
  return found === undefined
    ? textResult(`The answer of the service has nothing at /${plan.pointer.join("/")}.`, true)
    : toResult(found, { structured });
}

interface ContentType {
  /** In lower case, without parameters; empty where absent. */
  readonly essence: string;
  readonly isJson: boolean;
  readonly charset: string;
}

function contentType(headers: HttpHeaders): ContentType {
  const [essence = "", ...parameters] = first(headers["content-type"])
    .split(";")
    .map((part) => part.trim().toLowerCase());
  const charset = parameters.find((parameter) => parameter.startsWith("charset="))?.slice(8);
  return {
    essence,
    isJson: essence === "application/json" || essence.endsWith("+json"),
    charset: charset?.replaceAll('"', "") ?? "utf-8",
  };
}

function first(header: string | readonly string[] | undefined): string {
  return (typeof header === "string" ? header : (header?.[0] ?? "")).trim().toLowerCase();
}

/** Undefined where the character set is unknown. A byte order mark is left out. */
function decode(body: Buffer, charset: string): string | undefined {
  try {
    return new TextDecoder(charset).decode(body);
  } catch {
    return undefined;
  }
}

function messageOfBody({ body, headers }: HttpAnswer): string | undefined {
  const { isJson, essence } = contentType(headers);
  const encoding = first(headers["content-encoding"]);
  if (body.length === 0 || (encoding !== "" && encoding !== "identity")) return undefined;
  const text = body.toString("utf8");
  if (isJson) {
    try {
      return messageIn(JSON.parse(text));
    } catch {
      return undefined;
    }
  }
  return essence === "text/plain" ? shorten(text) : undefined;
}

/** What a service says about its own failure, in the members that services use for it; it is safe to show. */
export function messageIn(value: unknown): string | undefined {
  if (typeof value === "string") return shorten(value);
  if (!isObject(value)) return undefined;
  for (const member of [value.error, value.message, value.detail, value.title, value.errors]) {
    if (typeof member === "string" && member !== "") return shorten(member);
    if (isObject(member) && typeof member.message === "string") return shorten(member.message);
    if (typeof member === "object" && member !== null) return shorten(jsonText(member));
  }
  return undefined;
}

/** Empty where it is nested deeper than the stack bears. */
function jsonText(value: object): string {
  try {
    return JSON.stringify(value);
  } catch {
    return "";
  }
}

function shorten(text: string): string | undefined {
  const plain = withoutInternals(text).trim();
  if (plain === "") return undefined;
  return plain.length > maxMessageLength ? `${plain.slice(0, maxMessageLength)}…` : plain;
}

/** Retry-After: seconds, or a date. */
function retryAfter(headers: HttpHeaders): Pick<ErrorFacts, "retry_after_seconds"> {
  const text = first(headers["retry-after"]);
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
