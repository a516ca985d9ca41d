/**
 * What a tool returned, as a `ToolResult`. Owns the checks of content blocks and the size limit. A value that cannot be
 * a result is the tool's own fault: an `isError` result that says why, never a shortened answer.
 */
import { messageOf } from "../core/errors.ts";
import { isObject, toJsonValue, type JsonValue } from "../core/json.ts";
import { isToolContent, textResult, type ContentBlock, type ToolResult } from "../tools/call.ts";

/** Bytes of JSON in a result, and of a service's answer as it came: base64 makes it larger by a third. */
export const maxResultBytes = 10 * 1024 * 1024;

export interface ResultOptions {
  /** The tool has an output schema: text and null are structured content too. Default false. */
  readonly structured?: boolean;
}

/** Never throws. */
export function toResult(value: unknown, options: ResultOptions = {}): ToolResult {
  try {
    return isToolContent(value)
      ? contentResult(value.blocks, value.structuredContent, value.isError === true)
      : valueResult(value, options);
  } catch (error) {
    return fault(messageOf(error));
  }
}

/**
 * The same for JSON that came as text.
 *
 * @param text that `value` was parsed from, within the limit
 * @param structured the tool has an output schema
 */
export function jsonResult(value: JsonValue, text: string, structured: boolean): ToolResult {
  if (typeof value === "string")
    return structured
      ? { ...textResult(value), structuredContent: value, structuredText: text }
      : textResult(value);
  if (value === null && !structured) return emptyResult();
  if (isTooDeep(text)) return tooDeep();
  return {
    content: [{ type: "text", text }],
    structuredContent: value,
    structuredText: text,
    isError: false,
  };
}

/**
 * The part of such a value that is the result.
 *
 * @param whole text of the JSON value that `part` was found in, within the limit
 */
export function jsonPart(part: JsonValue, whole: string, structured: boolean): ToolResult {
  if (isTooDeep(whole)) return tooDeep();
  const text = JSON.stringify(part);
  return isTooLarge(text) ? tooLarge(Buffer.byteLength(text)) : jsonResult(part, text, structured);
}

export const emptyResult = (): ToolResult => ({ content: [], isError: false });

const fault = (reason: string): ToolResult =>
  textResult(`The tool returned something that cannot be a result: ${reason}.`, true);

const tooDeep = (): ToolResult => fault(`it is nested more than ${maxDepth} levels deep`);

function valueResult(value: unknown, { structured = false }: ResultOptions): ToolResult {
  if (value === undefined || (value === null && !structured)) return emptyResult();
  if (typeof value === "string") {
    if (isTooLarge(value)) return tooLarge(Buffer.byteLength(value));
    const result = textResult(value);
    return structured ? { ...result, structuredContent: value } : result;
  }
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer || value instanceof SharedArrayBuffer)
    return fault("bytes have no JSON form; return them as base64 text, or as an image with content([...])");
  const structuredContent = toJsonValue(value);
  const text = JSON.stringify(structuredContent);
  if (isTooLarge(text)) return tooLarge(Buffer.byteLength(text));
  return { content: [{ type: "text", text }], structuredContent, isError: false };
}

/** As `toJsonValue` allows; what JSON.parse accepts beyond it JSON.stringify may not survive. */
const maxDepth = 1000;

/** Counts brackets outside of strings, where there are so many at all: every level takes two characters. */
function isTooDeep(json: string): boolean {
  if (json.length <= 2 * maxDepth || !hasMany("[", "{", json)) return false;
  let depth = 0;
  for (let index = 0; index < json.length; index++) {
    switch (json[index]) {
      case '"':
        for (index++; index < json.length && json[index] !== '"'; index++) if (json[index] === "\\") index++;
        break;
      case "[":
      case "{":
        if (++depth > maxDepth) return true;
        break;
      case "]":
      case "}":
        depth--;
    }
  }
  return false;
}

/** Whether the two stand in `text` more than `maxDepth` times. To search is a tenth of the cost of reading along. */
function hasMany(a: string, b: string, text: string): boolean {
  let left = maxDepth;
  for (const mark of [a, b])
    for (let at = text.indexOf(mark); at !== -1; at = text.indexOf(mark, at + 1)) if (--left < 0) return true;
  return false;
}

/** The length in UTF-16 units bounds the bytes from both sides; counting them is rarely needed. */
function isTooLarge(text: string): boolean {
  if (text.length > maxResultBytes) return true;
  return text.length * 3 > maxResultBytes && Buffer.byteLength(text) > maxResultBytes;
}

/** @param bytes as JSON */
function tooLarge(bytes: number): ToolResult {
  return textResult(`The result has ${bytes} bytes; the limit is ${maxResultBytes} bytes (10 MiB).`, true);
}

function contentResult(blocks: unknown, structured: unknown, isError: boolean): ToolResult {
  if (!Array.isArray(blocks)) return fault("content(...) takes an array of blocks");
  const content: ContentBlock[] = [];
  for (const [index, block] of (blocks as readonly unknown[]).entries()) {
    const checked = checkBlock(toJsonValue(block));
    if (typeof checked === "string") return fault(`content block ${index} ${checked}`);
    content.push(checked);
  }
  const structuredContent = structured === undefined ? undefined : toJsonValue(structured);
  const text = JSON.stringify([content, structuredContent]);
  if (isTooLarge(text)) return tooLarge(Buffer.byteLength(text));
  return { content, isError, ...(structuredContent === undefined ? {} : { structuredContent }) };
}

const base64 = /^[A-Za-z0-9+/]*={0,2}$/;

/** The block as clients accept it, or what is wrong with it. */
function checkBlock(block: JsonValue): ContentBlock | string {
  if (!isObject(block)) return "is not an object";
  const { type } = block;
  if (typeof type !== "string") return 'has no "type"';
  const wrong = wrongMember(type, block) ?? wrongAnnotations(block.annotations);
  if (wrong === "unknown type") return { type: "text", text: JSON.stringify(block) };
  return wrong === undefined ? { ...block, type } : `(${type}) ${wrong}`;
}

function wrongMember(type: string, block: Record<string, unknown>): string | undefined {
  switch (type) {
    case "text":
      return typeof block.text === "string" ? undefined : 'needs "text", a string';
    case "image":
    case "audio":
      if (typeof block.data !== "string" || block.data.length % 4 !== 0 || !base64.test(block.data))
        return 'needs "data", base64 text';
      return typeof block.mimeType === "string" ? undefined : 'needs "mimeType", a string';
    case "resource_link":
      if (typeof block.uri !== "string") return 'needs "uri", a string';
      return typeof block.name === "string" ? undefined : 'needs "name", a string';
    case "resource": {
      const { resource } = block;
      if (!isObject(resource) || typeof resource.uri !== "string")
        return 'needs "resource", an object with a "uri"';
      if (typeof resource.text === "string") return undefined;
      return typeof resource.blob === "string" && base64.test(resource.blob)
        ? undefined
        : 'needs a "resource" with "text", or "blob" in base64';
    }
    default:
      return "unknown type";
  }
}

/** One bad annotation makes clients refuse the whole answer. */
function wrongAnnotations(annotations: unknown): string | undefined {
  if (annotations === undefined) return undefined;
  if (!isObject(annotations)) return 'has "annotations" that are not an object';
  const { audience, priority, lastModified } = annotations;
  const isRole = (role: unknown): boolean => role === "user" || role === "assistant";
  if (audience !== undefined && !(Array.isArray(audience) && audience.every(isRole)))
    return 'has annotations whose "audience" is not a list of "user" and "assistant"';
  if (priority !== undefined && !(typeof priority === "number" && priority >= 0 && priority <= 1))
    return 'has annotations whose "priority" is not a number from 0 to 1';
  if (lastModified !== undefined && typeof lastModified !== "string")
    return 'has annotations whose "lastModified" is not a string';
  return undefined;
}
