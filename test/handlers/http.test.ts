/** HandlerHttp: what is sent, and what comes back. */
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { requests, startService, textOf } from "./http-service.ts";

/** Answers with what it got. */
const echo = () =>
  startService((request, response) => {
    void textOf(request).then((body) => {
      const { method, url, headers } = request;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ method, url, headers, body }));
    });
  });

describe("a request", () => {
  test.each([
    ["get", "GET"],
    ["delete", "DELETE"],
  ])("http.%s sends %s without a body", async (verb, method) => {
    await using service = await echo();
    await using http = await requests();
    const answer = await http.send(verb, { url: `${service.url}/a/b?x=1#top` });
    expect(answer).toMatchObject({ status_code: 200, url: `${service.url}/a/b?x=1` });
    expect(answer.body).toMatchObject({ method, url: "/a/b?x=1", body: "" });
    expect(answer.body.headers).not.toHaveProperty("content-type");
  });

  test.each([
    ["post", "POST"],
    ["put", "PUT"],
    ["patch", "PATCH"],
  ])("http.%s sends %s with a body: text as it is, anything else as JSON", async (verb, method) => {
    await using service = await echo();
    await using http = await requests();
    const { url } = service;
    const json = (await http.send(verb, { url, body: { a: [1, "ü"] } })).body;
    expect(json).toMatchObject({ method, body: '{"a":[1,"ü"]}' });
    expect(json.headers["content-type"]).toBe("application/json");
    const text = (await http.send(verb, { url, body: "grün" })).body;
    expect(text).toMatchObject({ body: "grün", headers: { "content-type": "text/plain; charset=utf-8" } });
    const own = { url, body: "<a/>", headers: { "content-TYPE": "application/xml" } };
    expect((await http.send(verb, own)).body.headers["content-type"]).toBe("application/xml");
    for (const none of [{ url }, { url, body: null }])
      expect((await http.send(verb, none)).body).toMatchObject({
        body: "",
        headers: { "content-length": "0" },
      });
  });

  test("query is added to the URL's own, encoded, a list as several", async () => {
    await using service = await echo();
    await using http = await requests();
    const query = { q: "a b&c=d", page: 2, exact: true, tag: ["x", "y"] };
    const { body, url } = await http.send("get", { url: `${service.url}/find?lang=de`, query });
    expect(body.url).toBe("/find?lang=de&q=a+b%26c%3Dd&page=2&exact=true&tag=x&tag=y");
    expect(url).toBe(`${service.url}${String(body.url)}`);
  });

  test("headers are the caller's, with a user agent and accept where there is none", async () => {
    await using service = await echo();
    await using http = await requests();
    const { url } = service;
    const { headers } = (await http.send("get", { url, headers: { "X-Trace": "t-1", "X-Count": 3 } })).body;
    expect(headers).toMatchObject({
      "x-trace": "t-1",
      "x-count": "3",
      "user-agent": "onex-runtime",
      host: `127.0.0.1:${service.port}`,
    });
    expect(headers.accept).toContain("application/json");
    const mine = await http.send("get", { url, headers: { accept: "text/csv", "USER-AGENT": "me" } });
    expect(mine.body.headers).toMatchObject({ accept: "text/csv", "user-agent": "me" });
  });

  test("the verb counts, not the protocol type: a second handler may have other limits", async () => {
    await using service = await echo();
    await using http = await requests();
    expect((await http.send("web.get", { url: service.url })).status_code).toBe(200);
  });
});

describe("an answer", () => {
  /** The payload for an answer with this type and these bytes. */
  async function answered(
    type: string | undefined,
    bytes: string | Buffer,
    more: Record<string, string> = {},
  ) {
    await using service = await startService((_request, response) => {
      response.writeHead(200, { ...(type !== undefined && { "content-type": type }), ...more });
      response.end(bytes);
    });
    await using http = await requests();
    const { body, encoding } = await http.send("get", { url: service.url });
    return encoding === undefined ? { body } : { body, encoding };
  }
  const latin1 = Buffer.from("grün", "latin1");
  const bytes = Buffer.from([0xff, 0x00, 0xd8]);

  test.each([
    ["JSON is parsed", "application/json", '{"a":1}', { body: { a: 1 } }],
    ["JSON of a type of its own too", "application/problem+json; charset=utf-8", '"x"', { body: "x" }],
    ["JSON after a byte order mark too", "application/json", "\ufeff[1]", { body: [1] }],
    ["JSON that is none stays text", "application/json", "{oops", { body: "{oops" }],
    ["text is text", "text/html", "<p>grün", { body: "<p>grün" }],
    ["text is decoded by its charset", 'text/plain; charset="iso-8859-1"', latin1, { body: "grün" }],
    ["XML is text", "application/atom+xml", "<a/>", { body: "<a/>" }],
    ["without a type, what is UTF-8 is text", undefined, "plain", { body: "plain" }],
    ["nothing is null", "application/json", "", { body: null }],
    ["other bytes are base64", "image/png", bytes, { body: bytes.toString("base64"), encoding: "base64" }],
    [
      "text that is not in its charset is base64",
      "text/plain",
      latin1,
      { body: latin1.toString("base64"), encoding: "base64" },
    ],
    [
      "text in an unknown charset is base64",
      "text/plain; charset=klingon",
      "nuqneH",
      { body: Buffer.from("nuqneH").toString("base64"), encoding: "base64" },
    ],
    [
      "JSON that is not UTF-8 is base64",
      "application/json",
      bytes,
      { body: bytes.toString("base64"), encoding: "base64" },
    ],
  ])("%s", async (_what, type, sent, expected) => {
    expect(await answered(type, sent)).toEqual(expected);
  });

  test("that is compressed is given as it came, in base64: nothing is unpacked", async () => {
    const packed = gzipSync('{"a":1}');
    expect(await answered("application/json", packed, { "content-encoding": "gzip" })).toEqual({
      body: packed.toString("base64"),
      encoding: "base64",
    });
  });

  test.each([201, 204, 400, 404, 429, 500, 503])(
    "with status %s is an answer, not an error",
    async (status) => {
      await using service = await startService((_request, response) => {
        response.writeHead(status, { "content-type": "application/json", "retry-after": "7" });
        response.end(status === 204 ? undefined : '{"ok":false}');
      });
      await using http = await requests();
      expect(await http.send("get", { url: service.url })).toMatchObject({
        status_code: status,
        headers: { "retry-after": "7" },
        body: status === 204 ? null : { ok: false },
      });
    },
  );

  test("headers have lower-case names; one that came several times is a list", async () => {
    await using service = await startService((_request, response) => {
      response.setHeader("Set-Cookie", ["a=1", "b=2"]);
      response.setHeader("X-One", "1");
      response.end();
    });
    await using http = await requests();
    const { headers } = await http.send("get", { url: service.url });
    expect(headers).toMatchObject({ "set-cookie": ["a=1", "b=2"], "x-one": "1" });
  });

  test("that redirects is given with its location made absolute, and is not followed", async () => {
    const paths: unknown[] = [];
    await using service = await startService((request, response) => {
      paths.push(request.url);
      response.writeHead(302, { location: "../there?x=1" });
      response.end();
    });
    await using http = await requests();
    expect(await http.send("get", { url: `${service.url}/a/b/c` })).toMatchObject({
      status_code: 302,
      headers: { location: "../there?x=1" },
      location: `${service.url}/a/there?x=1`,
    });
    expect(paths).toEqual(["/a/b/c"]);
  });
});
