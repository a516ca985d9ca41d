/** What a client takes as an answer, for both doors. */

export type Accepted = "both" | "json" | "stream" | "any" | "none";

/** Absent and `*` mean anything (RFC 9110, section 12.5.1). */
export function acceptedBy(accept: string | null | undefined): Accepted {
  if (accept === null || accept === undefined || accept.includes("*/*")) return "any";
  const json = accept.includes("application/json") || accept.includes("application/*");
  const stream = accept.includes("text/event-stream") || accept.includes("text/*");
  if (json) return stream ? "both" : "json";
  return stream ? "stream" : "none";
}
