/**
 * Plain answers for the older revisions: the SDK's session transport always frames an answer as a stream; a stream
 * whose first event is already the final response becomes a JSON answer. One that begins with a notification, or with a
 * keep-alive comment, stays a stream.
 */

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
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    read.push(value);
    text += decoder.decode(value, { stream: true });
    if (mode === "auto" && !completeFrames(text).every(isResponse)) {
      return new Response(continued(read, reader), response);
    }
  }
  const messages = text.split(frameEnd).map(dataOf).filter(isMessage);
  const answers = messages.filter((message) => "result" in message || "error" in message);
  if (answers.length === 0) return new Response(continued(read, undefined), response);
  const headers = new Headers(response.headers);
  headers.set("content-type", "application/json");
  headers.delete("connection");
  headers.delete("x-accel-buffering");
  const body = answers.length === 1 ? answers[0] : answers;
  return new Response(JSON.stringify(body), { status: response.status, headers });
}

const completeFrames = (text: string): string[] => text.split(frameEnd).slice(0, -1);

/** The JSON of a frame's data lines; undefined for a comment. */
function dataOf(frame: string): unknown {
  const data = frame
    .split("\n")
    .filter((line) => line.startsWith("data: "))
    .map((line) => line.slice("data: ".length))
    .join("\n");
  return data === "" ? undefined : JSON.parse(data);
}

const isMessage = (value: unknown): value is object => typeof value === "object" && value !== null;

function isResponse(frame: string): boolean {
  const message = dataOf(frame);
  return isMessage(message) && ("result" in message || "error" in message);
}

/** What was read so far, then the rest. Cancelling it cancels the source. */
function continued(
  read: readonly Uint8Array[],
  reader: ReadableStreamDefaultReader<Uint8Array> | undefined,
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of read) controller.enqueue(chunk);
      if (reader === undefined) controller.close();
    },
    async pull(controller) {
      const next = await reader?.read();
      if (next === undefined) return;
      if (next.done) controller.close();
      else controller.enqueue(next.value);
    },
    cancel: (reason) => reader?.cancel(reason),
  });
}
