/**
 * The envelope: what the host takes in and what it answers. Owns: both formats, reading an envelope from bytes that
 * may be anything, and building the answer. Does not own: routing and execution (`runtime/dispatch.ts`).
 *
 * 1. Whatever comes in, reading it never throws; what cannot be read still yields the ids an answer needs.
 * 2. Whatever a handler returned or threw, building the answer never throws, and the answer is plain JSON.
 * 3. An answer is never taken for an envelope: two hosts that read each other's topics must not talk for ever.
 */
import { randomUUID } from "node:crypto";
import { z } from "zod";
import { EnvelopeValidationError, RuntimeHostError, messageOf, toOnexError } from "../core/errors.ts";
import { isObject, toJsonValue, type JsonValue } from "../core/json.ts";
import { publicMessage } from "../core/public-text.ts";
import { isTopicName } from "../core/topic-name.ts";

/** A validated envelope. */
export interface Envelope {
  /** `<type>.<verb>`. */
  readonly operation: string;
  readonly payload: Readonly<Record<string, unknown>>;
  readonly correlation_id: string;
  readonly envelope_id: string;
  readonly message_id?: string;
  readonly handler_type?: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly reply_to?: string;
}

export interface AnswerError {
  /** A code of the error table. */
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
}

/** What comes back for an envelope. `payload` when `success`, else `error`. */
export interface Answer {
  readonly success: boolean;
  readonly status: "success" | "error" | "duplicate";
  readonly operation: string | null;
  readonly payload?: JsonValue;
  readonly error?: AnswerError;
  readonly correlation_id: string;
  readonly envelope_id: string;
  readonly message_id: string | null;
  readonly handler_id: string | null;
  readonly processing_time_ms: number;
  /** ISO 8601, UTC. */
  readonly timestamp: string;
}

/** What an answer needs to know of the message it answers. */
export interface AnswerAddress {
  readonly operation?: string;
  readonly correlation_id: string;
  readonly envelope_id: string;
  readonly message_id?: string;
  readonly reply_to?: string;
}

/** An id that a message came without: the same one each time the message is read. */
export type MakeId = (field: "correlation_id" | "envelope_id") => string;

/** Which ids are the message's own, given or always the same; the others were made here at random. */
export interface GivenIds {
  readonly correlation_id: boolean;
  readonly envelope_id: boolean;
}

export type EnvelopeResult =
  | { readonly ok: true; readonly envelope: Envelope; readonly given: GivenIds }
  | {
      readonly ok: false;
      readonly error: EnvelopeValidationError;
      /** What of the message could be used. */
      readonly partial: AnswerAddress;
      /** False: the message is itself an answer, so nothing may be sent back. (3) */
      readonly answerable: boolean;
    };

const object = z.custom<Record<string, unknown>>(isObject, "expected an object");
const id = z.string("expected a non-empty string").min(1, "expected a non-empty string");
const idInHeaders = z.looseObject({ message_id: id.nullish() });

const envelopeSchema = z.object({
  operation: z
    .string("expected a string <type>.<verb>")
    .max(200, "expected at most 200 characters")
    .regex(/^[^.\s]+\.\S+$/, "expected <type>.<verb>, as in mcp.list_tools"),
  payload: object.nullish(),
  message_id: id.nullish(),
  handler_type: id.nullish(),
  headers: object
    .refine((headers) => idInHeaders.safeParse(headers).success, {
      error: "expected message_id in it to be a non-empty string",
    })
    .nullish(),
  metadata: object.nullish(),
  reply_to: z
    .custom<string>((value) => typeof value === "string" && isTopicName(value), {
      error: "expected a topic name: 1 to 249 of a-z A-Z 0-9 . _ -",
    })
    .nullish(),
});

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * An envelope from the bytes or the text of a message. Never throws. (1)
 *
 * @param makeId default: a random UUID
 */
export function parseEnvelope(input: Uint8Array | string, makeId?: MakeId): EnvelopeResult {
  let value: unknown;
  try {
    const body = typeof input === "string" ? input : decoder.decode(input);
    if (body.startsWith("\uFEFF"))
      return unreadable("it starts with a byte order mark; send UTF-8 without one", makeId);
    value = JSON.parse(body);
  } catch (thrown) {
    return unreadable(
      thrown instanceof SyntaxError ? `it is not JSON (${thrown.message})` : "it is not valid UTF-8",
      makeId,
    );
  }
  return readEnvelope(value, makeId);
}

/** An envelope from a value that was JSON. Never throws. (1) */
export function readEnvelope(value: unknown, makeId?: MakeId): EnvelopeResult {
  if (!isObject(value)) {
    const what = Array.isArray(value) ? "an array" : value === null ? "null" : `a ${typeof value}`;
    return unreadable(`expected a JSON object, got ${what}`, makeId);
  }
  const correlation = usableId(value.correlation_id);
  const envelope = usableId(value.envelope_id);
  const ids = {
    correlation_id: correlation ?? makeId?.("correlation_id") ?? randomUUID(),
    envelope_id: envelope ?? makeId?.("envelope_id") ?? randomUUID(),
  };
  const isOwn = makeId !== undefined;
  const parsed = envelopeSchema.safeParse(value);
  if (!parsed.success || isAnswer(value)) {
    const messageId = usableId(value.message_id);
    const reply = value.reply_to;
    return {
      ok: false,
      error: invalidEnvelope(
        isAnswer(value)
          ? "it is an answer, not an envelope"
          : (parsed.error?.issues ?? [])
              .map((issue) => problem(issue.path.join("."), issue.message, value))
              .join("; "),
        ids.correlation_id,
      ),
      partial: {
        ...ids,
        ...(typeof value.operation === "string" && { operation: value.operation.slice(0, 200) }),
        ...(messageId !== undefined && { message_id: messageId }),
        ...(typeof reply === "string" && isTopicName(reply) && { reply_to: reply }),
      },
      answerable: !isAnswer(value),
    };
  }
  const fields = parsed.data;
  return {
    ok: true,
    given: {
      correlation_id: isOwn || correlation !== undefined,
      envelope_id: isOwn || envelope !== undefined,
    },
    envelope: {
      operation: fields.operation,
      payload: fields.payload ?? {},
      ...ids,
      ...(typeof fields.message_id === "string" && { message_id: fields.message_id }),
      ...(typeof fields.handler_type === "string" && { handler_type: fields.handler_type }),
      headers: fields.headers ?? {},
      metadata: fields.metadata ?? {},
      ...(typeof fields.reply_to === "string" && { reply_to: fields.reply_to }),
    },
  };
}

/** The answer of a handler that returned `payload`; an error answer where that has no JSON form. Never throws. (2) */
export function successAnswer(
  address: AnswerAddress,
  payload: unknown,
  facts: { readonly handlerId: string | null; readonly processingTimeMs: number },
): Answer {
  let json: JsonValue;
  try {
    json = toJsonValue(payload);
  } catch (thrown) {
    // A RangeError, not a NotJsonError, where the value is nested deeper than the stack.
    return errorAnswer(
      address,
      new RuntimeHostError(`the handler returned a value that is not JSON: ${messageOf(thrown)}`),
      facts,
    );
  }
  return { success: true, status: "success", payload: json, ...common(address, facts) };
}

/** The answer for anything thrown: `[CODE] ` and its message, without paths and addresses. Never throws. (2) */
export function errorAnswer(
  address: AnswerAddress,
  thrown: unknown,
  facts: { readonly handlerId: string | null; readonly processingTimeMs: number },
): Answer {
  const error = toOnexError(thrown);
  return {
    success: false,
    status: "error",
    error: {
      code: error.code,
      message: `[${error.code}] ${publicMessage(thrown)}`,
      retryable: error.retryable,
    },
    ...common(address, facts),
  };
}

function common(
  address: AnswerAddress,
  facts: { readonly handlerId: string | null; readonly processingTimeMs: number },
): Pick<
  Answer,
  | "operation"
  | "correlation_id"
  | "envelope_id"
  | "message_id"
  | "handler_id"
  | "processing_time_ms"
  | "timestamp"
> {
  return {
    operation: address.operation ?? null,
    correlation_id: address.correlation_id,
    envelope_id: address.envelope_id,
    message_id: address.message_id ?? null,
    handler_id: facts.handlerId,
    processing_time_ms: Math.round(facts.processingTimeMs * 1000) / 1000,
    timestamp: new Date().toISOString(),
  };
}

function usableId(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function isAnswer(value: Record<string, unknown>): boolean {
  return (
    typeof value.success === "boolean" && typeof value.status === "string" && "processing_time_ms" in value
  );
}

function problem(path: string, message: string, value: Record<string, unknown>): string {
  const given = value[path];
  if (given === undefined) return `${path} is missing: ${message}`;
  return `${path}: ${message}, got ${shown(given)}`;
}

function shown(value: unknown): string {
  if (typeof value === "string")
    return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "an array" : "an object";
  return String(value);
}

function invalidEnvelope(why: string, correlationId: string): EnvelopeValidationError {
  return new EnvelopeValidationError(`Invalid envelope: ${why}`, {
    facts: { correlation_id: correlationId },
  });
}

function unreadable(why: string, makeId: MakeId = () => randomUUID()): EnvelopeResult {
  const ids = { correlation_id: makeId("correlation_id"), envelope_id: makeId("envelope_id") };
  return { ok: false, error: invalidEnvelope(why, ids.correlation_id), partial: ids, answerable: true };
}
