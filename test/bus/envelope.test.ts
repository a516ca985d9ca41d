import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  errorAnswer,
  parseEnvelope,
  readEnvelope,
  successAnswer,
  type Answer,
  type EnvelopeResult,
} from "../../src/bus/envelope.ts";
import { CancelledError, InfraUnavailableError } from "../../src/core/errors.ts";
import { isTopicName } from "../../src/core/topic-name.ts";

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const facts = { handlerId: "proto.greet", processingTimeMs: 1.23456 };
const address = { operation: "greet.hello", correlation_id: "c", envelope_id: "e" };

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
function refused(result: EnvelopeResult) {
  if (result.ok) throw new Error("expected a refusal");
  return result;
}
function accepted(result: EnvelopeResult) {
  if (!result.ok) throw result.error;
  return result;
}

describe("reading an envelope", () => {
  test("a whole envelope is kept as it is", () => {
    const envelope = {
      operation: "greet.hello",
      payload: { name: "Ada" },
      correlation_id: "c-1",
      envelope_id: "e-1",
      message_id: "m-1",
      handler_type: "greet",
      headers: { message_id: "h-1", other: 1 },
      metadata: { a: [1] },
      reply_to: "answers",
    };
    const result = accepted(parseEnvelope(bytes(JSON.stringify({ ...envelope, unknown: true }))));
    expect(result.envelope).toEqual(envelope);
    expect(result.given).toEqual({ correlation_id: true, envelope_id: true });
  });

  test("an operation is enough: the rest has defaults, ids are fresh UUIDs", () => {
    const { envelope, given } = accepted(parseEnvelope('{"operation": "greet.hello"}'));
    expect(envelope).toMatchObject({ payload: {}, headers: {}, metadata: {} });
    expect(envelope.correlation_id).toMatch(uuid);
    expect(envelope.envelope_id).toMatch(uuid);
    expect(envelope.correlation_id).not.toBe(envelope.envelope_id);
    expect(given).toEqual({ correlation_id: false, envelope_id: false });
    expect(envelope).not.toHaveProperty("message_id");
  });

  test.each([null, "", 7, true, {}, []])(
    "an unusable correlation_id or envelope_id (%j) becomes a fresh UUID, never an error",
    (id) => {
      const { envelope } = accepted(
        readEnvelope({ operation: "greet.hello", correlation_id: id, envelope_id: id }),
      );
      expect(envelope.correlation_id).toMatch(uuid);
      expect(envelope.envelope_id).toMatch(uuid);
    },
  );

  test("any non-empty string is an id", () => {
    const { envelope } = accepted(
      readEnvelope({ operation: "greet.hello", correlation_id: "not a uuid", envelope_id: " " }),
    );
    expect(envelope).toMatchObject({ correlation_id: "not a uuid", envelope_id: " " });
  });

  test.each([
    ["an array", "[]", /got an array/],
    ["a number", "7", /got a number/],
    ["null", "null", /got null/],
    ["a string", '"greet.hello"', /got a string/],
    ["broken JSON", '{"operation": ', /not JSON/],
    ["nothing", "", /not JSON/],
    ["a byte order mark", '\uFEFF{"operation":"greet.hello"}', /byte order mark/],
    ["no operation", "{}", /operation is missing/],
    ["an operation without a verb", '{"operation":"greet"}', /operation.*got "greet"/],
    ["an operation without a type", '{"operation":".hello"}', /operation.*got ".hello"/],
    ["an operation with spaces", '{"operation":"greet. hello"}', /operation/],
    ["a payload that is a list", '{"operation":"greet.hello","payload":[1]}', /payload.*got an array/],
    ["headers that are text", '{"operation":"greet.hello","headers":"x"}', /headers.*got "x"/],
    ["a numeric message_id", '{"operation":"greet.hello","message_id":42}', /message_id.*got 42/],
    [
      "a numeric message_id in headers",
      '{"operation":"greet.hello","headers":{"message_id":4}}',
      /headers.*message_id/,
    ],
    ["a reply_to that is no topic", '{"operation":"greet.hello","reply_to":"a b"}', /reply_to.*got "a b"/],
  ])("%s is an error that says so", (_what, text, message) => {
    const result = refused(parseEnvelope(bytes(text)));
    expect(result.error.message).toMatch(message);
    expect(result.error.code).toBe("ONEX_CORE_007_INVALID_INPUT");
    expect(result.answerable).toBe(true);
    expect(result.partial.correlation_id).not.toBe("");
  });

  test("bad UTF-8 is an error, not a guess", () => {
    const result = refused(parseEnvelope(Uint8Array.of(0x7b, 0xff, 0xfe, 0x7d)));
    expect(result.error.message).toMatch(/UTF-8/);
    expect(result.partial.correlation_id).toMatch(uuid);
  });

  test("every problem is named at once, and what could be used is kept for the answer", () => {
    const result = refused(
      readEnvelope({
        operation: "greet",
        payload: 1,
        correlation_id: "c-1",
        envelope_id: "e-1",
        message_id: "m-1",
        reply_to: "answers",
      }),
    );
    expect(result.error.message).toMatch(/operation.*payload/);
    expect(result.partial).toEqual({
      operation: "greet",
      correlation_id: "c-1",
      envelope_id: "e-1",
      message_id: "m-1",
      reply_to: "answers",
    });
  });

  test("an answer is not an envelope, and may not be answered", () => {
    for (const answer of [successAnswer(address, 1, facts), errorAnswer(address, new Error("x"), facts)]) {
      expect(refused(parseEnvelope(JSON.stringify(answer))).answerable).toBe(false);
    }
  });

  test("a payload keeps a __proto__ key as data and pollutes nothing", () => {
    const { envelope } = accepted(parseEnvelope('{"operation":"a.b","payload":{"__proto__":{"evil":1}}}'));
    expect(Object.keys(envelope.payload)).toEqual(["__proto__"]);
    expect(({} as Record<string, unknown>).evil).toBeUndefined();
  });
});

describe("answers", () => {
  test("a success carries payload and ids, an error a code, a prefixed message and whether to retry", () => {
    expect(
      successAnswer({ ...address, message_id: "m" }, { at: new Date(0), skip: undefined }, facts),
    ).toEqual({
      success: true,
      status: "success",
      operation: "greet.hello",
      payload: { at: "1970-01-01T00:00:00.000Z" },
      correlation_id: "c",
      envelope_id: "e",
      message_id: "m",
      handler_id: "proto.greet",
      processing_time_ms: 1.235,
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
    });
    const failed = errorAnswer(address, new InfraUnavailableError("later"), facts);
    expect(failed).toMatchObject({
      success: false,
      status: "error",
      message_id: null,
      error: {
        code: "ONEX_CORE_205_SERVICE_UNAVAILABLE",
        message: "[ONEX_CORE_205_SERVICE_UNAVAILABLE] later",
        retryable: true,
      },
    });
    expect(failed).not.toHaveProperty("payload");
  });

  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  let deep: unknown = 1;
  for (let level = 0; level < 100_000; level += 1) deep = [deep];
  test.each([
    ["a BigInt", { n: 1n }],
    ["a cycle", cycle],
    ["a function", () => 1],
    ["a hundred thousand levels", deep],
    [
      "a toJSON that throws",
      {
        toJSON: () => {
          throw new Error("no");
        },
      },
    ],
  ])("a handler that returns %s gets an error answer", (_what, value) => {
    const answer = successAnswer(address, value, facts);
    expect(answer.status).toBe("error");
    expect(answer.error?.message).toMatch(/^\[ONEX_CORE_081_OPERATION_FAILED\] .*not JSON/);
  });

  test("nothing returned is null", () => {
    expect(successAnswer(address, undefined, facts).payload).toBeNull();
  });

  test.each([[undefined], ["text"], [null], [7n], [Object.create(null)], [new CancelledError()]])(
    "whatever was thrown, there is an answer (%#)",
    (thrown) => {
      expect(JSON.parse(JSON.stringify(errorAnswer(address, thrown, facts)))).toMatchObject({
        status: "error",
      });
    },
  );
});

describe("whatever comes in", () => {
  const expectAnswerable = (result: EnvelopeResult): void => {
    const answer: Answer = result.ok
      ? successAnswer(result.envelope, result.envelope.payload, facts)
      : errorAnswer(result.partial, result.error, facts);
    expect(JSON.parse(JSON.stringify(answer))).toEqual(answer);
    expect(answer.correlation_id).not.toBe("");
    expect(answer.envelope_id).not.toBe("");
  };

  test("any bytes yield an answer, never a throw", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (input) => expectAnswerable(parseEnvelope(input))),
    );
  });

  test("any JSON yields an answer, never a throw", () => {
    fc.assert(fc.property(fc.json(), (input) => expectAnswerable(parseEnvelope(input))));
  });

  test("an object with the right keys and any values yields an answer, never a throw", () => {
    const anything = fc.oneof(fc.jsonValue(), fc.constantFrom("greet.hello", "topic", true, false));
    const keys = [
      "operation",
      "payload",
      "correlation_id",
      "envelope_id",
      "message_id",
      "handler_type",
      "headers",
      "metadata",
      "reply_to",
      "success",
      "status",
      "processing_time_ms",
    ];
    const shape = Object.fromEntries(keys.map((key) => [key, anything]));
    fc.assert(
      fc.property(fc.record(shape, { requiredKeys: [] }), (input) => expectAnswerable(readEnvelope(input))),
      { numRuns: 1000 },
    );
  });
});

test("topic names are 1 to 249 of a-z A-Z 0-9 . _ -, and not dots alone", () => {
  for (const name of ["a", "A.b_c-9", "...", "x".repeat(249)]) expect(isTopicName(name)).toBe(true);
  for (const name of ["", ".", "..", "a b", "a/b", "ä", "a\n", "x".repeat(250)])
    expect(isTopicName(name)).toBe(false);
});
