/** Requests to a running runtime over HTTP, and what it means where there is no answer. */
import { environment, processEnv } from "../config/load.ts";
import { InfraConnectionError, messageOf } from "../core/errors.ts";
import { UsageError } from "./usage.ts";

export interface RuntimeAnswer {
  readonly status: number;
  readonly text: string;
  /** The text as JSON; undefined where it is none. */
  readonly body: unknown;
}

export interface RuntimeRequest {
  /** Where the runtime answers, `http://127.0.0.1:8090`. */
  readonly url: string;
  readonly path: string;
  /** Default: `ONEX_API_KEY`. */
  readonly apiKey?: string;
  /** Absent: GET. */
  readonly post?: object;
}

/** @throws UsageError where it is not one */
export function requireUrl(url: string): string {
  if (/^https?:\/\//.test(url) && URL.canParse(url)) return url;
  throw new UsageError(`--url ${JSON.stringify(url)} is not a URL such as http://127.0.0.1:8085`);
}

/** @throws InfraConnectionError where nobody answers */
export async function ask({ url, path, post, ...options }: RuntimeRequest): Promise<RuntimeAnswer> {
  const target = new URL(path, requireUrl(url));
  const key = options.apiKey ?? (await environment(process.cwd(), processEnv())).ONEX_API_KEY;
  const headers = {
    ...(post !== undefined && { "content-type": "application/json" }),
    ...(key !== undefined && key !== "" && { "x-api-key": key }),
  };
  try {
    const response = await fetch(
      target,
      post === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(post) },
    );
    const text = await response.text();
    return { status: response.status, text, body: parse(text) };
  } catch (error) {
    const reason =
      error instanceof Error && error.cause !== undefined ? messageOf(error.cause) : messageOf(error);
    throw new InfraConnectionError(
      `No host answers at ${target.origin} (${reason}). Does \`onex serve\` run there?`,
      { cause: error, facts: { transport: "http", target: target.origin } },
    );
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
