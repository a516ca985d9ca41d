/**
 * Logging. Owns: the small interface the code logs through and its pino implementation. Logs go to stderr, always:
 * stdout belongs to command output and to MCP over stdio.
 */
import { pino, type Logger as PinoLogger } from "pino";
import pretty from "pino-pretty";
import { messageOf } from "./errors.ts";
import { redact, redactText } from "./redact.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, unknown>>;

/** A structured logger. Fields first, then the message, as pino does. */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** A logger that adds `fields` to every line. */
  child(fields: LogFields): Logger;
}

export interface LogOptions {
  readonly level?: LogLevel | "silent";
  /** `auto`: pretty where stderr is a terminal, JSON lines otherwise. Default auto. */
  readonly format?: "auto" | "pretty" | "json";
  /** Values to hide wherever they occur, whatever their key. Default none. */
  readonly secrets?: Iterable<string>;
}

/** A logger that writes to stderr. Secrets are redacted; a field that cannot be written never makes the caller fail. */
export function createLogger(options: LogOptions = {}): Logger {
  const usePretty = options.format === "pretty" || (options.format !== "json" && process.stderr.isTTY);
  const secrets = [...(options.secrets ?? [])];
  const settings = {
    level: options.level ?? "info",
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: {
      level: (label: string) => ({ level: label }),
      log: (fields: LogFields) => writable(fields, secrets),
    },
    // `writable` has made a plain object of every error already.
    serializers: { err: (value: unknown) => value },
  };
  const destination = usePretty
    ? pretty({
        destination: 2,
        sync: true,
        ignore: "pid,hostname",
        translateTime: "SYS:HH:MM:ss.l",
        singleLine: true,
      })
    : pino.destination({ dest: 2, sync: true });
  return wrap(pino(settings, destination), secrets);
}

function wrap(logger: PinoLogger, secrets: readonly string[]): Logger {
  const text = (message: string): string => redactText(message, secrets);
  return {
    debug: (fields, message) => logger.debug(fields, text(message)),
    info: (fields, message) => logger.info(fields, text(message)),
    warn: (fields, message) => logger.warn(fields, text(message)),
    error: (fields, message) => logger.error(fields, text(message)),
    // pino does not pass the fields of a child through `formatters`.
    child: (fields) => wrap(logger.child(writable(fields, secrets)), secrets),
  };
}

function writable(fields: LogFields, secrets: readonly string[]): Record<string, unknown> {
  try {
    return redact(plain(fields, 0), secrets) as Record<string, unknown>;
  } catch (thrown) {
    return { unwritable_fields: messageOf(thrown) };
  }
}

/** Levels of a field that are written; the rest is cut, which also ends a cycle. */
const maxDepth = 8;

/** The value with its errors and `toJSON` objects as plain ones, so that nothing in it escapes redaction. */
function plain(input: unknown, depth: number): unknown {
  const value = members(input);
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth > maxDepth) return "[cut]";
  if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item, depth + 1)]));
}

function members(value: unknown): unknown {
  if (value instanceof Error) {
    const { name, message, stack, cause } = value;
    const errors: unknown = value instanceof AggregateError ? value.errors : undefined;
    return Object.assign({ name, message, stack, cause, errors }, value);
  }
  if (typeof value === "object" && value !== null && "toJSON" in value && typeof value.toJSON === "function")
    return (value.toJSON as () => unknown)();
  return value;
}

/** A logger that writes nothing: for embedding and for tests. */
export const silentLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLogger,
};
