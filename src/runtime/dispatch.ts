/**
 * From an envelope to its answer. Owns: which handler an envelope goes to, at most one success per message, and that
 * every envelope gets exactly one answer. Does not own: how a handler is called (`call.ts`), the bus (`host.ts`).
 */
import {
  errorAnswer,
  successAnswer,
  type Answer,
  type AnswerAddress,
  type Envelope,
  type EnvelopeResult,
} from "../bus/envelope.ts";
import type { Clock } from "../core/clock.ts";
import { EnvelopeValidationError, UnknownHandlerTypeError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { HandlerCalls } from "./call.ts";
import { Idempotency } from "./idempotency.ts";
import { Slots } from "./lanes.ts";
import type { ActiveHandler } from "./start.ts";

export interface Route {
  /** `handler_id` of its answers. */
  readonly id: string;
  readonly calls: HandlerCalls;
}

export interface DispatchParts {
  /** By protocol type. */
  readonly routes: ReadonlyMap<string, Route>;
  /** Why a type that was expected has no route, by type. */
  readonly absent: ReadonlyMap<string, string>;
  /** Calls of handlers at once. */
  readonly slots: Slots;
  readonly idempotency: Idempotency;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface DispatchOptions extends Pick<DispatchParts, "absent" | "clock" | "log"> {
  readonly maxConcurrency: number;
}

/** Routes to these handlers, with nothing remembered and nothing running. */
export function dispatchParts(
  active: readonly ActiveHandler[],
  { maxConcurrency, ...rest }: DispatchOptions,
): DispatchParts {
  const routeOf = ({ found, handler }: ActiveHandler): [string, Route] => [
    found.type,
    {
      id: handler.handlerId ?? found.contract.id,
      calls: new HandlerCalls(handler, found.contract, rest.clock),
    },
  ];
  return {
    routes: new Map(active.map(routeOf)),
    slots: new Slots(maxConcurrency),
    idempotency: new Idempotency(rest.clock),
    ...rest,
  };
}

/**
 * The answer to a message that was read. Never rejects.
 *
 * @param messageId the bus message's own `message_id`, for a sender that writes it there
 */
export async function dispatch(
  parts: DispatchParts,
  read: EnvelopeResult,
  signal: AbortSignal,
  messageId?: string,
): Promise<Answer> {
  const startedAt = parts.clock.now();
  const facts = (
    handlerId: string | null = null,
  ): { handlerId: string | null; processingTimeMs: number } => ({
    handlerId,
    processingTimeMs: parts.clock.now() - startedAt,
  });
  if (!read.ok) return errorAnswer(read.partial, read.error, facts());
  const { envelope } = read;
  let route: Route;
  try {
    route = findRoute(parts, envelope);
  } catch (thrown) {
    return errorAnswer(envelope, thrown, facts());
  }
  const execute = async (): Promise<Answer> => {
    try {
      const payload = await route.calls.call(envelope, signal, parts.slots);
      return successAnswer(envelope, payload, facts(route.id));
    } catch (thrown) {
      parts.log.warn(
        { operation: envelope.operation, correlation_id: envelope.correlation_id, err: thrown },
        `${envelope.operation} failed`,
      );
      return errorAnswer(envelope, thrown, facts(route.id));
    }
  };
  const key = idempotencyKey(read.envelope, read.given.envelope_id, messageId);
  if (key === undefined) return await execute();
  try {
    const outcome = await parts.idempotency.once(key, execute, signal);
    return outcome.duplicate
      ? duplicateOf(outcome.answer, read, facts(route.id).processingTimeMs)
      : outcome.answer;
  } catch (thrown) {
    // Only the wait for another one's answer can be given up.
    return errorAnswer(envelope, thrown, facts(route.id));
  }
}

/** @throws UnknownHandlerTypeError, EnvelopeValidationError where `handler_type` says otherwise */
function findRoute(parts: DispatchParts, envelope: Envelope): Route {
  const { operation, handler_type: stated } = envelope;
  const type = operation.slice(0, operation.indexOf("."));
  const facts = { operation, correlation_id: envelope.correlation_id };
  if (stated !== undefined && stated !== type) {
    throw new EnvelopeValidationError(
      `Invalid envelope: handler_type is ${JSON.stringify(stated)}, but operation ${JSON.stringify(operation)} is for ${JSON.stringify(type)}; leave handler_type out or make them agree`,
      { facts },
    );
  }
  const route = parts.routes.get(type);
  if (route !== undefined) return route;
  const why = parts.absent.get(type);
  throw new UnknownHandlerTypeError(
    why === undefined
      ? `no handler of type ${JSON.stringify(type)}; there is ${[...parts.routes.keys()].sort().join(", ")}`
      : `handler ${type} is not available: ${why}`,
    { facts },
  );
}

/**
 * What makes two messages the same one; undefined where the sender gave nothing to tell by. The operation is part of
 * it: an id that a sender uses for two different operations must not get it the wrong answer.
 */
function idempotencyKey(
  envelope: Envelope,
  givenEnvelopeId: boolean,
  busMessageId: string | undefined,
): string | undefined {
  const { message_id: inHeaders } = envelope.headers;
  const id =
    (typeof inHeaders === "string" ? inHeaders : undefined) ??
    busMessageId ??
    envelope.message_id ??
    (givenEnvelopeId ? envelope.envelope_id : undefined);
  return id === undefined ? undefined : `${envelope.operation} ${id}`;
}

/** The first answer again, under the ids that this sender gave. */
function duplicateOf(
  answer: Answer,
  read: Extract<EnvelopeResult, { readonly ok: true }>,
  processingTimeMs: number,
): Answer {
  const address: AnswerAddress = {
    ...read.envelope,
    correlation_id: read.given.correlation_id ? read.envelope.correlation_id : answer.correlation_id,
    envelope_id: read.given.envelope_id ? read.envelope.envelope_id : answer.envelope_id,
  };
  return {
    ...successAnswer(address, answer.payload, { handlerId: answer.handler_id, processingTimeMs }),
    status: "duplicate",
  };
}
