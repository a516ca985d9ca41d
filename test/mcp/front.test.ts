import { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as LegacyTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { describe, expect, it } from "vitest";
import type { Front } from "../../src/mcp/front.ts";
import { textResult, type CallTool } from "../../src/tools/call.ts";
import { catalogOf, makeTool, put } from "../support/tools.ts";
import {
  both,
  call,
  initialize,
  makeFront,
  me,
  modernHeaders,
  modernMeta,
  openSession,
  send,
} from "./requests.ts";

function fetchOf(front: Front): typeof fetch {
  return async (url, init) => front.fetch(new Request(url, init), me, init?.body as string | undefined);
}

describe("older revisions", () => {
  it.each(["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])(
    "initialize with %s is answered with it",
    async (revision) => {
      const response = await send(makeFront(catalogOf()), initialize(revision));
      expect(response.headers.get("content-type")).toBe("application/json");
      const body = await response.json();
      expect(body).toMatchObject({ id: 1, result: { protocolVersion: revision } });
    },
  );

  it.each(["2026-07-28", "1999-01-01"])(
    "initialize with %s is answered with 2025-11-25",
    async (revision) => {
      const response = await send(makeFront(catalogOf()), initialize(revision));
      expect(await response.json()).toMatchObject({ result: { protocolVersion: "2025-11-25" } });
    },
  );

  it("a session id is visible ASCII and leads back to its session", async () => {
    const front = makeFront(catalogOf(makeTool("a")));
    const id = await openSession(front);
    expect(id).toMatch(/^[\x21-\x7e]+$/);
    const response = await send(front, call(2, "tools/list"), { headers: { "mcp-session-id": id } });
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ id: 2, result: { tools: [{ name: "a" }] } });
  });

  it("a POST without a session id stands alone", async () => {
    const front = makeFront(catalogOf(makeTool("a")));
    const response = await send(front, call(7, "tools/call", { name: "a", arguments: { q: 1 } }));
    expect(response.headers.get("mcp-session-id")).toBeNull();
    expect(await response.json()).toMatchObject({ id: 7, result: { content: [{ text: '{"q":1}' }] } });
    expect(front.sessionCount).toBe(0);
  });

  it("GET without a session id is 405 with Allow, as is any other method", async () => {
    const front = makeFront(catalogOf());
    const get = await send(front, undefined, { method: "GET" });
    expect([get.status, get.headers.get("allow")]).toEqual([405, "POST"]);
    const put = await send(front, undefined, { method: "PUT" });
    expect([put.status, put.headers.get("allow")]).toEqual([405, "GET, POST, DELETE"]);
  });

  it("stateless: no session id, no GET stream", async () => {
    const front = makeFront(catalogOf(makeTool("a")), { stateless: true });
    const response = await send(front, initialize("2025-11-25"));
    expect(response.headers.get("mcp-session-id")).toBeNull();
    expect(await response.json()).toMatchObject({ result: { protocolVersion: "2025-11-25" } });
    expect((await send(front, undefined, { method: "GET" })).status).toBe(405);
    expect((await send(front, undefined, { method: "DELETE" })).status).toBe(405);
    expect(await (await send(front, call(2, "tools/list"))).json()).toMatchObject({
      result: { tools: [{ name: "a" }] },
    });
  });

  it("an unsupported MCP-Protocol-Version header is 400", async () => {
    const response = await send(makeFront(catalogOf()), call(1, "ping"), {
      headers: { "mcp-protocol-version": "1.0" },
    });
    expect(response.status).toBe(400);
  });

  it("a batch of 2025-03-26 is answered as one", async () => {
    const front = makeFront(catalogOf(makeTool("a")));
    const response = await send(front, [call(1, "ping"), call(2, "tools/list")]);
    const answers = (await response.json()) as { id: number }[];
    expect(answers.map((answer) => answer.id).sort()).toEqual([1, 2]);
  });

  it("a client that takes JSON only gets the plain answer, without what preceded it", async () => {
    const withProgress: CallTool = async (request) => {
      request.onProgress?.({ done: 1 });
      return textResult("done");
    };
    const front = makeFront(catalogOf(makeTool("a")), { call: withProgress });
    const body = call(1, "tools/call", { name: "a", _meta: { progressToken: "t" } });
    const json = await send(front, body, { headers: { accept: "application/json" } });
    expect(await json.json()).toMatchObject({ id: 1, result: { content: [{ text: "done" }] } });
    const stream = await send(front, body);
    expect(stream.headers.get("content-type")).toBe("text/event-stream");
    const text = await stream.text();
    expect(text.indexOf("notifications/progress")).toBeLessThan(text.indexOf('"result"'));
    expect(text).toContain("notifications/progress");
  });

  it("json_response false: every answer is a stream", async () => {
    const front = makeFront(catalogOf(makeTool("a")), { jsonResponse: false });
    const older = await send(front, call(1, "tools/list"));
    expect(older.headers.get("content-type")).toBe("text/event-stream");
    const modern = await send(front, call(1, "tools/list", { _meta: modernMeta }), {
      headers: modernHeaders("tools/list"),
    });
    expect(modern.headers.get("content-type")).toBe("text/event-stream");
  });

  it("a client that takes a stream only gets one", async () => {
    const headers = { accept: "text/event-stream" };
    const answer = await send(makeFront(catalogOf()), call(1, "ping"), { headers });
    expect(answer.headers.get("content-type")).toBe("text/event-stream");
  });

  it("a plain curl without Accept is served; one that takes neither type is 406", async () => {
    const front = makeFront(catalogOf());
    expect((await send(front, call(1, "ping"), { headers: { accept: "*/*" } })).status).toBe(200);
    expect((await send(front, call(1, "ping"), { headers: { accept: "image/png" } })).status).toBe(406);
  });
});

describe("revision 2026-07-28", () => {
  it("server/discover names versions, capabilities and caching", async () => {
    const front = makeFront(catalogOf());
    const response = await send(front, call("d", "server/discover", { _meta: modernMeta }), {
      headers: modernHeaders("server/discover"),
    });
    expect(await response.json()).toMatchObject({
      id: "d",
      result: {
        resultType: "complete",
        supportedVersions: ["2026-07-28"],
        capabilities: { tools: { listChanged: true } },
        ttlMs: 0,
        cacheScope: "private",
      },
    });
  });

  it("the header without the envelope is 400 and -32602, a disagreeing one -32020, an unknown version -32022", async () => {
    const front = makeFront(catalogOf());
    const bare = await send(front, call(1, "tools/list"), { headers: modernHeaders("tools/list") });
    expect([bare.status, ((await bare.json()) as any).error.code]).toEqual([400, -32602]);
    const other = await send(front, call(2, "tools/list", { _meta: modernMeta }), {
      headers: modernHeaders("tools/call"),
    });
    expect([other.status, ((await other.json()) as any).error.code]).toEqual([400, -32020]);
    const meta = { ...modernMeta, "io.modelcontextprotocol/protocolVersion": "2099-01-01" };
    const unknown = await send(front, call(3, "tools/list", { _meta: meta }), {
      headers: { ...modernHeaders("tools/list"), "mcp-protocol-version": "2099-01-01" },
    });
    expect([unknown.status, ((await unknown.json()) as any).error]).toMatchObject([
      400,
      { code: -32022, data: { requested: "2099-01-01" } },
    ]);
  });

  it("an unknown method is 404 with -32601, also those that the revision removed", async () => {
    const front = makeFront(catalogOf());
    for (const method of ["no/such", "ping", "logging/setLevel"]) {
      const response = await send(front, call(1, method, { _meta: modernMeta }), {
        headers: modernHeaders(method),
      });
      expect([response.status, ((await response.json()) as any).error.code]).toEqual([404, -32601]);
    }
  });

  it("Mcp-Param headers must agree with the arguments", async () => {
    const inputSchema = {
      type: "object",
      properties: {
        region: { type: "string", "x-mcp-header": "Region" },
        limit: { type: "integer", "x-mcp-header": "Limit" },
      },
    };
    const front = makeFront(catalogOf(makeTool("q", { inputSchema })));
    const ask = async (
      args: object,
      headers: Record<string, string>,
    ): Promise<[number, number | undefined]> => {
      const body = call(1, "tools/call", { name: "q", arguments: args, _meta: modernMeta });
      const response = await send(front, body, {
        headers: { ...modernHeaders("tools/call", "q"), ...headers },
      });
      return [response.status, ((await response.json()) as any).error?.code];
    };
    expect(await ask({ region: "eu" }, { "mcp-param-region": "eu" })).toEqual([200, undefined]);
    expect(await ask({ region: "eu" }, {})).toEqual([400, -32020]);
    expect(await ask({ region: "eu" }, { "mcp-param-region": "us" })).toEqual([400, -32020]);
    expect(
      await ask(
        { region: "Zürich" },
        { "mcp-param-region": `=?base64?${Buffer.from("Zürich").toString("base64")}?=` },
      ),
    ).toEqual([200, undefined]);
    expect(await ask({ region: "eu" }, { "mcp-param-region": "=?base64?!!!?=" })).toEqual([400, -32020]);
    expect(await ask({ limit: 42 }, { "mcp-param-limit": "42.0" })).toEqual([200, undefined]);
    expect(await ask({ region: null }, { "mcp-param-region": "ignored" })).toEqual([200, undefined]);
  });

  it("headers are compared only where the revision is one that is served", async () => {
    const inputSchema = { type: "object", properties: { r: { type: "string", "x-mcp-header": "R" } } };
    const meta = { ...modernMeta, "io.modelcontextprotocol/protocolVersion": "2099-01-01" };
    const body = call(1, "tools/call", { name: "q", arguments: { r: "eu" }, _meta: meta });
    const answer = await send(makeFront(catalogOf(makeTool("q", { inputSchema }))), body, {
      headers: { ...modernHeaders("tools/call", "q"), "mcp-protocol-version": "2099-01-01" },
    });
    expect(await answer.json()).toMatchObject({ error: { code: -32022 } });
  });

  it("a mark that is no header's name asks for no header", async () => {
    const inputSchema = {
      type: "object",
      properties: { region: { type: "string", "x-mcp-header": "my region" } },
    };
    const front = makeFront(catalogOf(makeTool("q", { inputSchema })));
    const body = call(1, "tools/call", { name: "q", arguments: { region: "eu" }, _meta: modernMeta });
    expect((await send(front, body, { headers: modernHeaders("tools/call", "q") })).status).toBe(200);
  });

  it("a session id on a request of this revision is ignored and none is made", async () => {
    const front = makeFront(catalogOf());
    const headers = { ...modernHeaders("tools/list"), "mcp-session-id": "whatever" };
    const response = await send(front, call(1, "tools/list", { _meta: modernMeta }), { headers });
    expect([response.status, response.headers.get("mcp-session-id")]).toEqual([200, null]);
  });

  it("a client that closes the stream cancels the call", async () => {
    const { promise: aborted, resolve } = Promise.withResolvers<string>();
    const { promise: started, resolve: start } = Promise.withResolvers<undefined>();
    const hang: CallTool = (_, signal) =>
      new Promise((settle) => {
        start(undefined);
        signal.addEventListener("abort", () => {
          resolve("aborted");
          settle(textResult("late"));
        });
      });
    const front = makeFront(catalogOf(makeTool("a")), { call: hang });
    const client = new AbortController();
    const request = new Request("http://localhost/mcp", {
      method: "POST",
      headers: { "content-type": "application/json", accept: both, ...modernHeaders("tools/call", "a") },
      signal: client.signal,
    });
    const body = JSON.stringify(call(1, "tools/call", { name: "a", _meta: modernMeta }));
    const answer = front.fetch(request, me, body);
    await started;
    client.abort();
    expect(await aborted).toBe("aborted");
    await answer;
  });
});

describe("messages", () => {
  it.each([
    ["not JSON", "{", -32700, null],
    ["a number", "7", -32600, null],
    ["null", "null", -32600, null],
    ["an empty batch", "[]", -32600, null],
    ["no jsonrpc", '{"id":1,"method":"ping"}', -32600, 1],
    ["a fractional id", '{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600, null],
    ["an id of null", '{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, null],
    ["params that are no object", '{"jsonrpc":"2.0","id":"x","method":"ping","params":[1]}', -32600, "x"],
    ["neither request nor response", '{"jsonrpc":"2.0","id":3}', -32600, 3],
  ])("%s is refused with its code and id", async (_, body, code, id) => {
    const response = await send(makeFront(catalogOf()), body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ jsonrpc: "2.0", error: { code }, id });
  });

  it("an unknown tool is -32602 in both eras", async () => {
    const front = makeFront(catalogOf());
    const older = await send(front, call(1, "tools/call", { name: "nope" }));
    expect(await older.json()).toMatchObject({ error: { code: -32602, message: "Unknown tool: nope" } });
    const body = call(1, "tools/call", { name: "nope", _meta: modernMeta });
    const modern = await send(front, body, { headers: modernHeaders("tools/call", "nope") });
    expect(await modern.json()).toMatchObject({ error: { code: -32602, message: "Unknown tool: nope" } });
  });

  it("a cursor that this runtime did not make is -32602", async () => {
    const front = makeFront(catalogOf(makeTool("a")));
    const response = await send(front, call(1, "tools/list", { cursor: "nonsense" }));
    expect(await response.json()).toMatchObject({ error: { code: -32602 } });
  });
});

describe("methods and doors", () => {
  it("a method that has no use here is 405 with Allow", async () => {
    const front = makeFront(catalogOf());
    for (const method of ["HEAD", "OPTIONS", "PATCH"]) {
      const answer = await send(front, undefined, { method });
      expect([answer.status, answer.headers.get("allow")]).toEqual([405, "GET, POST, DELETE"]);
    }
  });

  it("notifications and answers of clients are accepted with 202 and no body", async () => {
    const front = makeFront(catalogOf());
    const session = { "mcp-session-id": await openSession(front) };
    for (const headers of [session, {}]) {
      for (const message of [
        { jsonrpc: "2.0", method: "notifications/unknown" },
        { jsonrpc: "2.0", id: 7, result: {} },
        { jsonrpc: "2.0", id: 7, error: { code: 1, message: "no" } },
      ]) {
        const answer = await send(front, message, { headers });
        expect([answer.status, await answer.text()]).toEqual([202, ""]);
      }
    }
    const headers = modernHeaders("notifications/cancelled");
    const modern = {
      jsonrpc: "2.0",
      method: "notifications/cancelled",
      params: { requestId: 1, _meta: modernMeta },
    };
    expect((await send(front, modern, { headers })).status).toBe(202);
  });

  it("a batch of 2026-07-28 is refused", async () => {
    const answer = await send(makeFront(catalogOf()), [call(1, "tools/list", { _meta: modernMeta })], {
      headers: modernHeaders("tools/list"),
    });
    expect(answer.status).toBe(400);
  });

  it("params that break a method's schema are -32602 in both eras", async () => {
    const front = makeFront(catalogOf());
    const older = await send(front, call(1, "tools/list", { cursor: 5 }));
    expect(await older.json()).toMatchObject({ id: 1, error: { code: -32602 } });
    const modern = await send(front, call(1, "tools/list", { cursor: 5, _meta: modernMeta }), {
      headers: modernHeaders("tools/list"),
    });
    expect(await modern.json()).toMatchObject({ id: 1, error: { code: -32602 } });
    const initialized = await send(front, call(1, "initialize", { protocolVersion: 5 }));
    expect(await initialized.json()).toMatchObject({ id: 1, error: { code: -32602 } });
  });
});

describe("list_changed", () => {
  it("reaches a GET stream and a subscription once per change", async () => {
    const catalog = catalogOf(makeTool("a"));
    const front = makeFront(catalog);
    const counts = { legacy: 0, modern: 0 };
    const legacy = new LegacyClient(
      { name: "t", version: "1" },
      {
        listChanged: {
          tools: { autoRefresh: false, debounceMs: 0, onChanged: () => void (counts.legacy += 1) },
        },
      },
    );
    await legacy.connect(new LegacyTransport(new URL("http://localhost/mcp"), { fetch: fetchOf(front) }));
    const modern = new Client({ name: "t", version: "1" }, { versionNegotiation: { mode: "auto" } });
    modern.setNotificationHandler("notifications/tools/list_changed", () => void (counts.modern += 1));
    await modern.connect(
      new StreamableHTTPClientTransport(new URL("http://localhost/mcp"), { fetch: fetchOf(front) }),
    );
    await modern.listen({ toolsListChanged: true });
    put(catalog, makeTool("b"), makeTool("c"));
    await expect.poll(() => counts).toEqual({ legacy: 1, modern: 1 });
    put(catalog, makeTool("a"));
    put(catalog, makeTool("d"));
    await expect.poll(() => counts).toEqual({ legacy: 2, modern: 2 });
    await legacy.close();
    await modern.close();
  });

  it("subscriptions and streams end before calls do", async () => {
    const { promise: release, resolve } = Promise.withResolvers<undefined>();
    const slow: CallTool = async () => {
      await release;
      return textResult("finished");
    };
    const front = makeFront(catalogOf(makeTool("a")), { call: slow });
    const headers = { "mcp-session-id": await openSession(front) };
    const stream = await send(front, undefined, { method: "GET", headers });
    const subscription = await send(
      front,
      call("s", "subscriptions/listen", { notifications: { toolsListChanged: true }, _meta: modernMeta }),
      { headers: modernHeaders("subscriptions/listen") },
    );
    const running = send(front, call(9, "tools/call", { name: "a" }), { headers });
    await front.endStreams();
    await stream.text();
    expect(await subscription.text()).toContain('"id":"s"');
    resolve(undefined);
    expect(await (await running).json()).toMatchObject({
      id: 9,
      result: { content: [{ text: "finished" }] },
    });
  });
});
