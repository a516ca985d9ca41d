/**
 * Which handlers there are. Owns: the sources of handler contracts (shipped with a package, found in the contracts
 * directory, kept elsewhere), which of them wins, and the load report. Does not own: reading files (`contract/load.ts`)
 * or other stores, constructing and running handlers (`host.ts`).
 *
 * 1. The same files give the same handlers: of several contracts for one type the first by path counts.
 * 2. Every contract that was looked at is in the report, with its outcome and the reason.
 * 3. A contract from elsewhere brings no code: its class comes from a package that is allowed, or is a shipped one.
 */
import { realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import { parseHandlerContract, type HandlerContract } from "../contract/handler.ts";
import {
  parseContractText,
  readContractFile,
  reasonOf,
  scanContracts,
  type LoadEntry,
  type LoadReport,
  type ScannedFile,
} from "../contract/load.ts";
import { HandlerLoadError, ProtocolConfigurationError } from "../core/errors.ts";
import type { HandlerClass } from "./handler.ts";
import { loadHandlerClass, type ImportModule } from "./loader.ts";

/** A handler that comes with a package. Its contract says the rest. */
export interface BootstrapHandler {
  /** As its contract and other people's name it: `onex-runtime#HandlerMCP`. */
  readonly handlerClass: string;
  /** Absolute path of its contract. */
  readonly contractFile: string;
  load(): Promise<HandlerClass>;
}

/** Contracts that are kept outside of this machine. */
export interface RemoteContracts {
  /** Begins their paths in the report: `consul:onex/contracts/handlers/orders`. */
  readonly name: "consul";
  /** The contracts that are there now, each with its whole key and its YAML as it is stored. */
  read(): Promise<readonly { readonly path: string; readonly text: string | Uint8Array }[]>;
}

export interface HandlerSource {
  /**
   * `bootstrap`: only handlers of the package; `contract`: only those of the contracts directory and of `remote`;
   * `hybrid`: all. Of several for one type the contracts directory wins, then `remote`.
   */
  readonly mode: "bootstrap" | "contract" | "hybrid";
  /** In hybrid mode the bootstrap handler wins instead. */
  readonly allowBootstrapOverride: boolean;
  /** From then on there are no bootstrap handlers. Text is ISO 8601 with time and zone. */
  readonly bootstrapExpiresAt?: Date | string;
}

export interface DiscoveryOptions {
  readonly contractsDir?: string;
  readonly handlerSource: HandlerSource;
  readonly bootstrap: readonly BootstrapHandler[];
  /** Default: there are no others. */
  readonly remote?: RemoteContracts;
  readonly allowedNamespaces: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly importModule?: ImportModule;
  /** Milliseconds since the epoch. Default `Date.now`. */
  readonly today?: () => number;
}

/** A handler whose class is loaded. */
export interface FoundHandler {
  readonly type: string;
  readonly contract: HandlerContract;
  readonly Class: HandlerClass;
}

/** Why a handler is not there. */
export interface LoadFailure {
  readonly reason: string;
  /** `HANDLER_LOADER_…`. */
  readonly code?: string;
}

/** A failure or an entry of the report in one line: `HANDLER_LOADER_010: …`. */
export function failureText({
  code,
  reason = "",
}: {
  readonly code?: string;
  readonly reason?: string;
}): string {
  return code === undefined ? reason : `${code}: ${reason}`;
}

export interface Discovery {
  readonly handlers: readonly FoundHandler[];
  /** By type, or by path where the type is not known. */
  readonly failed: ReadonlyMap<string, LoadFailure>;
  /** By type: what of `activation.required_env` is missing. */
  readonly skipped: ReadonlyMap<string, string>;
  readonly report: LoadReport;
}

const fileName = "handler_contract.yaml";

/** In the order in which they win. */
const origins = ["contract", "remote", "bootstrap"] as const;
type Origin = (typeof origins)[number];

interface Candidate {
  readonly path: string;
  /** Where packages of its class are looked for; absent: beside the runtime only. */
  readonly file?: string;
  readonly origin: Origin;
  readonly contract: HandlerContract;
}

/**
 * Finds the handlers and loads their classes.
 *
 * @throws ProtocolConfigurationError where `bootstrapExpiresAt` is not a date with a zone
 */
export async function discoverHandlers(options: DiscoveryOptions): Promise<Discovery> {
  const { mode } = options.handlerSource;
  const expired = bootstrapExpired(options);
  const entries: LoadEntry[] = [];
  const failed = new Map<string, LoadFailure>();
  const skipped = new Map<string, string>();
  const candidates = [
    ...(mode === "contract" || expired ? [] : await bootstrapCandidates(options.bootstrap, entries, failed)),
    ...(mode === "bootstrap" || options.contractsDir === undefined
      ? []
      : await contractCandidates(options.contractsDir, entries, failed)),
    ...(mode === "bootstrap" || options.remote === undefined
      ? []
      : await remoteCandidates(options.remote, options.contractsDir, entries, failed)),
  ];
  const own = new Map(options.bootstrap.map((handler) => [handler.handlerClass, () => handler.load()]));
  const handlers: FoundHandler[] = [];
  for (const candidate of choose(candidates, options.handlerSource.allowBootstrapOverride, entries)) {
    const { contract } = candidate;
    const type = contract.protocolType;
    const lacking = contract.requiredEnv.filter((name) => (options.env[name] ?? "") === "");
    if (lacking.length > 0) {
      const reason = `the environment lacks ${lacking.join(", ")} (activation.required_env)`;
      skipped.set(type, reason);
      entries.push(entry(candidate, "skipped", reason));
      continue;
    }
    try {
      const Class = await loadHandlerClass(contract.handlerClass, candidate.file, {
        ...withoutDirectory(options, candidate.origin),
        own,
      });
      handlers.push({ type, contract, Class });
      entries.push(entry(candidate, "loaded"));
    } catch (thrown) {
      const failure = failureOf(thrown);
      failed.set(type, failure);
      entries.push({ ...entry(candidate, "failed"), ...failure });
    }
  }
  entries.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  return { handlers, failed, skipped, report: { directory: options.contractsDir ?? "", entries } };
}

/** (3) */
function withoutDirectory(options: DiscoveryOptions, origin: Origin): DiscoveryOptions {
  if (origin !== "remote") return options;
  const { contractsDir: _, ...rest } = options;
  return rest;
}

function bootstrapExpired(options: DiscoveryOptions): boolean {
  const expiry = options.handlerSource.bootstrapExpiresAt;
  if (expiry === undefined) return false;
  const time = typeof expiry === "string" && !withZone.test(expiry) ? NaN : new Date(expiry).getTime();
  if (Number.isNaN(time)) {
    throw new ProtocolConfigurationError(
      `handler_source.bootstrap_expires_at: expected an ISO 8601 date with time and zone, as in 2030-01-31T00:00:00Z, got ${String(expiry)}`,
    );
  }
  return (options.today ?? Date.now)() >= time;
}

const withZone = /^\d{4}-\d{2}-\d{2}T[\d:.]+(Z|[+-]\d{2}:?\d{2})$/i;

async function bootstrapCandidates(
  bootstrap: readonly BootstrapHandler[],
  entries: LoadEntry[],
  failed: Map<string, LoadFailure>,
): Promise<Candidate[]> {
  const candidates: Candidate[] = [];
  for (const handler of bootstrap) {
    const path = `bootstrap:${handler.handlerClass}`;
    try {
      const file = await realpath(handler.contractFile).catch(() => handler.contractFile);
      const scanned = await readContractFile(dirname(file), file);
      addCandidate({ ...scanned, path }, "bootstrap", candidates, entries, failed);
    } catch (thrown) {
      addFailure(path, thrown, entries, failed);
    }
  }
  return candidates;
}

async function contractCandidates(
  directory: string,
  entries: LoadEntry[],
  failed: Map<string, LoadFailure>,
): Promise<Candidate[]> {
  const candidates: Candidate[] = [];
  try {
    const scan = await scanContracts(directory, fileName);
    entries.push(...scan.failures);
    for (const { path, outcome, reason = "unreadable", code } of scan.failures) {
      if (outcome === "failed") failed.set(path, { reason, ...(code !== undefined && { code }) });
    }
    for (const file of scan.files) addCandidate(file, "contract", candidates, entries, failed);
  } catch (thrown) {
    // The directory itself. A host may do without one: its bootstrap handlers are still there.
    entries.push({ path: ".", kind: "handler", outcome: "failed", ...failureOf(thrown) });
  }
  return candidates;
}

async function remoteCandidates(
  remote: RemoteContracts,
  contractsDir: string | undefined,
  entries: LoadEntry[],
  failed: Map<string, LoadFailure>,
): Promise<Candidate[]> {
  let documents;
  try {
    documents = await remote.read();
  } catch (thrown) {
    // Nobody knows which handlers are missing now, but some may be: the host is degraded.
    addFailure(remote.name, thrown, entries, failed);
    return [];
  }
  const candidates: Candidate[] = [];
  // Packages of the project that the contracts directory belongs to.
  const file = contractsDir === undefined ? {} : { file: join(contractsDir, fileName) };
  for (const document of documents.toSorted((a, b) => (a.path < b.path ? -1 : 1))) {
    const path = `${remote.name}:${document.path}`;
    try {
      addCandidate(
        { ...file, path, data: parseContractText(path, document.text) },
        "remote",
        candidates,
        entries,
        failed,
      );
    } catch (thrown) {
      addFailure(path, thrown, entries, failed);
    }
  }
  return candidates;
}

function addCandidate(
  scanned: Pick<ScannedFile, "path" | "data"> & Partial<Pick<ScannedFile, "file">>,
  origin: Origin,
  candidates: Candidate[],
  entries: LoadEntry[],
  failed: Map<string, LoadFailure>,
): void {
  const parsed = parseHandlerContract(scanned.data);
  if (!parsed.ok) {
    addFailure(scanned.path, new HandlerLoadError(parsed.code, parsed.problems.join("; ")), entries, failed);
    return;
  }
  const { contract } = parsed;
  const same = candidates.find((other) => other.contract.protocolType === contract.protocolType);
  if (same !== undefined) {
    const reason = `${same.path} already declares proto.${contract.protocolType}: remove one or give it another protocol_type`;
    addFailure(scanned.path, new HandlerLoadError("HANDLER_LOADER_040", reason), entries, failed); // (1)
    return;
  }
  candidates.push({
    path: scanned.path,
    ...(scanned.file !== undefined && { file: scanned.file }),
    origin,
    contract,
  });
}

/** One candidate per type; what another one replaced is reported as skipped. */
function choose(candidates: readonly Candidate[], bootstrapWins: boolean, entries: LoadEntry[]): Candidate[] {
  const rank = ({ origin }: Candidate): number =>
    bootstrapWins && origin === "bootstrap" ? -1 : origins.indexOf(origin);
  return candidates.filter((candidate) => {
    const [winner = candidate] = candidates
      .filter((other) => other.contract.protocolType === candidate.contract.protocolType)
      .sort((a, b) => rank(a) - rank(b));
    if (winner === candidate) return true;
    entries.push(entry(candidate, "skipped", `replaced by ${winner.path}`));
    return false;
  });
}

function entry(candidate: Candidate, outcome: LoadEntry["outcome"], reason?: string): LoadEntry {
  const { contract } = candidate;
  return {
    path: candidate.path,
    kind: "handler",
    outcome,
    name: contract.name,
    ...(reason !== undefined && { reason }),
    ...(contract.informational.length > 0 && { informational: contract.informational }),
  };
}

function addFailure(
  path: string,
  thrown: unknown,
  entries: LoadEntry[],
  failed: Map<string, LoadFailure>,
): void {
  const failure = failureOf(thrown);
  failed.set(path, failure);
  entries.push({ path, kind: "handler", outcome: "failed", ...failure });
}

function failureOf(thrown: unknown): LoadFailure {
  const reason = reasonOf(thrown);
  return thrown instanceof HandlerLoadError ? { reason, code: thrown.loaderCode } : { reason };
}
