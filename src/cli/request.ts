/** Requests to a running runtime over HTTP, and what it means where there is no answer. */
import { environment, processEnv } from "../config/load.ts";
import { InfraConnectionError, messageOf, RuntimeHostError } from "../core/errors.ts";
import { isObject, type JsonObject } from "../core/json.ts";
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
  /** Seconds for the whole answer. Absent: as long as it takes. */
  readonly timeoutSeconds?: number;
}

/** Seconds in which a server says what it serves. */
const readSeconds = 5;

/**
 * A JSON object that a server's GET route answers.
 *
 * @throws InfraConnectionError where nobody answers in time, RuntimeHostError where the answer is another one
 */
export async function read(request: Pick<RuntimeRequest, "url" | "path" | "apiKey">): Promise<JsonObject> {
  const { status, text, body } = await ask({ ...request, timeoutSeconds: readSeconds });
  if (status === 200 && isObject(body)) return body as JsonObject;
  const { url, path } = request;
  const remedy = status === 401 || status === 403 ? ": give a key with --api-key or ONEX_API_KEY" : "";
  throw new RuntimeHostError(`${url} answered ${status} for ${path}: ${detailOf({ text, body })}${remedy}`);
}

/** What an answer that is none says. */
export function detailOf({ text, body }: Pick<RuntimeAnswer, "text" | "body">): string {
  const detail = isObject(body) ? (body.detail ?? body.title) : text.slice(0, 200);
  return typeof detail === "string" && detail !== "" ? detail : "it is no onex-runtime";
}

/** @throws UsageError where it is not one */
export function requireUrl(url: string): string {
  if (/^https?:\/\//.test(url) && URL.canParse(url)) return url;
  throw new UsageError(`--url ${JSON.stringify(url)} is not a URL such as http://127.0.0.1:8090`);
}

/** @throws InfraConnectionError where nobody answers */
export async function ask(request: RuntimeRequest): Promise<RuntimeAnswer> {
  const { url, path, post, timeoutSeconds: seconds, ...options } = request;
  const target = new URL(path, requireUrl(url));
  const key = options.apiKey ?? (await environment(process.cwd(), processEnv())).ONEX_API_KEY;
  const headers = {
    ...(post !== undefined && { "content-type": "application/json" }),
    ...(key !== undefined && key !== "" && { "x-api-key": key }),
  };
  const signal = seconds === undefined ? null : AbortSignal.timeout(seconds * 1000);
  try {
    const response = await fetch(
      target,
      post === undefined
        ? { headers, signal }
        : { method: "POST", headers, body: JSON.stringify(post), signal },
    );
    const text = await response.text();
    return { status: response.status, text, body: parse(text) };
  } catch (error) {
    const reason =
      signal?.aborted === true
        ? `nothing within ${String(seconds)} s`
        : error instanceof Error && error.cause !== undefined
          ? messageOf(error.cause)
          : messageOf(error);
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
