/** The message in an answer's body, also where it is the last event of a stream. */
export function jsonOf(body: string): string {
  if (body.startsWith("{")) return body;
  const at = body.lastIndexOf("\ndata: ");
  return at === -1 ? body : body.slice(at + 7, body.indexOf("\n", at + 7));
}
