/** A JSON-RPC request to an MCP endpoint over plain fetch, of an older revision unless the headers say otherwise. */
export const postRpc = (
  endpoint: string | URL,
  method: string,
  params: object = {},
  headers: Record<string, string> = {},
): Promise<Response> =>
  fetch(endpoint, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      ...headers,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
  });
