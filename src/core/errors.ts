/**
 * The one table of errors. Owns: every error class the runtime raises, its code, its HTTP status, its JSON-RPC
 * code, whether a caller may try again and whether a circuit breaker counts it. Does not own: how an error is
 * written on a particular wire (see `http/problem.ts`, `mcp/server.ts`, `bus/envelope.ts`).
 */

/** What is known about a failure, as data. Never put these only into the message. */
export interface ErrorFacts {
  readonly transport?: "http" | "mcp" | "kafka" | "consul" | "inmemory" | "runtime" | "local";
  readonly operation?: string;
  readonly target?: string;
  readonly correlation_id?: string;
  /** Seconds after which a new attempt may succeed. */
  readonly retry_after_seconds?: number;
  /** The limit that ran out, in seconds. */
  readonly timeout_seconds?: number;
  readonly [fact: string]: unknown;
}

interface ErrorRow {
  readonly code: string;
  readonly httpStatus: number;
  /** JSON-RPC 2.0 code; our own lie outside -32768..-32000 only where the specification has none. */
  readonly rpcCode: number;
  readonly retryable: boolean;
  readonly countsForBreaker: boolean;
  /** Shown to clients instead of the message where the message may hold internals. */
  readonly publicMessage: string;
}

const row = (
  code: string,
  httpStatus: number,
  rpcCode: number,
  retryable: boolean,
  countsForBreaker: boolean,
  publicMessage: string,
): ErrorRow => ({ code, httpStatus, rpcCode, retryable, countsForBreaker, publicMessage });

/** Name of the class -> its row. `test/core/errors.test.ts` pins every cell. */
export const errorTable = {
  ProtocolConfigurationError: row(
    "ONEX_CORE_041_INVALID_CONFIGURATION",
    400,
    -32602,
    false,
    false,
    "The request or the configuration is not valid.",
  ),
  RuntimeHostError: row("ONEX_CORE_081_OPERATION_FAILED", 500, -32603, false, false, "The operation failed."),
  HandlerLoadError: row(
    "ONEX_CORE_081_OPERATION_FAILED",
    500,
    -32603,
    false,
    false,
    "A handler could not be loaded.",
  ),
  InfraConnectionError: row(
    "ONEX_CORE_090_NETWORK_ERROR",
    502,
    -32603,
    true,
    true,
    "The service could not be reached.",
  ),
  InfraTimeoutError: row(
    "ONEX_CORE_092_TIMEOUT_ERROR",
    504,
    -32603,
    true,
    true,
    "The operation took too long.",
  ),
  InfraAuthenticationError: row(
    "ONEX_CORE_163_AUTHENTICATION_ERROR",
    401,
    -32603,
    false,
    false,
    "Authentication failed.",
  ),
  AuthorizationError: row("ONEX_CORE_163_AUTHENTICATION_ERROR", 403, -32603, false, false, "Not permitted."),
  InfraUnavailableError: row(
    "ONEX_CORE_205_SERVICE_UNAVAILABLE",
    503,
    -32603,
    true,
    false,
    "The service is not available at the moment.",
  ),
  ToolNotFoundError: row("ONEX_CORE_205_SERVICE_UNAVAILABLE", 404, -32602, false, false, "Unknown tool."),
  EnvelopeValidationError: row(
    "ONEX_CORE_007_INVALID_INPUT",
    400,
    -32602,
    false,
    false,
    "The envelope is not valid.",
  ),
  UnknownHandlerTypeError: row(
    "ONEX_CORE_007_INVALID_INPUT",
    404,
    -32602,
    false,
    false,
    "No handler serves this operation.",
  ),
  SecretResolutionError: row(
    "ONEX_CORE_085_RESOURCE_NOT_FOUND",
    500,
    -32603,
    false,
    false,
    "A secret could not be resolved.",
  ),
  CancelledError: row("ONEX_CORE_081_OPERATION_FAILED", 499, -32603, false, false, "The call was cancelled."),
} as const satisfies Record<string, ErrorRow>;

export type ErrorName = keyof typeof errorTable;

export interface ErrorOptions {
  readonly cause?: unknown;
  readonly facts?: ErrorFacts;
  /** Overrides the table's `retryable` where this one occurrence differs. */
  readonly retryable?: boolean;
}

/** Base of every error of the runtime. `message` is plain text; `describe()` has the `[CODE] ` prefix. */
export abstract class OnexError extends Error {
  readonly code: string;
  readonly httpStatus: number;
  readonly rpcCode: number;
  readonly retryable: boolean;
  readonly countsForBreaker: boolean;
  readonly publicMessage: string;
  readonly facts: ErrorFacts;

  constructor(name: ErrorName, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const entry = errorTable[name];
    this.name = name;
    this.code = entry.code;
    this.httpStatus = entry.httpStatus;
    this.rpcCode = entry.rpcCode;
    this.retryable = options.retryable ?? entry.retryable;
    this.countsForBreaker = entry.countsForBreaker;
    this.publicMessage = entry.publicMessage;
    this.facts = Object.freeze({ ...options.facts });
  }

  /** Adds facts that are learnt on the way to the edge. Only for an error that no other call has. */
  note(facts: ErrorFacts): void {
    (this as { facts: ErrorFacts }).facts = Object.freeze({ ...this.facts, ...facts });
  }

  /** `[CODE] message`, for logs and envelopes. */
  describe(): string {
    return `[${this.code}] ${this.message}`;
  }
}

/** A value in a configuration, or a request shaped by one, is missing, of the wrong type or out of range. */
export class ProtocolConfigurationError extends OnexError {
  constructor(message: string, options?: ErrorOptions) {
    super("ProtocolConfigurationError", message, options);
  }
}

/** The runtime or a handler is not in a state to do this, or failed doing it. */
export class RuntimeHostError extends OnexError {
  constructor(message: string, options?: ErrorOptions) {
    super("RuntimeHostError", message, options);
  }
}

/** A handler contract or its class could not be loaded; `loaderCode` is one of `HANDLER_LOADER_001..040`. */
export class HandlerLoadError extends OnexError {
  readonly loaderCode: string;
  constructor(loaderCode: string, message: string, options?: ErrorOptions) {
    super("HandlerLoadError", `${loaderCode}: ${message}`, options);
    this.loaderCode = loaderCode;
  }
}

const unavailableTransports = new Set(["kafka", "consul", "mcp"]);

/** A peer refused or dropped the connection. The code depends on `facts.transport`. */
export class InfraConnectionError extends OnexError {
  override readonly code: string;
  constructor(message: string, options?: ErrorOptions) {
    super("InfraConnectionError", message, options);
    this.code = unavailableTransports.has(options?.facts?.transport ?? "")
      ? errorTable.InfraUnavailableError.code
      : errorTable.InfraConnectionError.code;
  }
}

/** A deadline passed. `facts.timeout_seconds` is the deadline. */
export class InfraTimeoutError extends OnexError {
  constructor(
    message: string,
    options: ErrorOptions & { readonly facts: ErrorFacts & { readonly timeout_seconds: number } },
  ) {
    super("InfraTimeoutError", message, options);
  }
}

/** Credentials are missing or wrong. */
export class InfraAuthenticationError extends OnexError {
  constructor(message: string, options?: ErrorOptions) {
    super("InfraAuthenticationError", message, options);
  }
}

/** The caller is known but lacks the role that is needed. */
export class AuthorizationError extends OnexError {
  constructor(message: string, options?: ErrorOptions) {
    super("AuthorizationError", message, options);
  }
}

/** Not available now: an open breaker, a draining process, no live instance. */
export class InfraUnavailableError extends OnexError {
  /** @param name the row of a subclass */
  constructor(
    message: string,
    options?: ErrorOptions,
    name: "InfraUnavailableError" | "ToolNotFoundError" = "InfraUnavailableError",
  ) {
    super(name, message, options);
  }
}

/** No tool of this name in the present snapshot. An `InfraUnavailableError` that cannot be retried. */
export class ToolNotFoundError extends InfraUnavailableError {
  constructor(toolName: string, options?: ErrorOptions) {
    const facts = { ...options?.facts, tool_name: toolName };
    super(`Unknown tool: ${toolName}`, { ...options, facts }, "ToolNotFoundError");
  }
}

/** The text is not an envelope, or the envelope breaks a rule. */
export class EnvelopeValidationError extends OnexError {
  constructor(message: string, options?: ErrorOptions) {
    super("EnvelopeValidationError", message, options);
  }
}

/** No handler has the prefix of the envelope's operation. */
export class UnknownHandlerTypeError extends OnexError {
  constructor(message: string, options?: ErrorOptions) {
    super("UnknownHandlerTypeError", message, options);
  }
}

/** A `${env:…}` or `${file:…}` secret has no value. */
export class SecretResolutionError extends OnexError {
  constructor(message: string, options?: ErrorOptions) {
    super("SecretResolutionError", message, options);
  }
}

/** The caller went away or withdrew the request. Nobody waits for the answer. */
export class CancelledError extends OnexError {
  constructor(message = "The call was cancelled.", options?: ErrorOptions) {
    super("CancelledError", message, options);
  }
}

/**
 * Any thrown value as text: the message of an `Error` or of another object that has one, else its string form. Never
 * throws. A refused connection to a name with several addresses is an `AggregateError` without a message: then those of
 * its errors.
 */
export function messageOf(thrown: unknown): string {
  try {
    if (thrown instanceof AggregateError && thrown.message === "" && thrown.errors.length > 0)
      return thrown.errors.map(messageOf).join("; ");
    const message: unknown =
      typeof thrown === "object" && thrown !== null && "message" in thrown ? thrown.message : undefined;
    return typeof message === "string" && message !== "" ? message : String(thrown);
  } catch {
    return "a value that has no text form";
  }
}

/** The value as an `OnexError`; anything foreign becomes a `RuntimeHostError` with it as `cause`. */
export function toOnexError(thrown: unknown): OnexError {
  if (thrown instanceof OnexError) return thrown;
  return new RuntimeHostError(messageOf(thrown), { cause: thrown });
}
