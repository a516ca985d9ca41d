/** What a service says about its own failure, fit to be shown to a client. Pure. */
import { isObject } from "../core/json.ts";
import { withoutInternals } from "../core/public-text.ts";

/** Characters of a service's own message. */
const maxMessageLength = 500;

/** What a service says about its own failure, in the members that services use for it; it is safe to show. */
export function messageIn(value: unknown): string | undefined {
  if (typeof value === "string") return shorten(value);
  if (!isObject(value)) return undefined;
  for (const member of [value.error, value.message, value.detail, value.title, value.errors]) {
    if (typeof member === "string" && member !== "") return shorten(member);
    if (isObject(member) && typeof member.message === "string") return shorten(member.message);
    if (typeof member === "object" && member !== null) return shorten(jsonText(member));
  }
  return undefined;
}

/** Empty where it is nested deeper than the stack bears. */
function jsonText(value: object): string {
  try {
    return JSON.stringify(value);
  } catch {
    return "";
  }
}

/** Undefined where nothing is left to show. */
export function shorten(text: string): string | undefined {
  const plain = withoutInternals(text).trim();
  if (plain === "") return undefined;
  return plain.length > maxMessageLength ? `${plain.slice(0, maxMessageLength)}…` : plain;
}
