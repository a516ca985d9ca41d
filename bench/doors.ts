/**
 * What a client sends through each of the three doors of the MCP endpoint. Owns: the bytes of requests. Shared by the
 * load generator and by the main program.
 *
 * 1. Every request of one kind has the same length: ids have ten digits, so heads are made once.
 */

/** How a client speaks: without a session, in a session of its own, or in the revision that has none. */
export const doors = ["2025-11-25", "2025-11-25 session", "2026-07-28"] as const;
export type Door = (typeof doors)[number];

/** What is asked for: a call of the tool, or the list. */
export type Question = { readonly tool: string } | "list";

/** The first id of a connection; 1,000,000,000 and up, ten million ids for each. (1) */
export const firstId = (connection: number): number => (100 + connection) * 10_000_000;

/** The argument that the tool echoes: another one for every call, so that an answer cannot be another call's. */
export const textOf = (id: number): string => `the text of call ${id}`;

const accept = "application/json, text/event-stream";
const modernMeta = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientInfo": { name: "bench", version: "1.0.0" },
  "io.modelcontextprotocol/clientCapabilities": {},
};

/** One HTTP/1.1 request, whole. */
export function httpRequest(url: URL, method: string, headers: Record<string, string>, body: string): string {
  return head(url, method, headers, body) + body;
}

function head(url: URL, method: string, headers: Record<string, string>, body: string): string {
  const lines = [`${method} ${url.pathname} HTTP/1.1`, `host: ${url.host}`, `accept: ${accept}`];
  if (body !== "") lines.push("content-type: application/json", `content-length: ${Buffer.byteLength(body)}`);
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

/** Opens a session: `initialize`. */
export const initialize = (url: URL): string =>
  httpRequest(
    url,
    "POST",
    {},
    JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "initialize",
      params: {
        protocolVersion: "2025-11-25",
        capabilities: {},
        clientInfo: { name: "bench", version: "1" },
      },
    }),
  );

/** Says that the session is in use. */
export const initialized = (url: URL, session: string): string =>
  httpRequest(
    url,
    "POST",
    { "mcp-session-id": session },
    JSON.stringify({ jsonrpc: "2.0", method: "notifications/initialized" }),
  );

/** Ends the session. */
export const endSession = (url: URL, session: string): string =>
  httpRequest(url, "DELETE", { "mcp-session-id": session }, "");

/** From an id to the request that has it. */
export function requests(
  url: URL,
  door: Door,
  question: Question,
  session: string | undefined,
): (id: number) => string {
  const method = question === "list" ? "tools/list" : "tools/call";
  const modern = door === "2026-07-28";
  const headers: Record<string, string> = { "mcp-protocol-version": modern ? "2026-07-28" : "2025-11-25" };
  if (session !== undefined) headers["mcp-session-id"] = session;
  if (modern) headers["mcp-method"] = method;
  if (modern && question !== "list") headers["mcp-name"] = question.tool;
  const body = (id: number): string =>
    JSON.stringify({
      jsonrpc: "2.0",
      id,
      method,
      params: {
        ...(question !== "list" && { name: question.tool, arguments: { text: textOf(id) } }),
        ...(modern && { _meta: modernMeta }),
      },
    });
  // The sample is cut where its id stands; nothing is built or measured for each request. (1)
  const sample = 1_234_567_890;
  const sampleBody = body(sample);
  const parts = (head(url, "POST", headers, sampleBody) + sampleBody).split(String(sample));
  return (id) => parts.join(String(id));
}
