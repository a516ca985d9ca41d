import { describe, expect, it, vi } from "vitest";
import { plainWherePossible } from "../../src/mcp/plain.ts";

const encoder = new TextEncoder();
const frame = (message: object): string => `event: message\ndata: ${JSON.stringify(message)}\n\n`;
const answer = (id: number, result: object = {}) => ({ jsonrpc: "2.0", id, result });
const progress = { jsonrpc: "2.0", method: "notifications/progress", params: { progress: 1 } };

/** A stream of these bytes; `cancel` is told when its reader gives up. */
function streamOf(chunks: Iterable<Uint8Array>, cancel = vi.fn()): Response {
  const iterator = chunks[Symbol.iterator]();
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const next = iterator.next();
      if (next.done === true) controller.close();
      else controller.enqueue(next.value);
    },
    cancel,
  });
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "mcp-session-id": "s", "x-accel-buffering": "no" },
  });
}

const bytes = (...texts: string[]): Uint8Array[] => texts.map((text) => encoder.encode(text));

describe("a stream that is nothing but its answer", () => {
  it("becomes JSON and keeps the headers that matter", async () => {
    const plain = await plainWherePossible(streamOf(bytes(frame(answer(1)))), "auto");
    expect(plain.headers.get("content-type")).toBe("application/json");
    expect(plain.headers.get("mcp-session-id")).toBe("s");
    expect(plain.headers.get("x-accel-buffering")).toBeNull();
    expect(await plain.json()).toEqual(answer(1));
  });

  it("may be cut anywhere, also inside a character", async () => {
    const whole = encoder.encode(frame(answer(1, { text: "größer 😀\u2028" })));
    const plain = await plainWherePossible(
      streamOf(Array.from(whole, (byte) => Uint8Array.of(byte))),
      "auto",
    );
    expect(await plain.json()).toEqual(answer(1, { text: "größer 😀\u2028" }));
  });

  it("of a batch becomes one list of answers", async () => {
    const plain = await plainWherePossible(streamOf(bytes(frame(answer(2)), frame(answer(1)))), "auto");
    expect(await plain.json()).toEqual([answer(2), answer(1)]);
  });

  it("without any answer stays empty", async () => {
    expect(await (await plainWherePossible(streamOf([]), "auto")).text()).toBe("");
    expect(await (await plainWherePossible(streamOf(bytes(frame(progress))), "json")).text()).toBe("");
  });
});

describe("a stream with something before its answer", () => {
  it.each([
    ["a notification", frame(progress)],
    ["a keep-alive comment", ": keepalive\n\n"],
  ])("stays a stream, whole: %s", async (_, first) => {
    const response = await plainWherePossible(streamOf(bytes(first, frame(answer(1)))), "auto");
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(await response.text()).toBe(first + frame(answer(1)));
  });

  it("is cut down to the answer for a client that takes no stream", async () => {
    const response = streamOf(bytes(": keepalive\n\n", frame(progress), frame(answer(1))));
    expect(await (await plainWherePossible(response, "json")).json()).toEqual(answer(1));
  });

  it("is given up where its reader gives up", async () => {
    const cancel = vi.fn();
    const response = await plainWherePossible(
      streamOf(bytes(frame(progress), ": more\n\n", ": more\n\n"), cancel),
      "auto",
    );
    await response.body?.cancel("gone");
    expect(cancel).toHaveBeenCalledWith("gone");
  });
});

it("what is no stream is left alone", async () => {
  const response = Response.json(answer(1));
  expect(await plainWherePossible(response, "auto")).toBe(response);
});
