import { describe, expect, test } from "vitest";
import { RuntimeHostError } from "../../src/core/errors.ts";
import { mediaTypeOf } from "../../src/execution/media-type.ts";
import { maxResultBytes } from "../../src/execution/result.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { answerOf, callOf, executorOf, json, never, rest, service, textOf, type Reply } from "./helpers.ts";

/** Every byte there is: neither UTF-8 nor any other text. */
const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
const base64 = bytes.toString("base64");

const reply =
  (type: string | undefined, body: Buffer | string, status = 200): Reply =>
  (_request, response) =>
    response.writeHead(status, type === undefined ? {} : { "content-type": type }).end(body);

const unusable = (reason: string): string =>
  `The answer of the service behind "sample" cannot be used: ${reason}.`;

describe("an answer by its content type", () => {
  test.each<[string, object]>([
    ["image/png", { type: "image", data: base64, mimeType: "image/png" }],
    ["IMAGE/JPEG; q=1", { type: "image", data: base64, mimeType: "image/jpeg" }],
    ["audio/mpeg", { type: "audio", data: base64, mimeType: "audio/mpeg" }],
  ])("%s is a block of its kind", async (type, block) => {
    expect(await answerOf(reply(type, bytes))).toEqual({ content: [block], isError: false });
  });

  test.each(["application/pdf", "application/octet-stream", "video/mp4", "application/zip", "font/woff2"])(
    "%s is an embedded resource, whose URI tells nothing of the service",
    async (mimeType) => {
      expect(await answerOf(reply(mimeType, bytes))).toEqual({
        content: [
          {
            type: "resource",
            resource: { uri: "onex-runtime:///tools/sample/result", mimeType, blob: base64 },
          },
        ],
        isError: false,
      });
    },
  );

  test.each([
    "text/html",
    "application/xml",
    "application/atom+xml",
    "image/svg+xml; charset=utf-8",
    "application/yaml",
    "application/x-yaml",
    "application/openapi+yaml",
    "application/csv",
    "application/javascript",
    "application/x-ndjson",
    "application/toml",
  ])("%s is text", async (type) => {
    expect(await answerOf(reply(type, "é <a>"))).toEqual({
      content: [{ type: "text", text: "é <a>" }],
      isError: false,
    });
  });

  test("XML is read in the character set that its type names", async () => {
    const result = await answerOf(reply("application/xml; charset=iso-8859-1", Buffer.from([0xe9])));
    expect(textOf(result)).toBe("é");
  });

  test.each(["application/json", "application/json; charset=utf-8", "application/vnd.api+json"])(
    "%s is JSON, and its text goes with it",
    async (type) => {
      expect(await answerOf(reply(type, '{"a": 1}'))).toEqual({
        content: [{ type: "text", text: '{"a": 1}' }],
        structuredContent: { a: 1 },
        structuredText: '{"a": 1}',
        isError: false,
      });
    },
  );

  test("a byte order mark before JSON is left out; another character set is read where it is named", async () => {
    const marked = await answerOf(reply("application/json", "\ufeff[1]"));
    expect(marked).toMatchObject({ structuredContent: [1], structuredText: "[1]" });
    const wide = await answerOf(reply("application/json; charset=utf-16le", Buffer.from('["é"]', "utf16le")));
    expect(wide).toMatchObject({ structuredContent: ["é"], structuredText: '["é"]' });
    const wrong = await answerOf(reply("application/json; charset=klingon", "[1]"));
    expect(textOf(wrong)).toBe(unusable("it is not text in its character set"));
  });

  test("without one, bytes that are no text are a resource of unknown type", async () => {
    const result = await answerOf(reply(undefined, bytes));
    expect(result.content).toMatchObject([
      { type: "resource", resource: { mimeType: "application/octet-stream", blob: base64 } },
    ]);
  });

  test.each([
    [
      "multipart/form-data; boundary=x",
      "its type is multipart/form-data: several parts, of which none is the answer",
    ],
    ["multipart/mixed", "its type is multipart/mixed: several parts, of which none is the answer"],
    ["picture", "its content type is none that is valid"],
    ["image/<b>", "its content type is none that is valid"],
  ])("%s is a failure that says so", async (type, reason) => {
    const result = await answerOf(reply(type, bytes));
    expect(textOf(result)).toBe(unusable(reason));
    expect(result.failure).toBeInstanceOf(RuntimeHostError);
    expect(result.failure).toMatchObject({ retryable: false, countsForBreaker: false });
  });

  test.each(["image/png", "application/pdf", "multipart/mixed", "text/plain", "application/json"])(
    "an empty body is an empty result whatever its type, %s too",
    async (type) => {
      expect(await answerOf(reply(type, ""))).toEqual({ content: [], isError: false });
    },
  );

  test("a HEAD has no body, whatever it announces", async () => {
    const { origin } = await service((_request, response) =>
      response.writeHead(200, { "content-type": "image/png", "content-length": "5" }).end(),
    );
    const result = await executorOf([rest({ method: "HEAD", url: origin })]).call(callOf(), never);
    expect(result).toEqual({ content: [], isError: false });
  });

  test("an image that says no is the tool's error without its bytes", async () => {
    const result = await answerOf(reply("image/png", bytes, 404));
    expect(result).toEqual({
      content: [{ type: "text", text: "The service answered 404 Not Found." }],
      isError: true,
    });
  });

  test("media where JSON is described or looked into is a failure that names the type", async () => {
    const described = await answerOf(reply("image/png", bytes), { outputSchema: { type: "object" } });
    expect(textOf(described)).toBe(
      unusable("its type is image/png, and the tool's output schema describes JSON"),
    );
    const { origin } = await service(reply("application/pdf", bytes));
    const pointing = rest({ method: "GET", url: origin, result: "/data/0" });
    expect(textOf(await executorOf([pointing]).call(callOf(), never))).toBe(
      unusable("its type is application/pdf, and the result is to be at /data/0 of JSON"),
    );
    const { origin: plain } = await service(reply("text/plain", "x"));
    const intoText = rest({ method: "GET", url: plain, result: "/a" });
    expect(textOf(await executorOf([intoText]).call(callOf(), never))).toBe(
      unusable("its type is text/plain, and the result is to be at /a of JSON"),
    );
  });

  test("a part that a JSON pointer finds has its own text", async () => {
    const { origin } = await service((_request, response) => json(response, { data: [{ id: 7 }, "x"] }));
    const at = async (result: string) =>
      executorOf([rest({ method: "GET", url: origin, result })]).call(callOf(), never);
    expect(await at("/data/0")).toEqual({
      content: [{ type: "text", text: '{"id":7}' }],
      structuredContent: { id: 7 },
      structuredText: '{"id":7}',
      isError: false,
    });
    expect(await at("/data/1")).toEqual({ content: [{ type: "text", text: "x" }], isError: false });
  });

  test("of a service that sends what MCP calls a result is JSON like any other", async () => {
    const value = { content: [{ type: "image", data: "!", mimeType: 1 }], isError: true };
    const result = await answerOf((_request, response) => json(response, value));
    expect(result).toMatchObject({ structuredContent: value, isError: false });
  });
});

describe("the limit of 10 MiB is on the bytes of the answer", () => {
  const sized = (bytesSent: number, more: Partial<Tool> = {}) =>
    answerOf(reply("image/png", Buffer.alloc(bytesSent)), more);

  test("an image of exactly that size passes, though its base64 is larger", async () => {
    const result = await sized(maxResultBytes);
    expect(result.isError).toBe(false);
    expect(Buffer.byteLength(result.content[0]!.data as string, "base64")).toBe(maxResultBytes);
  });

  test("one byte more is an error that says so, and nothing of it is used", async () => {
    const result = await sized(maxResultBytes + 1);
    expect(result.content).toEqual([
      {
        type: "text",
        text: 'The answer of the service behind "sample" is larger than the limit of 10485760 bytes (10 MiB).',
      },
    ]);
    expect(result.isError).toBe(true);
  });
});

test("types that differ in every answer are understood all the same, and the usual ones are read once", () => {
  for (let n = 0; n < 2000; n++)
    expect(mediaTypeOf(`multipart/mixed; boundary=${n}`)).toMatchObject({ kind: "multipart" });
  expect(mediaTypeOf(["application/json", "image/png"])).toMatchObject({ kind: "json" });
  expect(mediaTypeOf("application/json")).toBe(mediaTypeOf("application/json"));
});
