/**
 * The body of a service's good answer as a call's result, by its content type. Owns: which types are JSON, text or media
 * blocks to a client. Does not own: statuses, failures (`answer.ts`), the type itself (`media-type.ts`).
 *
 * 1. A body is used whole or not at all; the limit of its size is on its bytes, not on their base64.
 */
import { isObject, type JsonValue } from "../core/json.ts";
import { textResult, type ContentBlock, type ToolResult } from "../tools/call.ts";
import type { Tool } from "../tools/tool.ts";
import type { HttpAnswer } from "./exchange.ts";
import { mediaTypeOf, type MediaType } from "./media-type.ts";
import { messageIn } from "./message.ts";
import type { Plan } from "./request.ts";
import { emptyResult, jsonPart, jsonResult, toResult } from "./result.ts";
import { resolvePointer } from "./template.ts";

/** The result, or why the answer cannot be used. */
export function readBody(answer: HttpAnswer, tool: Tool, plan: Plan): ToolResult | string {
  const { body, headers, status } = answer;
  if (body.length === 0 || status === 204) return emptyResult();
  const encoding = encodingOf(headers);
  // None was asked for; decoding would have to be bounded, as a few bytes can stand for gigabytes.
  if (encoding !== undefined) return `it is encoded (${encoding.slice(0, 40)})`;
  const type = mediaTypeOf(headers["content-type"]);
  switch (type.kind) {
    case "json": {
      const text = decode(body, type.charset);
      if (text === undefined) return `it is not ${charsetText(type.charset)}`;
      return readJson(text, tool, plan) ?? "it is not valid JSON";
    }
    case "absent":
      return readUntyped(body, tool, plan);
    case "invalid":
      return "its content type is none that is valid";
    case "multipart":
      return `its type is ${type.mimeType}: several parts, of which none is the answer`;
    case "text":
      return notJson(type.mimeType, plan) ?? readText(body, type.charset, tool);
    case "image":
    case "audio":
    case "blob":
      return readMedia(type, body, tool, plan);
  }
}

/** Undefined where the body is as it is. */
export function encodingOf({ "content-encoding": header }: HttpAnswer["headers"]): string | undefined {
  if (header === undefined) return undefined;
  const encoding = (typeof header === "string" ? header : header.join(",")).trim().toLowerCase();
  return encoding === "" || encoding === "identity" ? undefined : encoding;
}

/** Undefined where the text is not JSON. */
function readJson(text: string, tool: Tool, plan: Plan): ToolResult | undefined {
  let value: JsonValue;
  try {
    value = JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
  if (plan.kind === "onex" && isObject(value) && value.success === false)
    return textResult(messageIn(value) ?? "The service reported a failure without a message.", true);
  const isStructured = tool.outputSchema !== undefined;
  if (plan.pointer.length === 0) return jsonResult(value, text, isStructured);
  const found = resolvePointer(value, plan.pointer);
  return found === undefined
    ? textResult(`The answer of the service has nothing at ${pointerText(plan)}.`, true)
    : jsonPart(found as JsonValue, text, isStructured);
}

function readText(body: Buffer, charset: string, tool: Tool): ToolResult | string {
  try {
    return toResult(new TextDecoder(charset).decode(body), { structured: tool.outputSchema !== undefined });
  } catch {
    return "it is text in an unknown character set";
  }
}

/** Small services often do not say what they send. */
function readUntyped(body: Buffer, tool: Tool, plan: Plan): ToolResult | string {
  const text = decode(body, "utf-8");
  if (text === undefined) return readMedia(bytes, body, tool, plan);
  const result = readJson(text, tool, plan);
  if (result !== undefined) return result;
  return plan.pointer.length > 0 ? "it is not valid JSON" : readText(body, "utf-8", tool);
}

type Media = Extract<MediaType, { readonly kind: "image" | "audio" | "blob" }>;

/** What RFC 9110 lets a recipient take bytes for that have no type. */
const bytes: Media = { kind: "blob", mimeType: "application/octet-stream" };

/** As the block that MCP has for it. (1) */
function readMedia({ kind, mimeType }: Media, body: Buffer, tool: Tool, plan: Plan): ToolResult | string {
  if (tool.outputSchema !== undefined)
    return `its type is ${mimeType}, and the tool's output schema describes JSON`;
  const wrong = notJson(mimeType, plan);
  if (wrong !== undefined) return wrong;
  const data = body.toString("base64");
  const block: ContentBlock =
    kind === "blob"
      ? { type: "resource", resource: { uri: resultUri(tool), mimeType, blob: data } }
      : { type: kind, data, mimeType };
  return { content: [block], isError: false };
}

/** A resource needs a URI: one that tells nothing of the service. */
const resultUri = ({ name }: Tool): string => `onex-runtime:///tools/${encodeURIComponent(name)}/result`;

/** Why an answer of this type cannot hold what the tool's `result` points at, where it has one. */
const notJson = (mimeType: string, plan: Plan): string | undefined =>
  plan.pointer.length === 0
    ? undefined
    : `its type is ${mimeType}, and the result is to be at ${pointerText(plan)} of JSON`;

const pointerText = ({ pointer }: Plan): string => `/${pointer.join("/")}`;

const charsetText = (charset: string): string =>
  charset === "utf-8" ? "UTF-8 text" : "text in its character set";

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Undefined where the bytes are not of the character set, or it is unknown. A byte order mark is left out. */
function decode(body: Buffer, charset: string): string | undefined {
  try {
    return (charset === "utf-8" ? utf8 : new TextDecoder(charset, { fatal: true })).decode(body);
  } catch {
    return undefined;
  }
}
