/**
 * `${…}` in YAML text, put aside while the text is parsed: its braces and colons mean something to YAML. Pure. Does not
 * own: what an expression stands for (`document.ts`).
 *
 * A placeholder is as long as its expression, so that positions stay true. It consists of private-use characters, which
 * are plain text to YAML wherever a value may stand.
 */

const start = "\uE000";
const filler = "\uE001";
const firstIndex = 0xe100;
const lastIndex = 0xf8ff;
const placeholder = new RegExp(`${start}([\uE100-\uF8FF])${filler}*`, "g");

export interface Placeholders {
  readonly text: string;
  /** A part of the parsed text as it was written. */
  restore(part: string): string;
}

/** Puts every complete expression on one line aside. Text that itself has such characters is left as it is. */
export function withPlaceholders(source: string): Placeholders {
  if (/[\uE000-\uF8FF]/.test(source)) return { text: source, restore: (part) => part };
  const expressions: string[] = [];
  let text = "";
  let position = 0;
  for (;;) {
    const open = source.indexOf("${", position);
    const end = open === -1 ? -1 : expressionEnd(source, open + 2);
    if (open === -1 || firstIndex + expressions.length > lastIndex) break;
    if (end === -1) {
      text += source.slice(position, open + 2);
      position = open + 2;
      continue;
    }
    const index = String.fromCharCode(firstIndex + expressions.length);
    text += source.slice(position, open) + start + index + filler.repeat(end - open - 2);
    expressions.push(source.slice(open, end));
    position = end;
  }
  return {
    text: text + source.slice(position),
    restore: (part) =>
      part.replaceAll(
        placeholder,
        (whole, index: string) => expressions[index.charCodeAt(0) - firstIndex] ?? whole,
      ),
  };
}

/** Just behind the brace that closes what is open at `from`; -1 where the line ends first. */
function expressionEnd(source: string, from: number): number {
  let depth = 1;
  for (let index = from; index < source.length && source[index] !== "\n"; index += 1) {
    if (source.startsWith("${", index)) depth += 1;
    else if (source[index] === "}") depth -= 1;
    if (depth === 0) return index + 1;
  }
  return -1;
}
