import { describe, expect, test } from "vitest";
import type { RestExecution, Tool } from "../../src/tools/tool.ts";
import { callOf, executorOf, json, never, rest, service, textOf } from "./helpers.ts";

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
