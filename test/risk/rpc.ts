import { postRpc } from "../support/rpc.ts";

/** JSON-RPC over plain fetch. */
export interface RpcAnswer {
  readonly status: number;
  readonly body: any;
}

export async function rpc(
  url: URL,
  method: string,
  params: object = {},
  headers: Record<string, string> = {},
): Promise<RpcAnswer> {
  const response = await postRpc(url, method, params, headers);
  const text = await response.text();
  return { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
}

export const callTool = (url: URL, name: string, args: object = {}): Promise<RpcAnswer> =>
  rpc(url, "tools/call", { name, arguments: args });
