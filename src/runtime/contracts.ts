/**
 * Which handlers there are. Owns: the two sources of handler contracts (shipped with a package, found in the contracts
 * directory), which of two wins, and the load report. Does not own: reading files (`contract/load.ts`), constructing
 * and running handlers (`host.ts`).
 *
 * 1. The same files give the same handlers: of several contracts for one type the first by path counts.
 * 2. Every file that was looked at is in the report, with its outcome and the reason.
 */
import { realpath } from "node:fs/promises";
import { dirname } from "node:path";
import { parseHandlerContract, type HandlerContract } from "../contract/handler.ts";
import {
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

export interface HandlerSource {
  /**
   * `bootstrap`: only handlers of the package; `contract`: only those of the contracts directory; `hybrid`: both, and
   * for one type the contract wins.
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

interface Candidate {
  readonly path: string;
  readonly file: string;
  readonly origin: "bootstrap" | "contract";
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
      const Class = await loadHandlerClass(contract.handlerClass, candidate.file, { ...options, own });
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

function addCandidate(
  scanned: ScannedFile,
  origin: Candidate["origin"],
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
  candidates.push({ path: scanned.path, file: scanned.file, origin, contract });
}

/** One candidate per type; what another one replaced is reported as skipped. */
function choose(candidates: readonly Candidate[], bootstrapWins: boolean, entries: LoadEntry[]): Candidate[] {
  const winner = bootstrapWins ? "bootstrap" : "contract";
  return candidates.filter((candidate) => {
    const rival = candidates.find(
      (other) => other !== candidate && other.contract.protocolType === candidate.contract.protocolType,
    );
    if (rival === undefined || candidate.origin === winner) return true;
    entries.push(entry(candidate, "skipped", `replaced by ${rival.path}`));
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
