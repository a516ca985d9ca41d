/** How large and how deep a JSON value is. Owns the measuring only; the limits belong to whoever asks. */

export type Measure =
  | {
      readonly kind: "ok";
      /** Of names and values as UTF-8 with JSON's punctuation; escapes are not counted. */
      readonly bytes: number;
    }
  | { readonly kind: "too-large" }
  | { readonly kind: "too-deep"; /** JSON pointer. */ readonly path: string }
  | { readonly kind: "not-json"; readonly path: string; readonly type: string };

/**
 * Measures `value` and stops at the first limit it passes, so a hostile value costs no more than an allowed one.
 *
 * @param maxDepth objects and arrays one inside the other; the value itself is the first
 */
export function measure(value: unknown, maxBytes: number, maxDepth: number): Measure {
  let bytes = 0;
  const walk = (item: unknown, depth: number): Measure | undefined => {
    switch (typeof item) {
      case "string":
        bytes += 2 + (item.length > maxBytes ? item.length : Buffer.byteLength(item));
        break;
      case "number":
        bytes += String(item).length;
        break;
      case "boolean":
        bytes += 5;
        break;
      case "undefined":
        break;
      case "bigint":
      case "function":
      case "symbol":
        return { kind: "not-json", path: "", type: typeof item };
      case "object": {
        if (item === null) {
          bytes += 4;
          break;
        }
        if (depth >= maxDepth) return { kind: "too-deep", path: "" };
        bytes += 2;
        if (Array.isArray(item)) {
          for (let index = 0; index < item.length; index++) {
            bytes += 1;
            const found = walk(item[index], depth + 1);
            if (found !== undefined) return under(index, found);
          }
        } else {
          for (const [key, member] of Object.entries(item)) {
            bytes += Buffer.byteLength(key) + 4;
            const found = walk(member, depth + 1);
            if (found !== undefined) return under(key, found);
          }
        }
      }
    }
    return bytes > maxBytes ? { kind: "too-large" } : undefined;
  };
  return walk(value, 0) ?? { kind: "ok", bytes };
}

function under(key: string | number, found: Measure): Measure {
  return "path" in found ? { ...found, path: `/${escapePointer(String(key))}${found.path}` } : found;
}

/** A member's name as a segment of a JSON pointer (RFC 6901). */
export const escapePointer = (name: string): string => name.replaceAll("~", "~0").replaceAll("/", "~1");
