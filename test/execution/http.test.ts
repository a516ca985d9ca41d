import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import {
  CancelledError,
  InfraConnectionError,
  InfraTimeoutError,
  InfraUnavailableError,
  RuntimeHostError,
} from "../../src/core/errors.ts";
import type { RestExecution, Tool } from "../../src/tools/tool.ts";
import {
  callOf,
  executorOf,
  json,
  memoryLog,
  never,
  service,
  textOf,
  toolOf,
  type Reply,
} from "./helpers.ts";

const onex = (origin: string, path = "/run", more: Partial<Tool> = {}) =>
  toolOf({ kind: "onex", endpoints: [origin], path }, more);
const rest = (execution: Omit<RestExecution, "kind">, more: Partial<Tool> = {}) =>
  toolOf({ kind: "rest", ...execution }, more);

/** The result of one call of an onex tool whose service replies so. */
async function answerOf(reply: Reply, more: Partial<Tool> = {}) {
  const { origin } = await service(reply);
  return executorOf([onex(origin, "/run", more)]).call(callOf(), never);
}

/** A port that refuses connections: it was free a moment ago. */
async function deadOrigin(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}

describe("kind onex", () => {
  test("posts the envelope to endpoint and path", async () => {
    const { origin, requests } = await service((_request, response) => json(response, { ok: 1 }));
    const executor = executorOf([onex(`${origin}/base/`, "/run")]);
    const result = await executor.call(callOf({ city: "Ulm" }), never);
    expect(result).toEqual({
      content: [{ type: "text", text: '{"ok":1}' }],
      structuredContent: { ok: 1 },
      isError: false,
    });
    const [request] = requests;
    expect(request).toMatchObject({
      method: "POST",
      url: "/base/run",
      headers: { "content-type": "application/json", "x-correlation-id": "corr-1" },
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
      "another type",
      (_request, response) => response.writeHead(200, { "content-type": "image/png" }).end("x"),
      "its type is image/png, not JSON or text",
    ],
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

describe("kind rest", () => {
  /** The request that one call makes, or the text of the refusal. */
  async function requestOf(
    execution: Omit<RestExecution, "kind" | "url"> & { readonly url?: string },
    args: Record<string, unknown>,
    more: Partial<Tool> = {},
  ) {
    const { origin, requests } = await service((_request, response) => json(response, { ok: true }));
    const tool = rest({ ...execution, url: `${origin}${execution.url ?? "/"}` }, more);
    const result = await executorOf([tool]).call(callOf(args), never);
    return { result, text: textOf(result), request: requests[0], count: requests.length };
  }

  test("placeholders in the path and the query are percent-encoded", async () => {
    const { request } = await requestOf(
      { method: "GET", url: "/v1/{city}/now?units={units}&lang=de%20at" },
      { city: "a/b?c#d é\ud800%2e", units: "x&y=z" },
    );
    expect(request?.url).toBe("/v1/a%2Fb%3Fc%23d%20%C3%A9%EF%BF%BD%252e/now?units=x%26y%3Dz&lang=de%20at");
  });

  test.each([".", ".."])("an argument %j cannot climb in the path", async (dots) => {
    const { text, count } = await requestOf({ method: "GET", url: "/a/{x}/b" }, { x: dots });
    expect(text).toBe(
      'Invalid arguments for "sample": /x: "." and ".." may not be a segment of the URL\'s path',
    );
    expect(count).toBe(0);
  });

  test("two arguments cannot climb together, an empty one cannot shorten the path", async () => {
    const both = await requestOf({ method: "GET", url: "/a/{x}{y}" }, { x: ".", y: "." });
    expect(both.text).toContain('"." and ".."');
    const empty = await requestOf({ method: "DELETE", url: "/users/{id}" }, { id: "" });
    expect(empty.text).toContain("/id: may not be empty");
    expect(both.count + empty.count).toBe(0);
  });

  test.each<[string, unknown, string]>([
    ["missing", undefined, "/x: required: it is part of the URL"],
    ["null", null, "/x: required: it is part of the URL"],
    ["an object", {}, "/x: expected a string, a number or a boolean, as it is part of the URL, got object"],
    ["an array", [1], "got array"],
  ])("a path argument that is %s is refused", async (_what, value, reason) => {
    const { text, count } = await requestOf(
      { method: "GET", url: "/{x}" },
      value === undefined ? {} : { x: value },
    );
    expect(text).toContain(`Invalid arguments for "sample": `);
    expect(text).toContain(reason);
    expect(count).toBe(0);
  });

  test("query templates keep arrays repeated and leave out what is absent", async () => {
    const { request } = await requestOf(
      {
        method: "GET",
        url: "/x?fixed=1",
        query: { q: "{q}", tag: "{tags}", text: "in {q}", n: 5, none: "{absent}", filter: "{filter}" },
      },
      { q: "a b", tags: ["x", "y"], filter: { a: 1 } },
    );
    expect(request?.url).toBe("/x?fixed=1&q=a%20b&tag=x&tag=y&text=in%20a%20b&n=5&filter=%7B%22a%22%3A1%7D");
  });

  test.each(["GET", "DELETE", "HEAD"])("of %s unused arguments go to the query", async (method) => {
    const { request, result } = await requestOf(
      { method, url: "/{id}" },
      { id: 7, a: true, list: [1, 2], none: null },
    );
    expect(result.isError).toBe(false);
    expect(request).toMatchObject({ method, url: "/7?a=true&list=1&list=2", body: "" });
    expect(request?.headers).not.toHaveProperty("content-type");
  });

  test.each(["POST", "PUT", "PATCH"])("of %s unused arguments are the JSON body", async (method) => {
    const { request } = await requestOf({ method, url: "/{id}" }, { id: 7, a: { b: [1] }, none: null });
    expect(request).toMatchObject({ method, url: "/7", headers: { "content-type": "application/json" } });
    expect(JSON.parse(request!.body)).toEqual({ a: { b: [1] }, none: null });
  });

  test("a body template keeps types, puts text into text and takes unused arguments in", async () => {
    const { request } = await requestOf(
      {
        method: "post",
        body: {
          n: "{n}",
          text: "n is {n}",
          list: ["{n}", "{absent}", 1],
          absent: "{absent}",
          braces: "{ no }",
        },
      },
      { n: 5, other: "x" },
    );
    expect(JSON.parse(request!.body)).toEqual({
      n: 5,
      text: "n is 5",
      list: [5, 1],
      braces: "{ no }",
      other: "x",
    });
  });

  test("a body template that is one placeholder is that argument; the rest goes to the query", async () => {
    const { request } = await requestOf({ method: "POST", body: "{items}" }, { items: [1, 2], dry: true });
    expect(request).toMatchObject({ url: "/?dry=true", body: "[1,2]" });
  });

  test("an empty body is sent only where the service may expect one", async () => {
    const none = await requestOf({ method: "POST", url: "/{id}/publish" }, { id: 1 });
    expect(none.request?.body).toBe("");
    const optional = await requestOf(
      { method: "POST" },
      {},
      { inputSchema: { type: "object", properties: { note: { type: "string" } } } },
    );
    expect(optional.request?.body).toBe("{}");
  });

  test("a caller cannot replace or double what the contract sends", async () => {
    const query = await requestOf({ method: "GET", url: "/x?key=1", query: { user: "me" } }, { user: "you" });
    const url = await requestOf({ method: "GET", url: "/x?key=1" }, { key: "2" });
    const body = await requestOf({ method: "POST", body: { role: "user" } }, { role: "admin" });
    expect(query.text).toContain("/user: is set by the tool itself");
    expect(url.text).toContain("/key: is set by the tool itself");
    expect(body.text).toContain("/role: is set by the tool itself");
    expect(query.count + url.count + body.count).toBe(0);
  });

  test("headers are templates, absent ones are left out, and ours give way to the contract's", async () => {
    const { request } = await requestOf(
      {
        method: "POST",
        headers: {
          "X-Key": "k {id}",
          "X-None": "{absent}",
          "User-Agent": "mine",
          "content-type": "application/x",
        },
        body: { a: 1 },
      },
      { id: 5 },
    );
    expect(request?.headers).toMatchObject({
      "x-key": "k 5",
      "user-agent": "mine",
      "content-type": "application/x",
      "x-correlation-id": "corr-1",
    });
    expect(request?.headers).not.toHaveProperty("x-none");
  });

  test.each(["a\r\nX-Evil: 1", "a\nb", "a\0b", "snow ☃"])("a header argument %j is refused", async (id) => {
    const { text, count } = await requestOf({ method: "GET", headers: { "X-Id": "{id}" } }, { id });
    expect(text).toContain("/id: may hold no line breaks");
    expect(count).toBe(0);
  });

  test.each<[string, unknown]>([
    ["/data/0/temp", 21],
    ["/data/0", { temp: 21 }],
    ["/a~1b/~0", "x"],
    ["", { data: [{ temp: 21 }], "a/b": { "~": "x" } }],
  ])("the result pointer %j picks its part of the answer", async (result, expected) => {
    const { origin } = await service((_request, response) =>
      json(response, { data: [{ temp: 21 }], "a/b": { "~": "x" } }),
    );
    const answer = await executorOf([rest({ method: "GET", url: origin, result })]).call(callOf(), never);
    const text = typeof expected === "string" ? expected : JSON.stringify(expected);
    expect(answer).toMatchObject({ isError: false, content: [{ text }] });
  });

  test.each(["/data/1", "/data/-", "/data/00", "/toString", "/data/length"])(
    "the result pointer %j that points at nothing is the tool's error",
    async (result) => {
      const { origin } = await service((_request, response) => json(response, { data: [1] }));
      const answer = await executorOf([rest({ method: "GET", url: origin, result })]).call(callOf(), never);
      expect(answer).toMatchObject({ isError: true });
      expect(textOf(answer)).toBe(`The answer of the service has nothing at ${result}.`);
    },
  );

  test("success: false is an ordinary answer of an ordinary API", async () => {
    const { origin } = await service((_request, response) => json(response, { success: false }));
    const answer = await executorOf([rest({ method: "GET", url: origin })]).call(callOf(), never);
    expect(answer).toMatchObject({ isError: false, structuredContent: { success: false } });
  });

  test.each<[string, Omit<RestExecution, "kind">, string]>([
    ["a placeholder in the host", { method: "GET", url: "http://{host}/x" }, "not in scheme, host or port"],
    ["a placeholder in the port", { method: "GET", url: "http://a:{port}/x" }, "not in scheme, host or port"],
    ["another scheme", { method: "GET", url: "file:///etc/passwd" }, "must start with http:// or https://"],
    ["credentials in the URL", { method: "GET", url: "http://u:p@h/x" }, "credentials belong into a header"],
    ["an unknown method", { method: "BREW", url: "http://h/x" }, "method must be one of GET, HEAD"],
    [
      "a framing header",
      { method: "GET", url: "http://h", headers: { "Content-Length": "1" } },
      "cannot be set",
    ],
    [
      "a header with a line break",
      { method: "GET", url: "http://h", headers: { a: "b\nc" } },
      "HTTP cannot carry",
    ],
    [
      "a pointer without slash",
      { method: "GET", url: "http://h", result: "data" },
      'a JSON pointer starts with "/"',
    ],
  ])("%s is refused with the reason", async (_what, execution, reason) => {
    const result = await executorOf([rest(execution)]).call(callOf({ host: "x", port: 1 }), never);
    expect(result.failure?.code).toBe("ONEX_CORE_041_INVALID_CONFIGURATION");
    expect(textOf(result)).toContain(reason);
  });
});

describe("a service that does not answer", () => {
  test("and refuses the connection is a failure whose text has no address", async () => {
    const origin = await deadOrigin();
    const result = await executorOf([onex(origin, "/run", { name: "sample" })]).call(callOf(), never);
    expect(result.failure).toBeInstanceOf(InfraConnectionError);
    expect(result.failure?.facts).toMatchObject({
      transport: "http",
      target: origin,
      reason: "ECONNREFUSED",
    });
    expect(textOf(result)).toBe('The service behind "sample" could not be reached.');
  });

  test.each<[string, Reply]>([
    ["before", (_request, _response, raw) => raw.socket.destroy()],
    [
      "in the middle of",
      (_request, response, raw) => {
        response.writeHead(200, { "content-type": "text/plain", "content-length": "100" });
        response.write("part", () => raw.socket.destroy());
      },
    ],
    ["instead of", (_request, _response, raw) => raw.socket.end("nonsense\r\n\r\n")],
  ])("and hangs up %s the answer is a connection failure", async (_when, reply) => {
    const result = await answerOf(reply);
    expect(result.failure).toBeInstanceOf(InfraConnectionError);
    expect(result.failure?.countsForBreaker).toBe(true);
  });

  test("in time is a timeout, and its request is ended", async () => {
    const closed = Promise.withResolvers<undefined>();
    const result = await answerOf(
      (_request, response) => response.on("close", () => closed.resolve(undefined)),
      { timeoutSeconds: 0.5 },
    );
    expect(result.failure).toBeInstanceOf(InfraTimeoutError);
    await closed.promise;
  });

  test("because its name does not resolve is a connection failure without the name", async () => {
    const result = await executorOf([onex("http://no-such-host.invalid")]).call(callOf(), never);
    expect(result.failure).toBeInstanceOf(InfraConnectionError);
    expect(textOf(result)).not.toContain("invalid");
  });
});

describe("cancellation", () => {
  test("reaches the service: it sees the connection close", async () => {
    const arrived = Promise.withResolvers<undefined>();
    const closed = Promise.withResolvers<undefined>();
    const { origin } = await service((_request, response) => {
      response.on("close", () => closed.resolve(undefined));
      arrived.resolve(undefined);
    });
    const client = new AbortController();
    const executor = executorOf([onex(origin)]);
    const answer = executor.call(callOf(), client.signal);
    await arrived.promise;
    client.abort();
    expect((await answer).failure).toBeInstanceOf(CancelledError);
    await closed.promise;
    expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "closed", failures: 0 });
  });

  test("of a call that still waits for a connection sends nothing", async () => {
    const release = Promise.withResolvers<undefined>();
    const { origin, requests } = await service((_request, response) => {
      void release.promise.then(() => json(response, 1));
    });
    const executor = executorOf([onex(origin)]);
    const running = Array.from({ length: 64 }, () => executor.call(callOf(), never));
    await vi.waitFor(() => expect(requests).toHaveLength(64));
    const client = new AbortController();
    const waiting = executor.call(callOf(), client.signal);
    const after = executor.call(callOf(), never);
    client.abort();
    expect((await waiting).failure).toBeInstanceOf(CancelledError);
    release.resolve(undefined);
    await Promise.all([...running, after]);
    expect(requests).toHaveLength(65);
  });
});

describe("the circuit breaker", () => {
  test("after five refused connections the sixth call is answered without a connection attempt", async () => {
    let refusing = true;
    let connections = 0;
    const server = createServer((socket) => {
      connections++;
      if (refusing) socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const executor = executorOf([onex(origin)]);
    for (let call = 0; call < 5; call++)
      expect((await executor.call(callOf(), never)).failure).toBeInstanceOf(InfraConnectionError);
    expect(connections).toBe(5);
    refusing = false;
    const result = await executor.call(callOf(), never);
    expect(connections).toBe(5);
    expect(result.failure).toBeInstanceOf(InfraUnavailableError);
    expect(result.failure).toMatchObject({ retryable: true, facts: { retry_after_seconds: 60 } });
    expect(textOf(result)).toBe(
      'The service behind "sample" is not available at the moment; try again in 60 s.',
    );
  });

  test("is per origin: another service's tool goes on, and the tool reads as unavailable", async () => {
    const dead = onex(await deadOrigin(), "/run", { name: "dead" });
    const { origin } = await service((_request, response) => json(response, 1));
    const alive = onex(origin, "/run", { name: "alive" });
    const executor = executorOf([dead, alive]);
    expect(executor.available(dead)).toBe(true);
    for (let call = 0; call < 6; call++) await executor.call(callOf({}, { name: "dead" }), never);
    expect(executor.available(dead)).toBe(false);
    expect(executor.available(alive)).toBe(true);
    expect((await executor.call(callOf({}, { name: "alive" }), never)).isError).toBe(false);
  });

  test("counts 5xx and timeouts, closes again after its time, and can be reset by hand", async () => {
    let now = 0;
    let status = 500;
    const { origin, requests } = await service((_request, response) => {
      if (status > 0) json(response, {}, status);
    });
    const executor = executorOf([onex(origin, "/run", { timeoutSeconds: 1 })], {
      clock: { now: () => now },
    });
    const call = async () => (await executor.call(callOf(), never)).failure?.name;
    const kind = () => executor.circuits.circuitState(origin)?.kind;
    for (let n = 0; n < 4; n++) expect(await call()).toBe("InfraConnectionError");
    status = 0;
    expect(await call()).toBe("InfraTimeoutError");
    expect(kind()).toBe("open");
    expect(await call()).toBe("InfraUnavailableError");
    expect(requests).toHaveLength(5);
    now = 60_000;
    status = 200;
    expect([await call(), await call()]).toEqual([undefined, undefined]);
    expect(kind()).toBe("closed");
    status = 500;
    for (let n = 0; n < 5; n++) await call();
    expect(kind()).toBe("open");
    expect(executor.circuits.resetCircuit(origin)).toBe(true);
    status = 200;
    expect(await call()).toBeUndefined();
  });

  test("never counts 4xx, the tool's own errors, bad arguments or answers that are too large", async () => {
    const replies: Reply[] = [
      (_request, response) => json(response, {}, 404),
      (_request, response) => json(response, {}, 429),
      (_request, response) => json(response, { success: false }),
      (_request, response) => response.writeHead(302).end(),
      (_request, response) => response.writeHead(200, { "content-length": "20000000" }).end(),
    ];
    let n = 0;
    const { origin } = await service((request, response, raw) =>
      replies[n++ % replies.length]!(request, response, raw),
    );
    const tool = onex(origin, "/run", { inputSchema: { type: "object", maxProperties: 0 } });
    const executor = executorOf([tool], { breaker: { failureThreshold: 1 } });
    for (let call = 0; call < 10; call++) {
      expect((await executor.call(callOf(), never)).isError).toBe(true);
      expect((await executor.call(callOf({ a: 1 }), never)).isError).toBe(true);
    }
    expect(executor.circuits.circuitState(origin)?.kind).toBe("closed");
  });
});

describe("addresses that may not be called", () => {
  const refusal = async (origin: string, allowedNetworks?: readonly string[]) => {
    const executor = executorOf([onex(origin)], allowedNetworks ? { allowedNetworks } : {});
    const result = await executor.call(callOf(), never);
    expect(executor.circuits.circuitState(new URL(origin).origin)?.kind ?? "closed").toBe("closed");
    return result;
  };

  test.each([
    "http://169.254.169.254",
    "http://169.254.1.1:8080",
    "http://2852039166", // 169.254.169.254 as one number
    "http://0xa9.0xfe.0xa9.0xfe",
    "http://[fe80::1]",
    "http://[fd00:ec2::254]",
    "http://[::ffff:169.254.169.254]",
    "http://[64:ff9b::169.254.169.254]",
    "http://[2002:a9fe:a9fe::1]",
    "http://[::169.254.169.254]",
    "http://168.63.129.16",
    "http://[::ffff:168.63.129.16]",
  ])("%s is always refused", async (origin) => {
    const result = await refusal(origin, ["0.0.0.0/0", "::/0"]);
    expect(result.failure).toBeInstanceOf(RuntimeHostError);
    expect(result.failure).toMatchObject({ retryable: false, countsForBreaker: false });
    expect(textOf(result)).toBe('The service behind "sample" has an address that may not be called.');
  });

  test("what is outside of allowed_networks is refused, what is inside is called", async () => {
    const { origin, connections } = await service((_request, response) => json(response, 1));
    expect((await refusal(origin, ["10.0.0.0/8", "::1"])).failure).toBeInstanceOf(RuntimeHostError);
    expect(connections()).toBe(0);
    expect((await refusal(origin, ["127.0.0.0/8"])).isError).toBe(false);
  });

  test("a name is judged by what it resolves to at the moment of connecting", async () => {
    const { port, connections } = await service((_request, response) => json(response, 1));
    const byName = `http://localhost:${port}`;
    const refused = await refusal(byName, ["10.0.0.0/8"]);
    expect(textOf(refused)).toBe('The service behind "sample" has an address that may not be called.');
    expect(connections()).toBe(0);
    expect((await refusal(byName, ["127.0.0.0/8"])).isError).toBe(false);
  });

  test.each(["10.0.0.0/33", "10.0.0/8", "nonsense", "::/129", "10.0.0.0/8/8", "10.0.0.0/"])(
    "the network %j is a configuration error",
    (network) => {
      expect(() => executorOf([], { allowedNetworks: [network] })).toThrow(
        `allowed_networks: expected a network such as "10.0.0.0/8" or an address, got '${network}'`,
      );
    },
  );
});

describe("connections", () => {
  test("are kept and used again", async () => {
    const { origin, connections } = await service((_request, response) => json(response, 1));
    const executor = executorOf([onex(origin)]);
    for (let call = 0; call < 20; call++) await executor.call(callOf(), never);
    // undici gives a socket one turn of the event loop to rest; a call at that moment gets a second one.
    expect(connections()).toBeLessThanOrEqual(2);
  });

  test("are at most 64 per origin; a slow service holds nothing of another", async () => {
    const release = Promise.withResolvers<undefined>();
    const slow = await service((_request, response) => {
      void release.promise.then(() => json(response, 1));
    });
    const quick = await service((_request, response) => json(response, 2));
    const executor = executorOf([
      onex(slow.origin, "/run", { name: "slow" }),
      onex(quick.origin, "/run", { name: "quick" }),
    ]);
    const waiting = Array.from({ length: 1024 }, () => executor.call(callOf({}, { name: "slow" }), never));
    await vi.waitFor(() => expect(slow.requests).toHaveLength(64));
    const tooMany = await executor.call(callOf({}, { name: "slow" }), never);
    expect(tooMany.failure).toMatchObject({ name: "InfraUnavailableError", retryable: true });
    expect(textOf(tooMany)).toBe('Too many calls wait for the service behind "slow".');
    expect(textOf(await executor.call(callOf({}, { name: "quick" }), never))).toBe("2");
    expect(slow.connections()).toBe(64);
    release.resolve(undefined);
    const results = await Promise.all(waiting);
    expect(results.every(({ isError }) => !isError)).toBe(true);
    expect(slow.connections()).toBe(64);
    expect((await executor.call(callOf({}, { name: "slow" }), never)).isError).toBe(false);
  });
});

test("no log line of a failing service misses its target, and no answer holds it", async () => {
  const { log, lines } = memoryLog();
  const { origin, port } = await service((_request, response) => json(response, {}, 500));
  const executor = executorOf([onex(origin)], { log });
  for (let call = 0; call < 7; call++) {
    const text = textOf(await executor.call(callOf(), never));
    expect(text).not.toContain(String(port));
    expect(text).not.toContain("127.0.0.1");
  }
  expect(lines).toHaveLength(7);
  for (const { fields } of lines) expect(fields.target).toBe(origin);
});
