/** Requests to the MCP endpoint as clients send them, and with something wrong about them: for both doors. */
import fc from "fast-check";

export interface HttpCase {
  readonly method: "POST" | "GET" | "DELETE" | "PUT";
  readonly path: string;
  /** Names and values in turn, as they go out. `SESSION` stands for the id of an open session. */
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Buffer;
}

type Json = Record<string, unknown>;
type Era = "2024-11-05" | "2025-03-26" | "2025-06-18" | "2025-11-25" | "2026-07-28" | "none";

const eras: readonly Era[] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28", "none"];
const tools = [
  "echo_rest",
  "echo_onex",
  "with_schema",
  "array",
  "number",
  "nothing",
  "text",
  "refused",
  "failing",
  "in_code",
  "reports",
  "marked",
  "absent",
];
const version = "io.modelcontextprotocol/protocolVersion";
const client = "io.modelcontextprotocol/clientInfo";
const capabilities = "io.modelcontextprotocol/clientCapabilities";

const ids = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: 1_000_000 }) },
  { weight: 3, arbitrary: fc.string({ maxLength: 20, unit: "binary" }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<unknown>(null, 1.5, -1, 2 ** 60, true, [], {}, "", Number.MAX_SAFE_INTEGER),
  },
);

const argumentObjects = fc.oneof(
  { weight: 5, arbitrary: fc.record({ text: fc.string({ maxLength: 50, unit: "binary" }) }) },
  { weight: 1, arbitrary: fc.record({ text: fc.jsonValue({ maxDepth: 3 }) }) },
  { weight: 1, arbitrary: fc.dictionary(fc.string({ maxLength: 8 }), fc.jsonValue({ maxDepth: 4 })) },
);

const wellFormed = fc
  .record({
    era: fc.constantFrom(...eras),
    session: fc.boolean(),
    id: ids,
    method: fc.oneof(
      { weight: 6, arbitrary: fc.constant("tools/call") },
      { weight: 2, arbitrary: fc.constant("tools/list") },
      {
        weight: 1,
        arbitrary: fc.constantFrom("ping", "initialize", "server/discover", "nope", "logging/setLevel"),
      },
    ),
    tool: fc.constantFrom(...tools),
    args: argumentObjects,
    clientInfo: fc.constantFrom<unknown>(
      undefined,
      { name: "c", version: "1" },
      { name: "c", version: "1", title: "C" },
    ),
    capabilities: fc.constantFrom<unknown>({}, { sampling: {} }, { elicitation: { form: {} } }, { roots: 1 }),
    cursor: fc.constantFrom<unknown>(undefined, undefined, "FIRST", "eyJhZnRlciI6ImVjaG8ifQ", "bad", 5),
  })
  .map((wish) => {
    const { era, method, id } = wish;
    const isModern = era === "2026-07-28";
    const params: Json = {};
    if (method === "tools/call") Object.assign(params, { name: wish.tool, arguments: wish.args });
    if (method === "tools/list" && wish.cursor !== undefined) params["cursor"] = wish.cursor;
    if (method === "initialize")
      Object.assign(params, {
        protocolVersion: era,
        capabilities: {},
        clientInfo: { name: "c", version: "1" },
      });
    if (isModern) {
      const meta: Json = { [version]: era, [capabilities]: wish.capabilities };
      if (wish.clientInfo !== undefined) meta[client] = wish.clientInfo;
      params["_meta"] = meta;
    }
    const headers: [string, string][] = [
      ["content-type", "application/json"],
      ["accept", "application/json, text/event-stream"],
    ];
    if (era !== "none") headers.push(["mcp-protocol-version", era]);
    if (isModern) headers.push(["mcp-method", method]);
    if (isModern && method === "tools/call") headers.push(["mcp-name", wish.tool]);
    if (!isModern && wish.session && method !== "initialize") headers.push(["mcp-session-id", "SESSION"]);
    return { headers, message: { jsonrpc: "2.0", id, method, params } };
  });

interface Draft {
  method: HttpCase["method"];
  path: string;
  headers: [string, string][];
  message: Json;
  /** Takes the message's place where it is there. */
  text?: Buffer;
}

const spoilers: readonly ((draft: Draft, dice: number) => void)[] = [
  (draft, dice) => void draft.headers.splice(dice % draft.headers.length, 1),
  (draft, dice) => {
    const accept = ["application/json", "text/event-stream", "*/*", "text/html", "application/*, text/*"];
    set(draft, "accept", accept[dice % accept.length] ?? "");
  },
  (draft, dice) => {
    const types = [
      "text/plain",
      "application/json; charset=utf-8",
      "Application/JSON",
      "application/json;x=1",
      "",
    ];
    set(draft, "content-type", types[dice % types.length] ?? "");
  },
  (draft, dice) => set(draft, "mcp-protocol-version", eras[dice % eras.length] ?? ""),
  (draft, dice) => set(draft, "mcp-method", ["tools/call", "tools/list", "x", ""][dice % 4] ?? ""),
  (draft, dice) =>
    set(draft, "mcp-name", [tools[dice % tools.length] ?? "", "=?base64?ZWNob19yZXN0?=", ""][dice % 3] ?? ""),
  (draft, dice) => set(draft, "mcp-session-id", ["SESSION", "unknown", "a.b", ""][dice % 4] ?? ""),
  (draft) => set(draft, "origin", "http://evil.example"),
  (draft) => set(draft, "origin", "http://127.0.0.1"),
  (draft, dice) => set(draft, "host", ["evil.example", "localhost", "127.0.0.1:1", ""][dice % 4] ?? ""),
  (draft) => set(draft, "x-api-key", "wrong"),
  (draft, dice) => {
    const twice = [
      ["host", "evil.example"],
      ["content-type", "text/plain"],
      ["accept", "text/html"],
    ] as const;
    const [name, value] = twice[dice % twice.length] ?? ["host", ""];
    if (name === "host") draft.headers.push(["host", "127.0.0.1"]);
    draft.headers.push([name, value]);
  },
  (draft, dice) => {
    draft.method = (["GET", "PUT", "DELETE"] as const)[dice % 3] ?? "GET";
  },
  (draft, dice) => void (draft.path = ["/mcp?x=1", "/mcp/", "/nothing", "/MCP"][dice % 4] ?? ""),
  (draft, dice) => {
    const gone = Object.keys(draft.message)[dice % 4];
    draft.message = Object.fromEntries(Object.entries(draft.message).filter(([key]) => key !== gone));
  },
  (draft, dice) => {
    const values = [null, 1, "x", [], {}, true, "2.0"];
    draft.message[Object.keys(draft.message)[dice % 4] ?? ""] = values[dice % values.length];
  },
  (draft) => void (draft.message["further"] = 1),
  (draft, dice) => {
    const { params } = draft.message;
    if (typeof params !== "object" || params === null) return;
    const more: readonly Json[] = [
      { _meta: { progressToken: 7 } },
      { _meta: { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" } },
      { _meta: { [version]: "2025-11-25" } },
      { _meta: null },
      { task: { ttl: 1 } },
      { arguments: null },
      { arguments: [1] },
      { name: 5 },
      { further: "x" },
    ];
    Object.assign(params, more[dice % more.length]);
  },
  (draft, dice) => {
    const bytes = Buffer.from(JSON.stringify(draft.message));
    draft.text = bytes.subarray(0, dice % bytes.length);
  },
  (draft) => void (draft.text = Buffer.from(`\ufeff${JSON.stringify(draft.message)}`)),
  (draft) => void (draft.text = Buffer.from(` \n${JSON.stringify(draft.message, undefined, 2)}\n`)),
  (draft) => void (draft.text = Buffer.from(JSON.stringify([draft.message]))),
  (draft) => {
    const bytes = Buffer.from(JSON.stringify(draft.message));
    bytes[bytes.length - 3] = 0xff;
    draft.text = bytes;
  },
  (draft) => {
    const text = JSON.stringify(draft.message);
    draft.text = Buffer.from(`${text.slice(0, -1)},"id":1,"id":2,"method":"ping"}`);
  },
  (draft) => {
    const text = JSON.stringify(draft.message);
    draft.text = Buffer.from(text.replace('"arguments":{', '"arguments":{"__proto__":{"x":1},'));
  },
  (draft) => {
    const text = JSON.stringify(draft.message);
    draft.text = Buffer.from(text.replace('"arguments":{', '"arguments":{"\\u005f_proto__":{"x":1},'));
  },
  (draft, dice) => {
    const depth = [5, 12, 900, 20_000][dice % 4] ?? 5;
    const text = JSON.stringify(draft.message);
    draft.text = Buffer.from(
      text.replace('"arguments":{', `"arguments":{"deep":${"[".repeat(depth)}${"]".repeat(depth)},`),
    );
  },
];

function set(draft: Draft, name: string, value: string): void {
  draft.headers = draft.headers.filter(([other]) => other !== name);
  if (value !== "") draft.headers.push([name, value]);
}

/** Valid, odd and invalid requests; most of them have at most one thing wrong. */
export const httpCases: fc.Arbitrary<HttpCase> = fc
  .record({
    draft: wellFormed,
    spoils: fc.oneof(
      { weight: 4, arbitrary: fc.constant([]) },
      {
        weight: 6,
        arbitrary: fc.array(fc.tuple(fc.nat({ max: spoilers.length - 1 }), fc.nat({ max: 100 })), {
          minLength: 1,
          maxLength: 2,
        }),
      },
    ),
  })
  .map(({ draft: { headers: wished, message }, spoils }) => {
    const draft: Draft = {
      method: "POST",
      path: "/mcp",
      headers: [...wished],
      message: structuredClone(message),
    };
    for (const [which, dice] of spoils) spoilers[which]?.(draft, dice);
    const body =
      draft.method === "POST" ? (draft.text ?? Buffer.from(JSON.stringify(draft.message))) : Buffer.alloc(0);
    // The session that all share is not to be ended, nor a stream to be waited for.
    const headers =
      draft.method === "POST" ? draft.headers : draft.headers.filter(([name]) => name !== "mcp-session-id");
    return { method: draft.method, path: draft.path, headers, body };
  });
