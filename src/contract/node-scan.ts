/**
 * All node contracts of a directory. Owns the scan as a whole, and what of the last one can be kept. Does not own: when
 * to scan, or what a changed contract means for those who use it.
 *
 * 1. A contract is read again when its bytes, a schema file it refers to or the place of its module have changed.
 * 2. The result depends on the files alone, never on earlier scans.
 */
import { join } from "node:path";
import { type LoadEntry, relativePath, resolveDirectory, scanContracts } from "./load.ts";
import type { ScannedFile } from "./load.ts";
import type { NodeContract } from "./node.ts";
import type { Env } from "./node-execution.ts";
import { type NodeReading, readNode } from "./node-read.ts";
import { type Reference, type ReferenceKind, References } from "./references.ts";

/** Name of a node contract's file. */
export const nodeContractFile = "contract.yaml";

export interface NodeScannerOptions {
  readonly directory: string;
  /** What `${VAR}` in `mcp.execution` is taken from. */
  readonly env: Env;
  /** Node types exposed besides ORCHESTRATOR. Default none. */
  readonly exposeNodeTypes?: readonly string[];
}

export interface NodeScan {
  /** The directory, links resolved. */
  readonly root: string;
  /** Every contract file and every folder that could not be entered, by path. */
  readonly entries: readonly LoadEntry[];
  /** The exposed contracts, by path. */
  readonly contracts: ReadonlyMap<string, NodeContract>;
  /** Relative paths, besides contract files, whose change makes a new scan worth while; absent files included. */
  readonly dependencies: ReadonlySet<string>;
}

interface Known {
  readonly file: ScannedFile;
  readonly reading: NodeReading;
  /** What the contract refers to, as it was when the contract was read; by absolute path. */
  readonly references: ReadonlyMap<string, { readonly kind: ReferenceKind; readonly version: string }>;
}

/** One scan of a directory's node contracts. @throws HandlerLoadError 020, 021, 022 for the directory itself */
export const scanNodes = (options: NodeScannerOptions): Promise<NodeScan> => new NodeScanner(options).scan();

/** Scans again and again, and reads only what has changed. */
export class NodeScanner {
  readonly #options: NodeScannerOptions;
  #known: ReadonlyMap<string, Known> = new Map();

  constructor(options: NodeScannerOptions) {
    this.#options = options;
  }

  /** @throws HandlerLoadError 020, 021, 022 for the directory itself */
  async scan(): Promise<NodeScan> {
    const root = await resolveDirectory(this.#options.directory);
    const previous = new Map([...this.#known].map(([path, known]) => [path, known.file]));
    const { files, failures, links } = await scanContracts(root, nodeContractFile, previous);
    const references = new References(root);
    const next = new Map<string, Known>();
    const dependencies = new Set(links);
    for (const file of files) {
      const known = await this.#read(root, file, references);
      next.set(file.path, known);
      for (const path of known.references.keys()) dependencies.add(relativePath(root, path));
    }
    this.#known = next;
    const readings = [...next.values()].map((known) => known.reading);
    const contracts = new Map<string, NodeContract>();
    for (const { contract } of readings) if (contract !== undefined) contracts.set(contract.path, contract);
    const entries = [...failures, ...withRivals(readings)].sort((a, b) => (a.path < b.path ? -1 : 1));
    return { root, entries, contracts, dependencies };
  }

  async #read(root: string, file: ScannedFile, references: References): Promise<Known> {
    const known = this.#known.get(file.path);
    if (known?.file === file && (await unchanged(known, references))) return known; // (1)
    const used = new Map<string, { kind: ReferenceKind; version: string }>();
    const find = async (kind: ReferenceKind, path: string): Promise<Reference> => {
      const reference = await references.get(kind, path);
      used.set(path, { kind, version: reference.version });
      return reference;
    };
    const { env, exposeNodeTypes = [] } = this.#options;
    const reading = await readNode(file, { location: join(root, file.path), env, exposeNodeTypes, find });
    return { file, reading, references: used };
  }
}

async function unchanged(known: Known, references: References): Promise<boolean> {
  for (const [path, { kind, version }] of known.references) {
    if ((await references.get(kind, path)).version !== version) return false;
  }
  return true;
}

/** The entries, with a note where two contracts want one name: the first by path is served. */
function withRivals(readings: readonly NodeReading[]): LoadEntry[] {
  const owners = new Map<string, string>();
  return readings.map(({ entry, contract }) => {
    if (contract === undefined) return entry;
    const owner = owners.get(contract.toolName);
    if (owner === undefined) {
      owners.set(contract.toolName, contract.path);
      return entry;
    }
    const note = `the name ${contract.toolName} belongs to ${owner}; this tool is withheld while that one is served`;
    return { ...entry, informational: [...(entry.informational ?? []), note] };
  });
}
