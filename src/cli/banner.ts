/** What `onex serve` prints on a terminal: where it can be reached and what it serves. Pure. */
import { columns, firstSentence } from "./columns.ts";

export interface ServedFacts {
  /** URL of the MCP endpoint. */
  readonly mcp: string | undefined;
  readonly tools: readonly { readonly name: string; readonly description: string }[];
  readonly handlers: readonly string[];
  /** Reasons by type. */
  readonly failed: Readonly<Record<string, string>>;
  readonly skipped: Readonly<Record<string, string>>;
  /** URL of the operator endpoints. */
  readonly operators: string | undefined;
}

/** More tools than this are counted, not listed. */
const maxListed = 20;

export function banner({ mcp, tools, handlers, failed, skipped, operators }: ServedFacts): string {
  const absent = [
    ...Object.entries(failed).map(([type, reason]) => `${type} failed: ${reason}`),
    ...Object.entries(skipped).map(([type, reason]) => `${type} skipped: ${reason}`),
  ];
  const listed = tools
    .slice(0, maxListed)
    .map(({ name, description }) => [`  ${name}`, firstSentence(description)] as const);
  const rest = tools.length - listed.length;
  return [
    "\nonex-runtime is ready.\n\n",
    columns([
      ["MCP", mcp ?? "no server"],
      ...(operators === undefined
        ? []
        : [["Operators", `${operators}/health  ${operators}/ready  POST ${operators}/envelopes`] as const]),
      ["Handlers", handlers.join(", ")],
      ...absent.map((line) => ["", line] as const),
    ]),
    `\n${tools.length === 1 ? "1 tool" : `${tools.length} tools`}\n`,
    columns(listed),
    ...(rest > 0 ? [`  and ${rest} more: onex tools\n`] : []),
    ...(mcp === undefined ? [] : ["\nConnect a client\n", ...clients(mcp)]),
    "\nStop with Ctrl-C.\n\n",
  ].join("");
}

function clients(url: string): string[] {
  const config = JSON.stringify({ mcpServers: { onex: { type: "http", url } } });
  return [`  claude mcp add --transport http onex ${url}\n`, `  ${config}\n`];
}
