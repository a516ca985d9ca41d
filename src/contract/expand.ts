/** Environment variables in a text: `${NAME}` and `${NAME:-default}`. Pure: the variables are handed in. */

export interface Expansion {
  /** The text with every variable replaced; one that is missing stays as it was written. */
  readonly text: string;
  /** Names without value and without default, each once, in order. */
  readonly missing: readonly string[];
}

const opening = /\$\{([A-Za-z_][A-Za-z0-9_]*)(:-|\})/y;

/**
 * Replaces the variables of a text. As in a shell, `:-` also covers a variable that is empty, and a default may hold
 * variables of its own. A value is never expanded again. Anything else in braces, such as `${env:NAME}`, is left alone.
 */
export function expandVariables(text: string, env: Readonly<Record<string, string | undefined>>): Expansion {
  const missing = new Set<string>();
  const expanded = expandPart(text, env, missing);
  return { text: expanded, missing: [...missing] };
}

function expandPart(
  text: string,
  env: Readonly<Record<string, string | undefined>>,
  missing: Set<string>,
): string {
  let result = "";
  let position = 0;
  while (position < text.length) {
    const start = text.indexOf("${", position);
    if (start === -1) break;
    result += text.slice(position, start);
    opening.lastIndex = start;
    const [head, name, mark] = opening.exec(text) ?? [];
    const end = mark === ":-" ? closing(text, opening.lastIndex) : opening.lastIndex - 1;
    if (head === undefined || name === undefined || end === -1) {
      result += "${";
      position = start + 2;
      continue;
    }
    const value = Object.hasOwn(env, name) ? env[name] : undefined;
    position = end + 1;
    if (mark === ":-") {
      const useDefault = value === undefined || value === "";
      result += useDefault ? expandPart(text.slice(start + head.length, end), env, missing) : value;
    } else {
      if (value === undefined) missing.add(name);
      result += value ?? head;
    }
  }
  return result + text.slice(position);
}

/** Where the brace that is open at `from` closes, or -1. */
function closing(text: string, from: number): number {
  let depth = 1;
  for (let index = from; index < text.length; index += 1) {
    if (text.startsWith("${", index)) depth += 1;
    else if (text[index] === "}") depth -= 1;
    if (depth === 0) return index;
  }
  return -1;
}
