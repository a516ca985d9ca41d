/**
 * The content type of a service's answer, and what becomes of an answer of that type. Pure. Does not own: the answer
 * (`answer.ts`).
 *
 * 1. What a service writes here is other people's text: it reaches a client only where it is a valid type.
 */

export type MediaType =
  | {
      readonly kind: "json" | "text";
      readonly mimeType: string;
      /** In lower case. Default `utf-8`. */
      readonly charset: string;
    }
  /** Content blocks of MCP; `blob` is the contents of a resource. */
  | { readonly kind: "image" | "audio" | "blob"; readonly mimeType: string }
  /** Several answers in one. */
  | { readonly kind: "multipart"; readonly mimeType: string }
  /** No type is given. */
  | { readonly kind: "absent" }
  /** What is given is none. */
  | { readonly kind: "invalid" };

/** Types that services send again and again; what makes one differ every time, such as a boundary, may not fill it. */
const known = new Map<string, MediaType>();
const maxKnown = 256;
const maxLength = 200;

/** @param header as it came */
export function mediaTypeOf(header: string | readonly string[] | undefined): MediaType {
  const text = typeof header === "string" ? header : (header?.[0] ?? "");
  let type = known.get(text);
  if (type === undefined) {
    type = parse(text);
    if (known.size >= maxKnown) known.clear();
    if (text.length <= maxLength) known.set(text, type);
  }
  return type;
}

/** RFC 9110, section 8.3.1. (1) */
const essenceForm = /^[\w!#$%&'*+.^`|~-]{1,100}\/[\w!#$%&'*+.^`|~-]{1,100}$/;

function parse(header: string): MediaType {
  const [essence = "", ...parameters] = header.split(";").map((part) => part.trim().toLowerCase());
  if (essence === "") return { kind: "absent" };
  if (!essenceForm.test(essence)) return { kind: "invalid" };
  const kind = kindOf(essence);
  if (kind !== "json" && kind !== "text") return { kind, mimeType: essence };
  const charset = parameters.find((parameter) => parameter.startsWith("charset="))?.slice(8);
  return { kind, mimeType: essence, charset: charset?.replaceAll('"', "") ?? "utf-8" };
}

/** Text by convention, though its type does not say so. */
const textTypes = new Set(
  [
    ["csv", "ecmascript", "graphql", "javascript", "json-seq", "jsonl", "jsonlines", "ndjson", "sql", "toml"],
    ["typescript", "x-javascript", "x-jsonlines", "x-ndjson", "x-sh", "x-toml", "x-typescript"],
    ["x-www-form-urlencoded", "x-yaml", "xml", "xml-dtd", "yaml"],
  ]
    .flat()
    .map((subtype) => `application/${subtype}`),
);

function kindOf(essence: string): Exclude<MediaType["kind"], "absent" | "invalid"> {
  if (essence === "application/json" || essence.endsWith("+json")) return "json";
  // SVG among them: a model reads its text, and hardly a client shows it as an image.
  if (essence.startsWith("text/") || textTypes.has(essence) || /\+(?:xml|yaml)$/.test(essence)) return "text";
  if (essence.startsWith("image/")) return "image";
  if (essence.startsWith("audio/")) return "audio";
  return essence.startsWith("multipart/") ? "multipart" : "blob";
}
