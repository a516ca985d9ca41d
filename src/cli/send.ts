/** `onex send`: one envelope to a running host over HTTP. */
import { environment, processEnv } from "../config/load.ts";
import { isObject } from "../core/json.ts";
import { jsonObject } from "./arguments.ts";
import { ask, detailOf, requireUrl } from "./request.ts";
import { print } from "./stdout.ts";

export interface SendOptions {
  readonly operation: string;
  readonly payload: string;
  readonly url?: string;
  readonly apiKey?: string;
}

/** Resolves with the exit code: 0 where the answer says success. */
export async function send({ operation, payload, ...options }: SendOptions): Promise<number> {
  const env = await environment(process.cwd(), processEnv());
  const url = requireUrl(options.url ?? `http://127.0.0.1:${env.ONEX_HTTP_PORT || "8085"}`);
  const post = { operation, payload: jsonObject(payload, "--payload") };
  const { status, text, body } = await ask({ ...options, url, path: "/envelopes", post });
  if (!isObject(body) || typeof body.success !== "boolean") {
    process.stderr.write(`onex: ${url} answered ${status}: ${detailOf({ text, body })}\n`);
    return 1;
  }
  await print(process.stdout, `${JSON.stringify(body, null, 2)}\n`);
  return body.success ? 0 : 1;
}
