/** The Kafka library's errors as ours. Owns: what each of them means for a caller. */
import {
  InfraAuthenticationError,
  InfraConnectionError,
  OnexError,
  RuntimeHostError,
  messageOf,
} from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { tooLarge } from "./bus.ts";

/** The broker's code for what went wrong, wherever the library put it: UNKNOWN_TOPIC_OR_PARTITION, ... */
export function brokerCode(thrown: unknown): string | undefined {
  for (const { type } of chain(thrown)) {
    if (typeof type === "string") return type;
  }
  return undefined;
}

/** What a broker answered that may be otherwise the next time: a controller that moves, a queue that is full. */
export function transient(thrown: unknown): Error | undefined {
  for (const error of chain(thrown)) {
    if (typeof error.type === "string") {
      return error.retriable === true && error instanceof Error ? error : undefined;
    }
  }
  return undefined;
}

const tooLargeCodes: readonly (string | undefined)[] = [tooLarge, "RECORD_LIST_TOO_LARGE"];
const refusalCodes = /AUTHORIZATION_FAILED$|^POLICY_VIOLATION$|^INVALID_/;

/** @param doing what was tried, as in "publish to x" */
export function kafkaError(thrown: unknown, doing: string, target: string): OnexError {
  if (thrown instanceof OnexError) return thrown;
  const code = brokerCode(thrown);
  const facts = {
    transport: "kafka" as const,
    operation: doing,
    target,
    ...(code !== undefined && { broker_code: tooLargeCodes.includes(code) ? tooLarge : code }),
  };
  const options = { cause: thrown, facts };
  const text = `Kafka could not ${doing}: ${messageOf(thrown)}`;
  if (tooLargeCodes.includes(code)) {
    return new RuntimeHostError(`${text}; raise max.message.bytes of the topic or send less`, options);
  }
  if (isAuthentication(thrown, code)) return new InfraAuthenticationError(text, options);
  if (code !== undefined && refusalCodes.test(code)) return new RuntimeHostError(text, options);
  return new InfraConnectionError(text, options);
}

function isAuthentication(thrown: unknown, code: string | undefined): boolean {
  if (code === "SASL_AUTHENTICATION_FAILED" || code?.endsWith("AUTHORIZATION_FAILED") === true) return true;
  return [...chain(thrown)].some(({ name }) => name === "KafkaJSSASLAuthenticationError");
}

/** An error, its causes, and the parts of one that has several. */
function* chain(thrown: unknown, depth = 0): Generator<Record<string, unknown>> {
  if (depth > 8 || !(isObject(thrown) || thrown instanceof Error)) return;
  const error = thrown as Record<string, unknown>;
  yield error;
  yield* chain(error.cause, depth + 1);
  if (Array.isArray(error.errors)) for (const part of error.errors) yield* chain(part, depth + 1);
}
