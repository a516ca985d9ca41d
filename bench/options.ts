/** Options of a benchmark program, all of them `--name VALUE`. One out of its range ends the program with 2. */
import { parseArgs } from "node:util";

export interface Range {
  readonly initial: number;
  readonly least: number;
  readonly most: number;
}

/** A number from `least` to `most`. */
export function toNumber(name: string, text: string, { least, most }: Omit<Range, "initial">): number {
  const value = Number(text);
  if (text !== "" && value >= least && value <= most) return value;
  return refuse(`--${name} ${text}: expected a number from ${least} to ${most}`);
}

/** Ends the program. */
export function refuse(problem: string): never {
  console.error(problem);
  process.exit(2);
}

/** What the command line says, else the initial values. */
export function readTexts<const Name extends string>(
  initial: Readonly<Record<Name, string>>,
): Record<Name, string> {
  const options = Object.fromEntries(
    Object.entries<string>(initial).map(([name, value]) => [
      name,
      { type: "string" as const, default: value },
    ]),
  );
  return parseArgs({ options }).values as Record<Name, string>;
}

/** The same where all are numbers. */
export function readNumbers<const Name extends string>(
  ranges: Readonly<Record<Name, Range>>,
): Record<Name, number> {
  const entries = Object.entries<Range>(ranges);
  const texts = readTexts(Object.fromEntries(entries.map(([name, { initial }]) => [name, String(initial)])));
  return Object.fromEntries(
    entries.map(([name, range]) => [name, toNumber(name, texts[name] ?? "", range)]),
  ) as Record<Name, number>;
}
