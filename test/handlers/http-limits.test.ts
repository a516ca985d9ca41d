/** HandlerHttp: what it refuses, where it ends, and its life. */
import type { RequestListener } from "node:http";
import { describe, expect, test, vi } from "vitest";
import {
  InfraConnectionError,
  InfraTimeoutError,
  InfraUnavailableError,
  ProtocolConfigurationError,
  RuntimeHostError,
} from "../../src/core/errors.ts";
import { HandlerHttp } from "../../src/handlers/http.ts";
import { requests, startService } from "./http-service.ts";

const hello = () =>
  startService((_request, response) => {
    response.setHeader("content-type", "text/plain");
    response.end("hello");
  });

async function failureOf(work: Promise<unknown>): Promise<Error> {
  try {
    await work;
  } catch (thrown) {
    if (thrown instanceof Error) return thrown;
  }
  throw new Error("expected an error");
}

describe("a payload that cannot be sent is refused, naming the field and its value", () => {
  const url = "http://127.0.0.1:9/";
  test.each<[string, string, Record<string, unknown>, RegExp]>([
    ["no URL", "get", {}, /^payload\.url: is missing$/],
    ["a relative URL", "get", { url: "/x" }, /^payload\.url: expected an absolute http.*got "\/x"$/],
    [
      "another scheme",
      "get",
      { url: "file:///etc/passwd" },
      /^payload\.url: .*got "file:\/\/\/etc\/passwd"$/,
    ],
    ["a number for a URL", "get", { url: 7 }, /^payload\.url: expected an http or https URL, got 7$/],
    [
      "an unknown key",
      "get",
      { url, uri: 1 },
      /^payload\.uri: unknown key; a request has url, query, headers/,
    ],
    ["a body of GET", "get", { url, body: "x" }, /^payload\.body: a GET request has none/],
    ["a body of DELETE", "delete", { url, body: {} }, /^payload\.body: a DELETE request has none/],
    [
      "a query that is a list",
      "get",
      { url, query: ["a"] },
      /^payload\.query: expected an object, got \["a"\]$/,
    ],
    [
      "a query with an object",
      "get",
      { url, query: { a: {} } },
      /^payload\.query\.a: expected text.*got \{\}$/,
    ],
    [
      "a time of zero",
      "get",
      { url, timeout_seconds: 0 },
      /^payload\.timeout_seconds: expected 1 to 300, got 0$/,
    ],
    ["a time too long", "get", { url, timeout_seconds: 301 }, /expected 1 to 300, got 301$/],
    ["a time that is text", "get", { url, timeout_seconds: "5" }, /^payload\.timeout_seconds: .*got "5"$/],
    [
      "a header's name",
      "get",
      { url, headers: { "a b": "x" } },
      /^payload\.headers\.a b: it is no header's name$/,
    ],
    [
      "a header twice",
      "get",
      { url, headers: { A: "1", a: "2" } },
      /^payload\.headers\.a: the header is given twice$/,
    ],
  ])("%s", async (_what, verb, payload, message) => {
    await using http = await requests();
    const error = await failureOf(http.send(verb, payload));
    expect(error).toBeInstanceOf(ProtocolConfigurationError);
    expect(error.message).toMatch(message);
  });

  test.each([
    "Host",
    "connection",
    "Content-Length",
    "Transfer-Encoding",
    "keep-alive",
    "TE",
    "Trailer",
    "Upgrade",
    "Expect",
    "Proxy-Authorization",
  ])("the header %s, which is HTTP's own", async (name) => {
    await using http = await requests();
    const error = await failureOf(http.send("get", { url, headers: { [name]: "x" } }));
    expect(error.message).toBe(`payload.headers.${name}: this header is HTTP's own and cannot be set`);
  });

  test("credentials in the URL, and header values, without showing them", async () => {
    await using http = await requests();
    const messages = await Promise.all(
      [
        { url: "http://me:hunter2@127.0.0.1:9/" },
        { url: "htp://me:hunter2@127.0.0.1:9/" },
        { url, headers: { Authorization: "hunter2\r\nX-Evil: 1" } },
        { url, headers: { Authorization: ["hunter2"] } },
      ].map(async (payload) => (await failureOf(http.send("get", payload))).message),
    );
    expect(messages).toEqual([
      "payload.url: it holds credentials; send them in the header Authorization",
      expect.stringContaining('got "htp://***@127.0.0.1:9/"'),
      expect.stringMatching(/^payload\.headers\.Authorization: line breaks/),
      "payload.headers.Authorization: expected text, a number or a boolean, got array",
    ]);
    expect(messages.join()).not.toContain("hunter2");
  });

  test("more bytes than max_request_bytes, URL and headers included", async () => {
    await using service = await hello();
    await using http = await requests({ max_request_bytes: 1000 });
    const { url } = service;
    for (const payload of [
      { url, body: "ü".repeat(500) },
      { url: `${url}/${"x".repeat(1000)}` },
      { url, headers: { "X-Long": "x".repeat(1000) } },
    ]) {
      expect((await failureOf(http.send("post", payload))).message).toMatch(
        /^the request has \d+ bytes, and max_request_bytes is 1000$/,
      );
    }
    expect((await http.send("post", { url, body: "x".repeat(700) })).status_code).toBe(200);
  });

  test("an operation that there is not names those there are", async () => {
    await using http = await requests();
    const error = await failureOf(http.send("http.head", { url }));
    expect(error.message).toBe(
      "Unknown operation 'http.head'. Supported: http.get, http.post, http.put, http.patch, http.delete",
    );
  });
});

describe("where it may call", () => {
  test.each([
    "http://169.254.169.254/latest/meta-data",
    "http://169.254.1.1",
    "http://2852039166/", // 169.254.169.254 as one number
    "http://0xa9fea9fe/",
    "http://169.254.169.254./",
    "http://[::ffff:169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
    "http://100.100.100.200/",
  ])("never %s", async (url) => {
    await using http = await requests();
    const error = await failureOf(http.send("get", { url }));
    expect(error).toBeInstanceOf(RuntimeHostError);
    expect(error.message).toContain("has an address that may not be called");
  });

  test("with allowed_networks only there, by address and by name alike", async () => {
    await using service = await hello();
    const byName = `http://localhost:${service.port}/`;
    await using elsewhere = await requests({ allowed_networks: ["10.0.0.0/8"] });
    for (const url of [service.url, byName])
      expect((await failureOf(elsewhere.send("get", { url }))).message).toContain("may not be called");
    await using here = await requests({ allowed_networks: ["127.0.0.0/8"] });
    for (const url of [service.url, byName]) expect((await here.send("get", { url })).body).toBe("hello");
    expect(service.sockets.size).toBeGreaterThan(0);
  });

  test("with allowed_hosts only those, on any port or the one given", async () => {
    await using service = await hello();
    const { port } = service;
    const allowed = async (host: string, url: string) => {
      await using http = await requests({ allowed_hosts: [host] });
      return await http.send("get", { url }).then(
        () => true,
        (error: unknown) => {
          expect(error).toHaveProperty("message", expect.stringContaining("allowed_hosts"));
          return false;
        },
      );
    };
    expect(await allowed("LOCALHOST", `http://localhost:${port}`)).toBe(true);
    expect(await allowed(`localhost:${port}`, `http://localhost:${port}`)).toBe(true);
    expect(await allowed("127.0.0.1", service.url)).toBe(true);
    expect(await allowed("localhost:80", `http://localhost:${port}`)).toBe(false);
    expect(await allowed("localhost", service.url)).toBe(false);
    expect(await allowed("host", `http://localhost:${port}`)).toBe(false);
    expect(await allowed("localhost", `http://localhost.evil.example:${port}`)).toBe(false);
  });
});

describe("an answer larger than max_response_bytes is an error, never cut", () => {
  test.each([
    ["that says its size", true],
    ["that does not", false],
  ])("one %s", async (_what, isSized) => {
    let written = 0;
    await using service = await startService((_request, response) => {
      if (isSized) response.setHeader("content-length", 100_000_000);
      const more = (): void => {
        while (written < 100_000_000) {
          written += 10_000;
          if (!response.write(Buffer.alloc(10_000, "x"))) {
            response.once("drain", more);
            return;
          }
        }
        response.end();
      };
      more();
    });
    await using http = await requests({ max_response_bytes: 50_000 });
    const error = await failureOf(http.send("get", { url: service.url }));
    expect(error).toBeInstanceOf(RuntimeHostError);
    expect(error).toMatchObject({ retryable: false });
    expect(error.message).toBe(
      `The answer of ${service.url} is larger than max_response_bytes, 50000; nothing of it is given.`,
    );
    await vi.waitFor(() => expect(service.sockets.size).toBe(0));
    expect(written).toBeLessThan(100_000_000);
  });

  test("one of exactly that size is given", async () => {
    await using service = await hello();
    await using http = await requests({ max_response_bytes: 5 });
    expect((await http.send("get", { url: service.url })).body).toBe("hello");
  });
});

describe("where there is no answer", () => {
  test("nobody listens: a retryable connection error without the rest of the URL", async () => {
    const service = await hello();
    await service[Symbol.asyncDispose]();
    await using http = await requests();
    const error = await failureOf(http.send("get", { url: `${service.url}/x?token=hunter2` }));
    expect(error).toBeInstanceOf(InfraConnectionError);
    expect(error).toMatchObject({
      code: "ONEX_CORE_090_NETWORK_ERROR",
      retryable: true,
      facts: { transport: "http", target: service.url, reason: "ECONNREFUSED" },
      message: `${service.url} could not be reached (ECONNREFUSED).`,
    });
  });

  test.each<[string, RequestListener, string]>([
    [
      "the connection breaks off in the middle of the answer",
      (_request, response) => {
        response.writeHead(200, { "content-length": "100" });
        response.write("half", () => response.destroy());
      },
      "broke off before its answer was complete",
    ],
    [
      "the answer is not HTTP",
      ({ socket }) => socket.end("nonsense\r\n\r\n"),
      "gave an answer that is not valid HTTP, or one with more than 16 KiB of headers",
    ],
    [
      "the answer has too many headers",
      (_request, response) => response.writeHead(200, { "x-long": "x".repeat(20_000) }).end(),
      "gave an answer that is not valid HTTP, or one with more than 16 KiB of headers",
    ],
  ])("%s", async (_what, listener, message) => {
    await using service = await startService(listener);
    await using http = await requests();
    const error = await failureOf(http.send("get", { url: service.url }));
    expect(error).toBeInstanceOf(InfraConnectionError);
    expect(error.message).toContain(`${service.url} ${message}`);
  });

  test.each([
    ["headers", false],
    ["the rest of the body", true],
  ])("%s do not come in time: a retryable timeout that ends the connection", async (_what, begins) => {
    await using service = await startService((_request, response) => {
      if (begins) response.write("begun");
    });
    await using http = await requests();
    const error = await failureOf(http.send("get", { url: service.url, timeout_seconds: 1 }));
    expect(error).toBeInstanceOf(InfraTimeoutError);
    expect(error).toMatchObject({
      code: "ONEX_CORE_092_TIMEOUT_ERROR",
      retryable: true,
      facts: { timeout_seconds: 1 },
      message: `GET ${service.url} took longer than 1 s`,
    });
    await vi.waitFor(() => expect(service.sockets.size).toBe(0));
  });

  test("the configuration's timeout_seconds is the limit of every request", async () => {
    await using service = await startService(() => undefined);
    await using http = await requests({ timeout_seconds: 1 });
    expect((await failureOf(http.send("get", { url: service.url }))).message).toContain("longer than 1 s");
    expect((await failureOf(http.send("get", { url: service.url, timeout_seconds: 2 }))).message).toBe(
      "payload.timeout_seconds: expected 1 to 1, got 2",
    );
  });

  test("a caller who gives up ends the request at once, with the caller's reason", async () => {
    const arrived = Promise.withResolvers<undefined>();
    await using service = await startService(() => arrived.resolve(undefined));
    await using http = await requests();
    const caller = new AbortController();
    const failed = failureOf(http.send("get", { url: service.url }, caller.signal));
    await arrived.promise;
    caller.abort(new Error("enough"));
    expect((await failed).message).toBe("enough");
    await vi.waitFor(() => expect(service.sockets.size).toBe(0));
  });
});

describe("connections", () => {
  test("are kept for the next request, and closed when nobody asks any more", async () => {
    await using service = await hello();
    // So that it is not the service that closes them.
    service.server.keepAliveTimeout = 0;
    await using http = await requests();
    const seen = new Set<unknown>();
    service.server.on("request", (request) => seen.add(request.socket));
    for (let time = 0; time < 20; time += 1) await http.send("get", { url: service.url });
    // A second one where the first was not yet free again.
    expect(seen.size).toBeLessThan(4);
    await vi.waitFor(() => expect(service.sockets.size).toBe(0), { timeout: 15_000, interval: 100 });
    expect((await http.send("get", { url: service.url })).body).toBe("hello");
  }, 20_000);

  test("are at most 16 to one origin; a slow one takes nothing from another", async () => {
    const gate = Promise.withResolvers<undefined>();
    await using slow = await startService((_request, response) => {
      void gate.promise.then(() => response.end("late"));
    });
    await using quick = await hello();
    await using http = await requests();
    const waiting = Array.from({ length: 40 }, async () => await http.send("get", { url: slow.url }));
    await vi.waitFor(() => expect(slow.sockets.size).toBe(16));
    expect((await http.send("get", { url: quick.url })).body).toBe("hello");
    expect(slow.sockets.size).toBe(16);
    gate.resolve(undefined);
    expect((await Promise.all(waiting)).every(({ body }) => body === "late")).toBe(true);
  });
});

describe("its life", () => {
  test("before initialize and after shutdown it takes nothing; it can be initialized again", async () => {
    await using service = await hello();
    const handler = new HandlerHttp();
    const signal = new AbortController().signal;
    const envelope = { operation: "http.get", payload: { url: service.url } } as never;
    expect((await failureOf(handler.execute(envelope, { signal }))).message).toContain("not initialized");
    expect(await handler.healthCheck()).toEqual({ healthy: false, reason: "not_initialized" });
    await handler.shutdown();
    for (let time = 0; time < 2; time += 1) {
      await handler.initialize({});
      expect((await failureOf(handler.initialize({}))).message).toContain("already initialized");
      expect(await handler.execute(envelope, { signal })).toMatchObject({ body: "hello" });
      expect(await handler.healthCheck()).toMatchObject({ healthy: true, pending: 0 });
      await handler.shutdown();
      await handler.shutdown();
    }
  });

  test("shutdown ends what is under way and closes the connections", async () => {
    const arrived = Promise.withResolvers<undefined>();
    await using service = await startService(() => arrived.resolve(undefined));
    const http = await requests();
    const failed = failureOf(http.send("get", { url: service.url }));
    await arrived.promise;
    expect(await http.handler.healthCheck()).toMatchObject({ pending: 1 });
    await http.handler.shutdown();
    expect(await failed).toBeInstanceOf(InfraUnavailableError);
    await vi.waitFor(() => expect(service.sockets.size).toBe(0));
  });

  test("describe says what it does and with which limits", async () => {
    await using http = await requests({ allowed_hosts: ["api.example.com"], timeout_seconds: 20 });
    expect(http.handler.describe()).toMatchObject({
      handler_type: "infra_handler",
      handler_category: "effect",
      transport_type: "http",
      supported_operations: ["http.get", "http.post", "http.put", "http.patch", "http.delete"],
      config: {
        max_request_bytes: 1_048_576,
        max_response_bytes: 10_485_760,
        timeout_seconds: 20,
        default_timeout_seconds: 20,
        allowed_networks: [],
        allowed_hosts: ["api.example.com"],
      },
    });
  });
});

describe("its configuration", () => {
  test.each<[Record<string, unknown>, string]>([
    [{ max_response_byte: 1 }, "Unknown config key 'max_response_byte'. Did you mean 'max_response_bytes'?"],
    [{ timeout_seconds: 0 }, "Invalid config value for 'timeout_seconds': expected at least 1, got 0"],
    [{ timeout_seconds: "5" }, "Invalid config type for 'timeout_seconds': expected number, got string"],
    [{ max_request_bytes: 1.5 }, "Invalid config type for 'max_request_bytes': expected integer, got number"],
    [{ allowed_networks: ["10.0.0.0/99"] }, "Invalid config value for 'allowed_networks[0]'"],
    [{ allowed_hosts: ["https://x"] }, "Invalid config value for 'allowed_hosts[0]'"],
    [{ allowed_hosts: ["a b"] }, "Invalid config value for 'allowed_hosts[0]'"],
  ])("%j is refused", async (config, message) => {
    const error = await failureOf(new HandlerHttp().initialize(config));
    expect(error).toBeInstanceOf(ProtocolConfigurationError);
    expect(error.message).toContain(message);
  });
});
