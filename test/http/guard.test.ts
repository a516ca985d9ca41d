import { Hono } from "hono";
import { describe, expect, test } from "vitest";
import { ProtocolConfigurationError } from "../../src/core/errors.ts";
import { createGuard, readBody, type GuardOptions, type GuardedRequest } from "../../src/http/guard.ts";
import { problemResponse } from "../../src/http/problem.ts";
import { rawClient, serve } from "./sockets.ts";

/** The status the guard answers with, 200 where it lets pass. */
const statusOf = (options: GuardOptions, headers: GuardedRequest["headers"], method = "GET"): number =>
  createGuard(options).check({ method, headers })?.status ?? 200;

const loopback: GuardOptions = { host: "127.0.0.1" };

describe("Host", () => {
  test.each([
    "localhost",
    "LOCALHOST:1",
    "localhost.:8090",
    "127.0.0.1:65535",
    "[::1]",
    "[::1]:8090",
    "[0:0:0:0:0:0:0:1]:1",
  ])("bound to loopback, %s is served", (host) => {
    expect(statusOf(loopback, { host })).toBe(200);
    expect(statusOf({ host: "::1" }, { host })).toBe(200);
    expect(statusOf({ host: "localhost" }, { host })).toBe(200);
  });

  test.each([
    "evil.example",
    "evil.example:8090",
    "localhost.evil.example",
    "127.0.0.1.nip.io:8090",
    "127.0.0.1@evil.example",
    "localhost:8090@evil.example",
    "localhost:x",
    "localhost, evil.example",
    "localhost/",
    "127.1",
    "0x7f000001",
    "10.0.0.5",
    "0.0.0.0",
    "[::1",
    "[::2]",
    "",
    " ",
  ])("a name rebound to this machine is refused: Host %j is 403", (host) => {
    expect(statusOf(loopback, { host })).toBe(403);
  });

  test("a missing Host is 400", () => {
    expect(statusOf(loopback, {})).toBe(400);
  });

  test("bound to an address, that address is served and loopback names are not", () => {
    const bound: GuardOptions = { host: "10.0.0.5" };
    expect(statusOf(bound, { host: "10.0.0.5:8090" })).toBe(200);
    expect(statusOf(bound, { host: "localhost:8090" })).toBe(403);
    expect(statusOf(bound, { host: "10.0.0.6" })).toBe(403);
  });

  test("bound to every interface, addresses and loopback are served, foreign names are not", () => {
    for (const host of ["0.0.0.0", "::"]) {
      for (const good of ["10.0.0.5:8090", "[2001:db8::1]:8090", "localhost", "127.0.0.1:1"])
        expect(statusOf({ host }, { host: good })).toBe(200);
      expect(statusOf({ host }, { host: "evil.example" })).toBe(403);
    }
  });

  test("configured names are served, with any port or with the given one only", () => {
    const options: GuardOptions = {
      host: "0.0.0.0",
      allowedHosts: ["Tools.Example.com", "gw.example.com:8443"],
    };
    expect(statusOf(options, { host: "tools.example.com:1234" })).toBe(200);
    expect(statusOf(options, { host: "gw.example.com:8443" })).toBe(200);
    expect(statusOf(options, { host: "gw.example.com" })).toBe(403);
  });

  test("an entry that is no host name is a configuration error that shows it", () => {
    expect(() => createGuard({ ...loopback, allowedHosts: ["https://x"] })).toThrow(
      ProtocolConfigurationError,
    );
    expect(() => createGuard({ ...loopback, allowedHosts: ["https://x"] })).toThrow(
      /"https:\/\/x" is not a host name/,
    );
  });
});

describe("Origin", () => {
  const host = "localhost:8090";
  test.each(["http://localhost:3000", "http://127.0.0.1:8090", "http://[::1]:1", "https://localhost"])(
    "bound to loopback, pages of %s may call",
    (origin) => {
      expect(statusOf(loopback, { host, origin })).toBe(200);
    },
  );

  test.each([
    "null",
    "",
    "https://evil.example",
    "http://localhost.evil.example",
    "http://localhost@evil.example",
    "http://localhost:8090, http://evil.example",
    "file://",
    "localhost:8090",
    "chrome-extension://abcdef",
    "capacitor://localhost",
    "javascript:alert(1)",
  ])("Origin %j is 403", (origin) => {
    expect(statusOf(loopback, { host, origin })).toBe(403);
  });

  test("bound elsewhere, pages of the very server may call and loopback pages may not", () => {
    const bound: GuardOptions = { host: "10.0.0.5", allowedHosts: ["gw.example.com"] };
    const asked = { host: "10.0.0.5:8090" };
    expect(statusOf(bound, { ...asked, origin: "http://10.0.0.5:8090" })).toBe(200);
    expect(statusOf(bound, { ...asked, origin: "http://10.0.0.5:9999" })).toBe(403);
    expect(statusOf(bound, { ...asked, origin: "http://localhost:8090" })).toBe(403);
    // Behind a proxy that ends TLS the page's scheme is not ours.
    expect(statusOf(bound, { host: "gw.example.com", origin: "https://gw.example.com" })).toBe(200);
  });

  test("a rebound page is refused by its Host although Host and Origin agree", () => {
    expect(statusOf(loopback, { host: "evil.example:8090", origin: "http://evil.example:8090" })).toBe(403);
  });

  test("configured origins may call, extensions among them", () => {
    const options = { ...loopback, allowedOrigins: ["https://app.example.com", "vscode-webview://abc"] };
    expect(statusOf(options, { host, origin: "https://app.example.com" })).toBe(200);
    expect(statusOf(options, { host, origin: "https://app.example.com:444" })).toBe(403);
    expect(statusOf(options, { host, origin: "http://app.example.com" })).toBe(403);
    expect(statusOf(options, { host, origin: "vscode-webview://abc" })).toBe(200);
  });

  test.each(["*", "null", "app.example.com", "https://app.example.com/path"])(
    "the entry %j is a configuration error that shows it",
    (entry) => {
      expect(() => createGuard({ ...loopback, allowedOrigins: [entry] })).toThrow(
        `"${entry}" is not an origin`,
      );
    },
  );
});

describe("content type", () => {
  const post = (headers: Partial<GuardedRequest["headers"]>): number =>
    statusOf(loopback, { host: "localhost", "content-length": "2", ...headers }, "POST");

  test.each(["application/json", "application/json; charset=utf-8", "Application/JSON"])(
    "%s is taken",
    (type) => {
      expect(post({ "content-type": type })).toBe(200);
    },
  );

  test.each([
    undefined,
    "text/plain",
    "text/plain; application/json",
    "application/jsonp",
    "multipart/form-data",
  ])("a body of type %s is 415", (type) => {
    expect(post({ "content-type": type })).toBe(415);
  });

  test("a chunked body without a type is 415, a POST without a body needs none", () => {
    expect(post({ "content-length": undefined, "transfer-encoding": "chunked" })).toBe(415);
    expect(post({ "content-length": "0" })).toBe(200);
    expect(post({ "content-length": undefined })).toBe(200);
  });
});

describe("size, through a real socket", () => {
  const limit = 1_000;
  const start = (): ReturnType<typeof serve> => {
    const guard = createGuard({ ...loopback, maxBodyBytes: limit });
    const app = new Hono();
    app.use(guard.middleware);
    app.post("/", async (context) => {
      const body = await readBody(context.req.raw, guard.maxBodyBytes);
      return body.ok ? context.text(String(body.bytes.byteLength)) : problemResponse(body.problem);
    });
    return serve({ fetch: app.fetch });
  };
  const headers = { "content-type": "application/json" };

  test("a body of exactly the limit is read", async () => {
    const server = await start();
    const answer = await fetch(server.url, { method: "POST", headers, body: "x".repeat(limit) });
    expect([answer.status, await answer.text()]).toEqual([200, String(limit)]);
  });

  test("a Content-Length over the limit is 413 before any of the body is read", async () => {
    const server = await start();
    const client = await rawClient(server);
    client.socket.write(
      `POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${limit + 1}\r\nConnection: close\r\n\r\n`,
    );
    expect(await client.ended).toMatch(/^HTTP\/1\.1 413 [\s\S]*application\/problem\+json/);
  });

  test("a stream over the limit is 413 as soon as it passes it", async () => {
    const server = await start();
    const client = await rawClient(server);
    client.socket.write(
      "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    const chunk = "x".repeat(600);
    client.socket.write(`${chunk.length.toString(16)}\r\n${chunk}\r\n`.repeat(2));
    // The last chunk is never sent.
    expect(await client.ended).toMatch(/^HTTP\/1\.1 413 /);
  });

  test("an endless body is cut off and the server goes on", async () => {
    const server = await start();
    const client = await rawClient(server);
    client.socket.write(
      "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    const chunk = "x".repeat(0x4000);
    const pour = (): void => {
      while (!client.socket.destroyed && client.socket.write(`4000\r\n${chunk}\r\n`));
    };
    client.socket.on("drain", pour);
    pour();
    await client.ended;
    expect((await fetch(server.url, { method: "POST", headers, body: "{}" })).status).toBe(200);
  });

  test("a chunked body within the limit is read whole", async () => {
    const server = await start();
    const body = new Blob(["x".repeat(300), "y".repeat(300)]).stream();
    const answer = await fetch(server.url, { method: "POST", headers, body, duplex: "half" });
    expect([answer.status, await answer.text()]).toEqual([200, "600"]);
  });

  test("a foreign Host is 403 on every path, unknown ones too", async () => {
    const server = await start();
    for (const path of ["/", "/unknown"]) {
      const client = await rawClient(server);
      client.socket.write(
        `GET ${path} HTTP/1.1\r\nHost: evil.example:${server.port}\r\nConnection: close\r\n\r\n`,
      );
      expect(await client.ended).toMatch(/^HTTP\/1\.1 403 /);
    }
  });
});

test("a body that breaks off is 400", async () => {
  const stream = new ReadableStream({ start: (controller) => controller.error(new Error("reset")) });
  const request = new Request("http://localhost/", {
    method: "POST",
    body: stream,
    duplex: "half",
  });
  expect(await readBody(request, 10)).toMatchObject({ ok: false, problem: { status: 400 } });
});

test("a request without a body has an empty one", async () => {
  expect(await readBody(new Request("http://localhost/", { method: "POST" }), 10)).toEqual({
    ok: true,
    bytes: new Uint8Array(),
  });
});
