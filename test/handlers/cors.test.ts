import { expect, describe, it } from "vitest";
import type { HandlerMCP } from "../../src/handlers/mcp.ts";
import { get, post, serve } from "./mcp.ts";

const page = "https://app.example.com";
const settings = {
  allowed_origins: [page],
  api_keys: [{ name: "app", key: "0123456789abcdef0123", role: "user" }],
};
const key = { "x-api-key": "0123456789abcdef0123" };
const clientInfo = { name: "page", version: "1.0.0" };
const opening = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo };

const options = (handler: HandlerMCP, path: string, headers: Record<string, string>): Promise<Response> =>
  fetch(new URL(path, handler.url), { method: "OPTIONS", headers });

const corsHeaders = ({ headers }: Response): string[] =>
  [...headers.keys()].filter((name) => name.startsWith("access-control-"));

const listOf = (response: Response, name: string): string[] =>
  (response.headers.get(name) ?? "").split(",").map((item) => item.trim().toLowerCase());

describe("web pages of an allowed origin", () => {
  it.each(["/mcp", "/mcp/tools"])("a preflight of %s is answered before authentication", async (path) => {
    const handler = await serve(settings);
    const response = await options(handler, path, {
      origin: page,
      "access-control-request-method": "POST",
      "access-control-request-headers": "content-type,mcp-param-region",
    });
    expect(response.status).toBe(204);
    expect(await response.text()).toBe("");
    expect(response.headers.get("access-control-allow-origin")).toBe(page);
    expect(response.headers.get("access-control-allow-credentials")).toBeNull();
    expect(listOf(response, "vary")).toContain("origin");
    expect(listOf(response, "access-control-allow-methods")).toEqual(["get", "head", "post", "delete"]);
    expect(listOf(response, "access-control-allow-headers")).toEqual(
      expect.arrayContaining(["content-type", "mcp-param-region", "x-api-key", "mcp-session-id"]),
    );
  });

  it("a page opens a session, reads its id and gets its stream", async () => {
    const handler = await serve(settings);
    const opened = await post(handler, "initialize", opening, { ...key, origin: page });
    expect(opened.status).toBe(200);
    expect(await opened.json()).toMatchObject({ result: { protocolVersion: "2025-11-25" } });
    expect(opened.headers.get("access-control-allow-origin")).toBe(page);
    expect(listOf(opened, "access-control-expose-headers")).toContain("mcp-session-id");
    expect(listOf(opened, "vary")).toEqual(["origin"]);
    const session = opened.headers.get("mcp-session-id")!;
    const stream = await fetch(handler.endpoint!, {
      headers: { ...key, origin: page, accept: "text/event-stream", "mcp-session-id": session },
    });
    expect(stream.headers.get("content-type")).toBe("text/event-stream");
    expect(stream.headers.get("access-control-allow-origin")).toBe(page);
    await stream.body?.cancel();
  });

  it("a page reads why it was refused, and the list of tools with its own Vary", async () => {
    const handler = await serve(settings);
    const refused = await post(handler, "ping", {}, { origin: page });
    expect(refused.status).toBe(401);
    expect(refused.headers.get("access-control-allow-origin")).toBe(page);
    expect(listOf(refused, "access-control-expose-headers")).toContain("www-authenticate");
    const list = await get(handler, "/mcp/tools", { ...key, origin: page });
    expect(list.status).toBe(200);
    expect(list.headers.get("access-control-allow-origin")).toBe(page);
    expect(listOf(list, "vary")).toEqual(["authorization", "x-api-key", "x-mcp-api-key", "origin"]);
  });

  it("another OPTIONS is no preflight: it is answered as without an Origin", async () => {
    const handler = await serve(settings);
    for (const headers of [{ ...key }, { ...key, origin: page }]) {
      for (const path of ["/mcp", "/mcp/tools"]) {
        const response = await options(handler, path, headers);
        expect(response.status).toBe(405);
        expect(corsHeaders(response)).toEqual([]);
      }
    }
  });
});

it("pages of a foreign origin get 403 without a CORS header, for a preflight as for a call", async () => {
  const handler = await serve(settings);
  const origin = "https://evil.example.com";
  const preflight = await options(handler, "/mcp", { origin, "access-control-request-method": "POST" });
  const called = await post(handler, "initialize", opening, { ...key, origin });
  for (const response of [preflight, called]) {
    expect(response.status).toBe(403);
    expect(corsHeaders(response)).toEqual([]);
  }
});

it("a request without an Origin gets no CORS header", async () => {
  const handler = await serve(settings);
  const response = await post(handler, "initialize", opening, key);
  expect(response.status).toBe(200);
  expect(corsHeaders(response)).toEqual([]);
});

it("a page on this machine that is not configured gets no CORS headers, so that it can call nothing", async () => {
  const handler = await serve({});
  const response = await options(handler, "/mcp", {
    origin: "http://localhost:3000",
    "access-control-request-method": "POST",
  });
  expect(response.ok).toBe(false);
  expect(corsHeaders(response)).toEqual([]);
});
