/** MCP clients nobody here wrote, behind one small interface, over HTTP and stdio. */
import { Client as Client2, StreamableHTTPClientTransport as Http2 } from "@modelcontextprotocol/client";
import { StdioClientTransport as Stdio2 } from "@modelcontextprotocol/client/stdio";
import { Client as Client1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport as Stdio1 } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport as Http1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";

export interface CallOptions {
  readonly onprogress?: (progress: { progress: number; total?: number | undefined }) => void;
  readonly signal?: AbortSignal;
}

export interface InteropClient {
  /** Tools of each page, in order. */
  pages(): Promise<string[][]>;
  call(name: string, args: Record<string, unknown>, options?: CallOptions): Promise<Record<string, unknown>>;
  /** Calls `listener` for every list_changed from now on. */
  onToolsChanged(listener: () => void): Promise<void>;
  close(): Promise<void>;
}

/** How to reach a runtime: its URL, or the command that serves it over stdio. */
export type Target =
  | { readonly kind: "http"; readonly url: URL }
  | {
      readonly kind: "stdio";
      readonly command: string;
      readonly args: string[];
      readonly env: Record<string, string>;
    };

const info = { name: "interop", version: "1.0.0" };
const stdio = ({ command, args, env }: Extract<Target, { kind: "stdio" }>) => ({
  command,
  args,
  env,
  stderr: "ignore" as const,
});

async function pagesOf(
  list: (
    cursor: string | undefined,
  ) => Promise<{ tools: { name: string }[]; nextCursor?: string | undefined }>,
): Promise<string[][]> {
  const pages: string[][] = [];
  let cursor: string | undefined;
  do {
    const page = await list(cursor);
    pages.push(page.tools.map((tool) => tool.name));
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return pages;
}

/** The official SDK, 1.x. */
export async function sdk1(target: Target): Promise<InteropClient> {
  const client = new Client1(info);
  await client.connect(target.kind === "http" ? new Http1(target.url) : new Stdio1(stdio(target)));
  return {
    pages: () => pagesOf((cursor) => client.listTools(cursor === undefined ? {} : { cursor })),
    call: (name, args, options) => client.callTool({ name, arguments: args }, undefined, options),
    onToolsChanged: async (listener) =>
      client.setNotificationHandler(ToolListChangedNotificationSchema, () => listener()),
    close: () => client.close(),
  };
}

/** The official SDK, 2.x, in one era or the other. */
export const sdk2 =
  (mode: "legacy" | "modern") =>
  async (target: Target): Promise<InteropClient> => {
    const negotiation =
      mode === "legacy" ? ({ mode: "legacy" } as const) : ({ mode: { pin: "2026-07-28" } } as const);
    const client = new Client2(info, { versionNegotiation: negotiation });
    await client.connect(target.kind === "http" ? new Http2(target.url) : new Stdio2(stdio(target)));
    return {
      pages: () =>
        pagesOf((cursor) =>
          client.request({ method: "tools/list", params: cursor === undefined ? {} : { cursor } }),
        ),
      call: (name, args, options) => client.callTool({ name, arguments: args }, options),
      onToolsChanged: async (listener) => {
        client.setNotificationHandler("notifications/tools/list_changed", () => listener());
        if (mode === "modern") await client.listen({ toolsListChanged: true });
      },
      close: () => client.close(),
    };
  };
