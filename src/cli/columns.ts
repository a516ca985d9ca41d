/** Text for people: columns and first sentences. Pure. */

/** On one line, and nothing in it that a terminal would obey: names and texts may be anybody's. */
export const plain = (text: string): string => text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");

/** Two columns, the second aligned. */
export function columns(lines: readonly (readonly [string, string])[]): string {
  const width = Math.max(0, ...lines.map(([first]) => first.length));
  return lines.map(([first, second]) => plain(`${first.padEnd(width)}  ${second}`.trimEnd()) + "\n").join("");
}

/** The beginning of a description, on one line. */
export function firstSentence(description: string): string {
  const line = description.replaceAll(/\s+/g, " ").trim();
  return /^.+?[.!?](?=\s|$)/.exec(line)?.[0] ?? line;
}
