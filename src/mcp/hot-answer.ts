/**
 * Plain answers as bytes. Owns: the JSON of a call's result, and the pages of the list, kept ready for each snapshot.
 * Does not own: what a result or a page holds. What is written here parses to what the SDK would write.
 */
import { isObject, type JsonValue } from "../core/json.ts";
import type { ToolResult } from "../tools/call.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { JsonSchema } from "../tools/tool.ts";
import { pageOf, type ToolPage } from "./definition.ts";
import type { Era } from "./hot-request.ts";
import type { RpcId } from "./message.ts";

export interface AnswerOptions {
  readonly info: { readonly name: string; readonly title?: string; readonly version: string };
  readonly cacheScope: "public" | "private";
  /** Milliseconds that a client may keep a list. */
  readonly listTtlMs: number;
  readonly pageSize: number;
}

/** What may hold a number that is written otherwise than it was read: 1e400, -0. In a text it does no harm. */
const oddNumber = /-0|\d[eE]/;
const serverKey = "io.modelcontextprotocol/serverInfo";

export const idText = (id: RpcId): string => (typeof id === "number" ? String(id) : JSON.stringify(id));

/** A response with a result that is JSON text already. */
export const responseText = (result: string, id: RpcId): string =>
  `{"result":${result},"jsonrpc":"2.0","id":${idText(id)}}`;

export const errorText = (code: number, message: string, id: RpcId): string =>
  `{"jsonrpc":"2.0","id":${idText(id)},"error":{"code":${code},"message":${JSON.stringify(message)}}}`;

export class Answers {
  readonly #options: AnswerOptions;
  /** What the modern era adds to every result. */
  readonly #modern: string;
  readonly #serverMeta: JsonValue;
  readonly #pages = new WeakMap<Snapshot, Map<string, Buffer | undefined>>();

  constructor(options: AnswerOptions) {
    this.#options = options;
    this.#serverMeta = { ...options.info };
    this.#modern = `,"resultType":"complete","_meta":${JSON.stringify({ [serverKey]: this.#serverMeta })}`;
  }

  /**
   * The result of `tools/call`.
   *
   * @param outputSchema of the tool as it was when the call came
   */
  callResult(result: ToolResult, outputSchema: JsonSchema | undefined, era: Era): string {
    const { content, structuredContent, structuredText, isError, meta } = result;
    const [only] = content;
    const isText = content.length === 1 && only?.type === "text" && Object.keys(only).length === 2;
    let text = `{"content":${isText ? `[{"type":"text","text":${JSON.stringify(only["text"])}}]` : blocks(result)}`;
    if (structuredContent !== undefined) {
      const json =
        structuredText === undefined || oddNumber.test(structuredText)
          ? JSON.stringify(structuredContent)
          : structuredText;
      // The older revisions know objects only.
      const isWrapped =
        era === "legacy" &&
        (!isObject(structuredContent) || (outputSchema !== undefined && outputSchema["type"] !== "object"));
      text += isWrapped ? `,"structuredContent":{"result":${json}}` : `,"structuredContent":${json}`;
    }
    if (isError) text += ',"isError":true';
    if (meta === undefined) return era === "modern" ? `${text}${this.#modern}}` : `${text}}`;
    if (era === "legacy") return `${text},"_meta":${JSON.stringify(meta)}}`;
    const both = JSON.stringify({ ...meta, [serverKey]: this.#serverMeta });
    return `${text},"resultType":"complete","_meta":${both}}`;
  }

  /**
   * The response to `tools/list` up to its id, which ends it. Undefined for a cursor that is not ours, and for a page
   * that the older revisions show otherwise.
   */
  page(snapshot: Snapshot, cursor: string | undefined, era: Era): Buffer | undefined {
    let pages = this.#pages.get(snapshot);
    if (pages === undefined) {
      pages = new Map();
      this.#pages.set(snapshot, pages);
    }
    const key = `${era} ${cursor ?? ""}`;
    const known = pages.get(key);
    if (known !== undefined || pages.has(key)) return known;
    const page = pageOf(snapshot, cursor, this.#options.pageSize);
    const bytes = page === undefined ? undefined : this.#pageBytes(page, era);
    // Any name makes a cursor: only as many pages are kept as a client that reads the list comes by.
    if (pages.size < 2 * Math.ceil(snapshot.tools.length / this.#options.pageSize)) pages.set(key, bytes);
    return bytes;
  }

  #pageBytes(page: ToolPage, era: Era): Buffer | undefined {
    const { listTtlMs, cacheScope } = this.#options;
    if (era === "legacy" && page.tools.some(({ outputSchema }) => !isObjectSchema(outputSchema)))
      return undefined;
    const result = JSON.stringify(page).slice(0, -1);
    const modern = `,"ttlMs":${listTtlMs},"cacheScope":"${cacheScope}"${this.#modern}`;
    return Buffer.from(`{"result":${result}${era === "modern" ? modern : ""}},"jsonrpc":"2.0","id":`);
  }
}

const isObjectSchema = (schema: unknown): boolean =>
  schema === undefined || (isObject(schema) && schema["type"] === "object");

/** A value that is no object is text too, for clients that read nothing else. */
function blocks({ content, structuredContent }: ToolResult): string {
  const needsText =
    structuredContent !== undefined &&
    !isObject(structuredContent) &&
    !content.some(({ type }) => type === "text");
  return JSON.stringify(
    needsText ? [...content, { type: "text", text: JSON.stringify(structuredContent) }] : content,
  );
}
