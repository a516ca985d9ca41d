import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { InfraConnectionError, RuntimeHostError } from "../../src/core/errors.ts";
import {
  answerOf,
  callOf,
  executorOf,
  json,
  never,
  onex,
  rest,
  service,
  textOf,
  type Reply,
} from "./helpers.ts";

describe("kind onex", () => {
  test("posts the envelope to endpoint and path", async () => {
    const { origin, requests } = await service((_request, response) => json(response, { ok: 1 }));
    const executor = executorOf([onex(`${origin}/base/`, "/run")]);
    const result = await executor.call(callOf({ city: "Ulm" }), never);
    expect(result).toEqual({
      content: [{ type: "text", text: '{"ok":1}' }],
      structuredContent: { ok: 1 },
      structuredText: '{"ok":1}',
      isError: false,
    });
    const [request] = requests;
    expect(request).toMatchObject({
      method: "POST",
      url: "/base/run",
      headers: {
        "content-type": "application/json",
        accept: "application/json, text/*;q=0.9, */*;q=0.8",
        "x-correlation-id": "corr-1",
      },
    });
    expect(request!.headers).not.toHaveProperty("accept-encoding");
    expect(JSON.parse(request!.body)).toEqual({
      envelope_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      correlation_id: "corr-1",
      source: "mcp-adapter",
      payload: { city: "Ulm" },
      metadata: { tool_name: "sample", tool_version: "1.2.3" },
    });
  });

  test("passes a valid trace context on and makes one where there is none", async () => {
    const { origin, requests } = await service((_request, response) => json(response, 1));
    const executor = executorOf([onex(origin)]);
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    await executor.call(callOf({}, { meta: { traceparent, tracestate: "a=b", baggage: "c=d" } }), never);
    await executor.call(callOf({}, { meta: { traceparent: "00-bad", tracestate: "a=b" } }), never);
    await executor.call(callOf(), never);
    expect(requests[0]!.headers).toMatchObject({ traceparent, tracestate: "a=b", baggage: "c=d" });
    for (const { headers } of requests.slice(1)) {
      expect(headers.traceparent).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
      expect(headers).not.toHaveProperty("tracestate");
    }
  });

  test("a correlation id that no header can carry is encoded, not refused", async () => {
    const { origin, requests } = await service((_request, response) => json(response, 1));
    const correlationId = "a\r\nX-Evil: 1 é\ud800";
    const result = await executorOf([onex(origin)]).call(callOf({}, { correlationId }), never);
    expect(result.isError).toBe(false);
    expect(requests[0]!.headers["x-correlation-id"]).toBe("a%0D%0AX-Evil%3A%201%20%C3%A9%EF%BF%BD");
    expect(requests[0]!.headers).not.toHaveProperty("x-evil");
  });

  test.each<[unknown]>([[[1, "two"]], [3], [true], [{ success: true, data: 1 }]])(
    "a 2xx answer of JSON %j is the result",
    async (value) => {
      const result = await answerOf((_request, response) => json(response, value, 201));
      expect(result).toMatchObject({ structuredContent: value, isError: false });
    },
  );

  test.each<[string, unknown, string]>([
    ["error", { success: false, error: "no such city" }, "no such city"],
    ["error.message", { success: false, error: { code: 7, message: "no paper" } }, "no paper"],
    ["message", { success: false, message: "no ink" }, "no ink"],
    ["nothing", { success: false }, "The service reported a failure without a message."],
  ])("success: false is the tool's error, with the message from %s", async (_where, value, text) => {
    const result = await answerOf((_request, response) => json(response, value));
    expect(result).toEqual({ content: [{ type: "text", text }], isError: true });
  });
});

test("an error of a service that is nested without end is still the tool's error, and no failure of its breaker", async () => {
  const depth = 100_000;
  const { origin } = await service((_request, response) => {
    response.setHeader("content-type", "application/json");
    response.end(`{"success":false,"error":[${"[".repeat(depth)}${"]".repeat(depth)}]}`);
  });
  const executor = executorOf([onex(origin)]);
  const result = await executor.call(callOf(), never);
  expect(result).toMatchObject({ isError: true });
  expect(result.failure).toBeUndefined();
  expect(textOf(result)).toBe("The service reported a failure without a message.");
  expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "closed", failures: 0 });
});

describe("answers", () => {
  test("204 and an empty body are an empty result", async () => {
    for (const status of [204, 200]) {
      const result = await answerOf((_request, response) => response.writeHead(status).end());
      expect(result).toEqual({ content: [], isError: false });
    }
  });

  test("text is text, in its character set", async () => {
    const reply =
      (type: string, body: Buffer | string): Reply =>
      (_request, response) =>
        response.writeHead(200, { "content-type": type }).end(body);
    expect(textOf(await answerOf(reply("text/plain", "héllo")))).toBe("héllo");
    expect(textOf(await answerOf(reply('text/csv; charset="ISO-8859-1"', Buffer.from([0xe9]))))).toBe("é");
    expect(textOf(await answerOf(reply("text/plain; charset=klingon", "x")))).toContain(
      "text in an unknown character set",
    );
  });

  test("without a content type JSON is JSON and anything else is text", async () => {
    expect(await answerOf((_request, response) => response.end('{"a":1}'))).toMatchObject({
      structuredContent: { a: 1 },
    });
    expect(textOf(await answerOf((_request, response) => response.end("plain")))).toBe("plain");
  });

  test.each<[string, Reply, string]>([
    [
      "invalid JSON",
      (_request, response) => response.writeHead(200, { "content-type": "application/json" }).end("{"),
      "it is not valid JSON",
    ],
    [
      "JSON that is not UTF-8",
      (_request, response) =>
        response.writeHead(200, { "content-type": "application/json" }).end(Buffer.from([34, 0xff, 34])),
      "it is not UTF-8 text",
    ],
    [
      "a compressed body, however small",
      (_request, response) =>
        response
          .writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" })
          .end(gzipSync(Buffer.alloc(50_000_000, 32))),
      "it is encoded (gzip)",
    ],
    [
      "a redirect",
      (_request, response) => response.writeHead(302, { location: "http://169.254.169.254/" }).end(),
      "it redirects (302 Found), and redirects are not followed",
    ],
  ])("%s is a failure that says so", async (_what, reply, reason) => {
    const result = await answerOf(reply);
    expect(textOf(result)).toBe(`The answer of the service behind "sample" cannot be used: ${reason}.`);
    expect(result.failure).toBeInstanceOf(RuntimeHostError);
  });

  test.each<[string, string, string, string]>([
    ["error", "application/json", '{"error": "no such city"}', "no such city"],
    ["message", "application/json", '{"error": true, "message": "bad"}', "bad"],
    ["detail of a problem", "application/problem+json", '{"title": "Bad", "detail": "worse"}', "worse"],
    ["title", "application/problem+json", '{"title": "Bad"}', "Bad"],
    ["a list of details", "application/json", '{"detail": [{"loc": ["a"]}]}', '[{"loc":["a"]}]'],
    ["plain text", "text/plain", "go away", "go away"],
    ["text with a stack", "text/plain", "oops\n    at run (/srv/app/x.js:1:1)", "oops"],
    ["text with a path", "text/plain", "cannot open /srv/app/x.js", "cannot open x.js"],
  ])("a 4xx is the tool's error with the service's message: %s", async (_where, type, body, message) => {
    const result = await answerOf((_request, response) =>
      response.writeHead(404, { "content-type": type }).end(body),
    );
    expect(result).toEqual({
      content: [{ type: "text", text: `The service answered 404 Not Found: ${message}` }],
      isError: true,
    });
  });

  test("a 4xx without a readable message names the status; a long message is shortened", async () => {
    const html = await answerOf((_request, response) =>
      response.writeHead(403, { "content-type": "text/html" }).end("<h1>no</h1>"),
    );
    expect(textOf(html)).toBe("The service answered 403 Forbidden.");
    const long = await answerOf((_request, response) => json(response, { error: "x".repeat(9000) }, 400));
    expect(textOf(long).length).toBeLessThan(600);
  });

  test.each<[number, string, number]>([
    [429, "7", 7],
    [408, "0", 0],
  ])("a %i may be tried again, after what Retry-After says", async (status, header, seconds) => {
    const result = await answerOf((_request, response) =>
      response.writeHead(status, { "retry-after": header }).end(),
    );
    expect(result.failure).toMatchObject({ retryable: true, countsForBreaker: false });
    expect(result.failure?.facts.retry_after_seconds).toBe(seconds);
  });

  test("Retry-After may be a date", async () => {
    const date = new Date(Date.now() + 3_600_000).toUTCString();
    const result = await answerOf((_request, response) =>
      response.writeHead(429, { "retry-after": date }).end(),
    );
    expect(result.failure?.facts.retry_after_seconds).toBeGreaterThan(3500);
  });

  test("a 5xx is a failure that counts, without the service's words", async () => {
    const result = await answerOf((_request, response) => json(response, { error: "at /srv/app.js" }, 503));
    expect(result.failure).toBeInstanceOf(InfraConnectionError);
    expect(textOf(result)).toBe('The service behind "sample" failed (503 Service Unavailable).');
  });

  test("over 10 MiB is an error that says so, and the rest is never read", async () => {
    const announced = await answerOf((_request, response) => {
      response.writeHead(200, { "content-type": "text/plain", "content-length": "20000000" });
      response.write("x");
    });
    expect(textOf(announced)).toBe(
      'The answer of the service behind "sample" has 20000000 bytes, more than the limit of 10485760 bytes (10 MiB).',
    );
    const closed = Promise.withResolvers<undefined>();
    const endless = await answerOf((_request, response) => {
      response.on("close", () => closed.resolve(undefined));
      const chunk = Buffer.alloc(65_536, 120);
      const more = (): void => {
        while (!response.destroyed && response.write(chunk));
      };
      response.on("drain", more);
      more();
    });
    expect(textOf(endless)).toContain("is larger than the limit of 10485760 bytes (10 MiB)");
    expect(endless.failure?.countsForBreaker).toBe(false);
    await closed.promise;
  });

  test("what a HEAD announces is not the size of its answer", async () => {
    const { origin } = await service((_request, response) =>
      response.writeHead(200, { "content-type": "text/plain", "content-length": "20000000" }).end(),
    );
    const result = await executorOf([rest({ method: "HEAD", url: origin })]).call(callOf(), never);
    expect(result).toEqual({ content: [], isError: false });
  });

  test("interim answers are passed over", async () => {
    const result = await answerOf((_request, response) => {
      response.writeEarlyHints({ link: "</x>; rel=preload" });
      response.writeProcessing();
      json(response, { a: 1 });
    });
    expect(result.structuredContent).toEqual({ a: 1 });
  });

  test("the output schema is checked against JSON and text alike", async () => {
    const outputSchema = { type: "object", required: ["a"] };
    const good = await answerOf((_request, response) => json(response, { a: 1 }), { outputSchema });
    expect(good.structuredContent).toEqual({ a: 1 });
    for (const reply of [
      ((_request, response) => json(response, {})) satisfies Reply,
      ((_request, response) => response.end("text")) satisfies Reply,
      ((_request, response) => response.writeHead(204).end()) satisfies Reply,
    ] as Reply[]) {
      const result = await answerOf(reply, { outputSchema });
      expect(textOf(result)).toContain("something its output schema does not allow");
    }
  });
});
