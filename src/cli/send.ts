/** `onex send`: one envelope to a running host over HTTP. */
import { environment, processEnv } from "../config/load.ts";
import { InfraConnectionError, messageOf } from "../core/errors.ts";
import { isObject } from "../core/json.ts";
import { jsonObject } from "./arguments.ts";
import { print } from "./stdout.ts";
import { UsageError } from "./usage.ts";

export interface SendOptions {
  readonly operation: string;
  readonly payload: string;
  readonly url?: string;
  readonly apiKey?: string;
}

/** Resolves with the exit code: 0 where the answer says success. */
export async function send({ operation, payload, ...options }: SendOptions): Promise<number> {
  const env = await environment(process.cwd(), processEnv());
  const url = options.url ?? `http://127.0.0.1:${env.ONEX_HTTP_PORT || "8085"}`;
  if (!/^https?:\/\//.test(url) || !URL.canParse(url))
    throw new UsageError(`--url ${JSON.stringify(url)} is not a URL such as http://127.0.0.1:8085`);
  const envelope = { operation, payload: jsonObject(payload, "--payload") };
  const key = options.apiKey ?? env.ONEX_API_KEY;
  const { status, text } = await post(new URL("/envelopes", url), envelope, key);
  const body = parse(text);
  if (!isObject(body) || typeof body.success !== "boolean") {
    const detail = isObject(body) ? (body.detail ?? body.title) : text.slice(0, 200);
    process.stderr.write(`onex: ${url} answered ${status}: ${String(detail)}\n`);
    return 1;
  }
  await print(process.stdout, `${JSON.stringify(body, null, 2)}\n`);
  return body.success ? 0 : 1;
}

async function post(
  url: URL,
  envelope: object,
  key: string | undefined,
): Promise<{ readonly status: number; readonly text: string }> {
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(key !== undefined && key !== "" && { "x-api-key": key }),
      },
      body: JSON.stringify(envelope),
    });
    return { status: response.status, text: await response.text() };
  } catch (error) {
    const reason =
      error instanceof Error && error.cause !== undefined ? messageOf(error.cause) : messageOf(error);
    throw new InfraConnectionError(
      `No host answers at ${url.origin} (${reason}). Does \`onex serve\` run there?`,
      {
        cause: error,
        facts: { transport: "http", target: url.origin },
      },
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
