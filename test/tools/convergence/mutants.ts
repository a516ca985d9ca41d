/**
 * Faults that the property must see: small substitutions in the source, and the parts loaded from a private copy that has
 * one of them.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Modules } from "./system.ts";

export interface Mutant {
  readonly name: string;
  /** Below `src/`. */
  readonly file: string;
  /** Occurs exactly once. */
  readonly find: string;
  readonly replace: string;
}

export const mutants: readonly Mutant[] = [
  {
    // What declares a service gone is forgotten at once: an older event that comes late brings it back.
    name: "no tombstone",
    file: "discovery/registration-log.ts",
    find: "until: this.#clock.now() + this.#tombstoneMs }",
    replace: "until: this.#clock.now() }",
  },
  {
    // Whoever has the higher version says what the tool is, instead of the event.
    name: "comparison across sources",
    file: "tools/service.ts",
    find: "definition: { ...consul?.definition, ...event?.definition },",
    replace: `definition:
      compareVersions(consul?.definition.version ?? "", event?.definition.version ?? "") > 0
        ? { ...event?.definition, ...consul?.definition }
        : { ...consul?.definition, ...event?.definition },`,
  },
  {
    // What comes before Consul has spoken is dropped.
    name: "lost gap event",
    file: "discovery/gate.ts",
    find: "else this.#held.push(change);",
    replace: 'else if (this.#state === "opening") this.#held.push(change);',
  },
  {
    // A record that takes another name keeps the old one too.
    name: "rename kept",
    file: "tools/catalog.ts",
    find: "this.#unclaim(source, records.get(record.key)?.record);",
    replace: `const old = records.get(record.key)?.record;
      const isRenamed =
        old !== undefined && "tool" in old && "tool" in record && old.tool.name !== record.tool.name;
      if (!isRenamed) this.#unclaim(source, old);`,
  },
  {
    // What Consul says of an instance that was declared gone never counts again while Consul's index stays.
    name: "suppression for ever",
    file: "tools/suppression.ts",
    find: "export const suppressionMs = 60_000;",
    replace: "export const suppressionMs = Infinity;",
  },
];

const root = fileURLToPath(new URL("../../../", import.meta.url));

export interface Copy {
  readonly modules: Modules;
  remove(): void;
}

/** The parts from a copy of the source, loaded by Node itself: nothing of it is shared with the source, nor cached. */
export function copyOf(mutant?: Mutant): Copy {
  const directory = mkdtempSync(join(tmpdir(), "onex-mutant-"));
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  try {
    cpSync(join(root, "src"), join(directory, "src"), { recursive: true });
    cpSync(join(root, "package.json"), join(directory, "package.json"));
    symlinkSync(join(root, "node_modules"), join(directory, "node_modules"), "junction");
    if (mutant !== undefined) mutate(directory, mutant);
    return { modules: load(directory), remove };
  } catch (error) {
    remove();
    throw error;
  }
}

function mutate(directory: string, { name, file, find, replace }: Mutant): void {
  const path = join(directory, "src", file);
  const text = readFileSync(path, "utf8");
  const count = text.split(find).length - 1;
  if (count !== 1)
    throw new Error(
      `the mutant "${name}" no longer fits: ${JSON.stringify(find)} occurs ${count} times in src/${file}, expected once`,
    );
  writeFileSync(
    path,
    text.replace(find, () => replace),
  );
}

function load(directory: string): Modules {
  const require = createRequire(join(directory, "package.json"));
  const from = <Part extends keyof Modules>(file: string, part: Part): Pick<Modules, Part> =>
    ({
      [part]: require(`./src/${file}`)[part],
    }) as Pick<Modules, Part>;
  return {
    ...from("tools/catalog.ts", "Catalog"),
    ...from("discovery/consul-state.ts", "ConsulState"),
    ...from("discovery/gate.ts", "Gate"),
    ...from("discovery/registration-log.ts", "RegistrationLog"),
    ...from("discovery/registration-event.ts", "registrationReader"),
  };
}
