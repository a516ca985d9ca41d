/**
 * Plain answers: the SDK frames an answer as a stream, so that it can be kept alive; a stream that holds nothing but the
 * final response becomes a JSON answer. One that begins with a notification, or with a keep-alive comment, stays a stream.
 */
import { isObject } from "../core/json.ts";

const frameEnd = "\n\n";

/**
 * `response`, as JSON where that loses nothing.
 *
 * @param mode `auto`: a stream where something precedes the response. `json`: for a client that takes no stream; what
 *   precedes the response is dropped.
 */
export async function plainWherePossible(response: Response, mode: "auto" | "json"): Promise<Response> {
  if (response.body === null || response.headers.get("content-type") !== "text/event-stream") return response;
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  const read: Uint8Array[] = [];
  const answers: string[] = [];
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (mode === "auto") read.push(value);
    const frames = (rest + decoder.decode(value, { stream: true })).split(frameEnd);
    rest = frames.pop() ?? "";
    for (const frame of frames) {
      const data = dataOf(frame);
      if (isAnswer(data)) answers.push(data);
      else if (mode === "auto") return new Response(continued(read, reader), response);
    }
  }
  // A cancelled request has no answer.
  if (answers.length === 0) return new Response("", response);
  const headers = new Headers(response.headers);
  headers.set("content-type", "application/json");
  headers.delete("connection");
  headers.delete("x-accel-buffering");
  const body = answers.length === 1 ? answers[0] : `[${answers.join(",")}]`;
  return new Response(body, { status: response.status, headers });
}

/** The data lines of a frame; empty for a comment. */
function dataOf(frame: string): string {
  return frame
    .split("\n")
    .filter((line) => line.startsWith("data: "))
    .map((line) => line.slice("data: ".length))
    .join("\n");
}

function isAnswer(data: string): boolean {
  if (data === "") return false;
  const message: unknown = JSON.parse(data);
  return isObject(message) && ("result" in message || "error" in message);
}

/** What was read so far, then the rest. Cancelling it cancels the source. */
function continued(
  read: readonly Uint8Array[],
  reader: ReadableStreamDefaultReader<Uint8Array>,
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of read) controller.enqueue(chunk);
    },
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
}
