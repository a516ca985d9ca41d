/** docker-compose.yml and Dockerfile as data. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { root } from "../support/runtime.ts";

export interface ComposeService {
  readonly image: string;
  readonly build?: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly healthcheck?: { readonly test: readonly string[] };
}

export interface Compose {
  readonly services: Readonly<Record<string, ComposeService>>;
}

/** The file with `<<` merged, `${NAME:-default}` as it is. */
export const readCompose = async (): Promise<Compose> =>
  parse(await readFile(join(root, "docker-compose.yml"), "utf8"), { merge: true }) as Compose;

/** Replaces `${NAME:-default}` as docker compose does: by the variable, else by the default. */
export function interpolate(text: string, env: Readonly<Record<string, string>> = {}): string {
  return text.replaceAll(
    /\$\{([A-Z_]+):-([^}]*)\}/g,
    (_, name: string, fallback: string) => env[name] || fallback,
  );
}

export interface Instruction {
  readonly name: string;
  readonly text: string;
  /** Words after the flags, or the list where one is written. */
  readonly args: readonly string[];
  /** `--from=build` is `{ from: "build" }`. */
  readonly flags: Readonly<Record<string, string>>;
}

export interface Stage {
  readonly name: string;
  readonly base: string;
  readonly instructions: readonly Instruction[];
}

/** The Dockerfile's stages. Reads what this one uses: comments, lines that go on after a backslash, lists in JSON. */
export async function readDockerfile(): Promise<Stage[]> {
  const text = await readFile(join(root, "Dockerfile"), "utf8");
  const lines = text
    .replaceAll(/^#.*\n/gm, "")
    .replaceAll(/\\\n\s*/g, "")
    .split("\n");
  const stages: { name: string; base: string; instructions: Instruction[] }[] = [];
  for (const line of lines.filter((each) => each.trim() !== "")) {
    const instruction = readInstruction(line);
    if (instruction.name === "FROM") {
      const [base = "", , name = ""] = instruction.args;
      stages.push({ name, base, instructions: [] });
    } else stages.at(-1)!.instructions.push(instruction);
  }
  return stages;
}

function readInstruction(line: string): Instruction {
  const [, name = "", rest = ""] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
  const flags: Record<string, string> = {};
  const text = rest.replaceAll(/^(?:--([a-z-]+)=(\S+)\s+)+/g, (found) => {
    for (const [, flag = "", value = ""] of found.matchAll(/--([a-z-]+)=(\S+)/g)) flags[flag] = value;
    return "";
  });
  const list = /\[.*\]$/.exec(text)?.[0];
  return { name, text, args: list ? (JSON.parse(list) as string[]) : text.split(/\s+/), flags };
}
