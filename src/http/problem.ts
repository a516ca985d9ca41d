/**
 * Errors on plain HTTP routes: RFC 9457 `application/problem+json`. Owns the form. What a client reads is the
 * public text of the error table, never an error's own message. The MCP path answers in JSON-RPC instead.
 */
import { STATUS_CODES } from "node:http";
import { errorTable, toOnexError } from "../core/errors.ts";

export interface Problem {
  /** `about:blank`: the status says what it is; `code` says more. */
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  /** A code of the error table. */
  readonly code: string;
  /** The path of the request, where known. */
  readonly instance?: string;
}

export interface ProblemOptions {
  /** For the reader: what is wrong and what to do. Default the status's own phrase. */
  readonly detail?: string;
  readonly code?: string;
  readonly instance?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const problemType = "application/problem+json";

const invalidInput = errorTable.EnvelopeValidationError.code;

/** Codes of failures that are HTTP's own and have no class of ours. */
const codeOfStatus: Readonly<Record<number, string>> = {
  401: errorTable.InfraAuthenticationError.code,
  403: errorTable.AuthorizationError.code,
  404: errorTable.SecretResolutionError.code,
  408: errorTable.InfraTimeoutError.code,
  503: errorTable.InfraUnavailableError.code,
  504: errorTable.InfraTimeoutError.code,
};

/** A problem as data. */
export function toProblem(status: number, options: Omit<ProblemOptions, "headers"> = {}): Problem {
  const title = STATUS_CODES[status] ?? (status < 500 ? "Request failed" : "Internal Server Error");
  return {
    type: "about:blank",
    title,
    status,
    detail: options.detail ?? `${title}.`,
    code:
      options.code ??
      codeOfStatus[status] ??
      (status < 500 ? invalidInput : errorTable.RuntimeHostError.code),
    ...(options.instance === undefined ? {} : { instance: options.instance }),
  };
}

/** A problem as an answer. 401 always carries a challenge. */
export function problem(status: number, options: ProblemOptions = {}): Response {
  return problemResponse(toProblem(status, options), options.headers);
}

/** The answer that says `body`. */
export function problemResponse(body: Problem, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(JSON.stringify(body), { status: body.status, headers: problemHeaders(body, headers) });
}

/** Header fields of the answer that says `body`, for those who write it on a raw response. */
export function problemHeaders(
  body: Problem,
  headers: Readonly<Record<string, string>> = {},
): Record<string, string> {
  return {
    "content-type": problemType,
    "cache-control": "no-store",
    ...(body.status === 401 ? { "www-authenticate": 'Bearer realm="onex-runtime"' } : {}),
    ...headers,
  };
}

/** Anything thrown, as an answer: status and code from the table, `retry-after` where the error knows it. */
export function problemOf(thrown: unknown, instance?: string): Response {
  const error = toOnexError(thrown);
  const after = error.facts.retry_after_seconds;
  return problem(error.httpStatus, {
    detail: error.publicMessage,
    code: error.code,
    ...(instance === undefined ? {} : { instance }),
    headers: after === undefined ? {} : { "retry-after": String(Math.max(0, Math.ceil(after))) },
  });
}
