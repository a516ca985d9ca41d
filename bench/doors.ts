/**
 * What a client sends through each of the doors of the MCP endpoint. Owns: the bytes of requests. Shared by the load
 * generator and by the main programs.
 *
 * 1. Every request of one kind has the same length: ids have ten digits, so heads are made once.
 */
import { apiKey } from "./contracts.ts";

/** How a client speaks: a revision, without a session or in one of its own. The last knows none. */
export const doors = [
  "2025-06-18",
  "2025-06-18 session",
  "2025-11-25",
  "2025-11-25 session",
  "2026-07-28",
] as const;
export type Door = (typeof doors)[number];

export const hasSession = (door: Door): boolean => door.endsWith(" session");
const revisionOf = (door: Door): string => door.split(" ")[0] ?? "";

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
  const lines = [
    `${method} ${url.pathname} HTTP/1.1`,
    `host: ${url.host}`,
    `accept: ${accept}`,
    `authorization: Bearer ${apiKey}`,
  ];
  if (body !== "") lines.push("content-type: application/json", `content-length: ${Buffer.byteLength(body)}`);
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

/** Opens a session: `initialize`. */
export function initialize(url: URL, door: Door): string {
  const params = {
    protocolVersion: revisionOf(door),
    capabilities: {},
    clientInfo: { name: "bench", version: "1" },
  };
  return httpRequest(
    url,
    "POST",
    {},
    JSON.stringify({ jsonrpc: "2.0", id: 1, method: "initialize", params }),
  );
}

/** The session in the head of the answer to `initialize`. */
export function sessionIn(head: string): string {
  const session = /\r\nmcp-session-id: (\S+)/i.exec(head)?.[1];
  if (session === undefined) throw new Error(`initialize gave no session: ${head}`);
  return session;
}

const inSession = (door: Door, session: string): Record<string, string> => ({
  "mcp-protocol-version": revisionOf(door),
  "mcp-session-id": session,
});

/** Says that the session is in use. */
export const initialized = (url: URL, door: Door, session: string): string =>
  httpRequest(
    url,
    "POST",
    inSession(door, session),
    JSON.stringify({ jsonrpc: "2.0", method: "notifications/initialized" }),
  );

/** Opens the stream of the session's notifications. */
export const listenIn = (url: URL, door: Door, session: string): string =>
  httpRequest(url, "GET", inSession(door, session), "");

/** Ends the session. */
export const endSession = (url: URL, door: Door, session: string): string =>
  httpRequest(url, "DELETE", inSession(door, session), "");

/** What a request of this door looks like: its headers, and its body as an object. */
export function message(
  door: Door,
  session: string | undefined,
  id: number,
  method: string,
  params: Readonly<Record<string, unknown>>,
): { headers: Record<string, string>; body: object } {
  const modern = door === "2026-07-28";
  const headers: Record<string, string> =
    session === undefined ? { "mcp-protocol-version": revisionOf(door) } : inSession(door, session);
  if (modern) headers["mcp-method"] = method;
  if (modern && typeof params["name"] === "string") headers["mcp-name"] = params["name"];
  const body = { jsonrpc: "2.0", id, method, params: { ...params, ...(modern && { _meta: modernMeta }) } };
  return { headers, body };
}

/** From an id to the request that has it. */
export function requests(
  url: URL,
  door: Door,
  question: Question,
  session: string | undefined,
): (id: number) => string {
  // The sample is cut where its id stands; nothing is built or measured for each request. (1)
  const sample = 1_234_567_890;
  const { headers, body } =
    question === "list"
      ? message(door, session, sample, "tools/list", {})
      : message(door, session, sample, "tools/call", {
          name: question.tool,
          arguments: { text: textOf(sample) },
        });
  const parts = httpRequest(url, "POST", headers, JSON.stringify(body)).split(String(sample));
  return (id) => parts.join(String(id));
}
