/**
 * Tools from contract files. Owns: following a contracts directory, the last good version of every contract, and what of
 * a scan is a change. Does not own: reading contracts (`contract/node-scan.ts`), or precedence between sources.
 *
 * 1. The state comes from looking at all files, never from events; so it is the same in whatever order events come.
 * 2. One scan at a time; changes during a scan lead to one more.
 * 3. What changed within the settling time is one change, and a change that changes nothing is none.
 * 4. What cannot be read is not gone: its last good version stays until the file itself is away.
 * 5. After `close` nothing is applied.
 */
import { basename, resolve } from "node:path";
import { type LoadEntry, type LoadReport, resolveDirectory } from "../contract/load.ts";
import { nodeContractFile, NodeScanner } from "../contract/node-scan.ts";
import { type Clock, monotonicClock } from "../core/clock.ts";
import { messageOf, RuntimeHostError } from "../core/errors.ts";
import { type Logger, silentLogger } from "../core/log.ts";
import type { ApplyChange, SourceStatus, ToolRecord, ToolSource } from "../tools/source.ts";
import type { Tool } from "../tools/tool.ts";
import { foldScan } from "./contract-change.ts";
import { type FolderWatch, watchFolder } from "./watch.ts";

export interface ContractSourceOptions {
  readonly directory: string;
  /** What `${VAR}` in `mcp.execution` is taken from. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Node types exposed besides ORCHESTRATOR. Default none. */
  readonly exposeNodeTypes?: readonly string[];
  /** Default: nothing is logged. */
  readonly log?: Logger;
  /** Follow changes. Default true. */
  readonly watch?: boolean;
  readonly clock?: Clock;
}

/** Milliseconds without a further change after which files count as settled. */
const settleMs = 50;
/** Milliseconds after which a directory that never settles is looked at all the same. */
const maxSettleMs = 1000;
/** Milliseconds between looks while something cannot be read or watched: no event would tell when it can be again. */
const retryMs = 1000;

/** Loader codes of what is there but cannot be read. */
const unreadable = new Set<string | undefined>(["HANDLER_LOADER_008", "HANDLER_LOADER_021"]);

type State =
  | { readonly kind: "new" }
  | { readonly kind: "starting" | "running"; readonly apply: ApplyChange<ToolRecord> }
  | { readonly kind: "closed"; readonly done: Promise<void> };

export class ContractSource implements ToolSource {
  readonly name = "contracts";
  readonly kind = "contract";
  readonly #options: ContractSourceOptions;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #scanner: NodeScanner;
  #state: State = { kind: "new" };
  #tools: ReadonlyMap<string, Tool> = new Map();
  #entries: readonly LoadEntry[] = [];
  #dependencies: ReadonlySet<string> = new Set();
  #currentAt: number;
  #scanError: string | undefined;
  #watchError: string | undefined;
  #watch: FolderWatch | undefined;
  #timer: NodeJS.Timeout | undefined;
  #hintedAt: number | undefined;
  #running: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(options: ContractSourceOptions) {
    this.#options = options;
    this.#log = (options.log ?? silentLogger).child({ source: this.name });
    this.#clock = options.clock ?? monotonicClock;
    this.#scanner = new NodeScanner(options);
    this.#currentAt = this.#clock.now();
  }

  /**
   * Reads all contracts, applies them as one change and follows the directory from then on.
   *
   * @throws HandlerLoadError 020, 021, 022 where there is no directory to read
   */
  async start(apply: ApplyChange<ToolRecord>): Promise<void> {
    if (this.#state.kind !== "new") throw new RuntimeHostError("A contract source can be started only once.");
    this.#state = { kind: "starting", apply };
    const first = this.#look();
    this.#running = first.catch(() => undefined);
    try {
      await first;
    } catch (error) {
      await this.close();
      throw error;
    }
    if (this.#isOpen()) this.#state = { kind: "running", apply };
  }

  status(): SourceStatus {
    const { kind } = this.#state;
    const trouble = this.#scanError ?? this.#watchError;
    const failed = this.#entries.find((entry) => entry.outcome === "failed");
    const lastError = trouble ?? (failed && `${failed.path}: ${failed.reason ?? "failed"}`);
    const isFollowed = kind === "running" && trouble === undefined && this.#watch !== undefined;
    return {
      name: this.name,
      kind: this.kind,
      state:
        kind === "closed"
          ? "closed"
          : kind !== "running"
            ? "starting"
            : trouble === undefined
              ? "ready"
              : "degraded",
      ageSeconds: isFollowed ? 0 : (this.#clock.now() - this.#currentAt) / 1000,
      ...(lastError !== undefined && { lastError }),
    };
  }

  /** What became of every contract file at the last scan. */
  report(): LoadReport {
    return { directory: resolve(this.#options.directory), entries: this.#entries };
  }

  /** Looks at the files now, and resolves when what changed has been applied. Never rejects: see `status()`. (2) */
  rescan(): Promise<void> {
    this.#next ??= this.#running.then(async () => {
      this.#next = undefined;
      this.#running = this.#lookAgain();
      await this.#running;
    });
    return this.#next;
  }

  /** Ends watching. Nothing is applied from now on; what was applied stays. Idempotent. (5) */
  close(): Promise<void> {
    if (this.#state.kind === "closed") return this.#state.done;
    clearTimeout(this.#timer);
    const done = Promise.all([this.#watch?.close(), this.#running]).then(() => undefined);
    this.#state = { kind: "closed", done };
    return done;
  }

  #isOpen(): boolean {
    return this.#state.kind !== "closed";
  }

  async #lookAgain(): Promise<void> {
    if (this.#state.kind !== "running") return;
    try {
      await this.#look();
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== this.#scanError)
        this.#log.warn({ reason }, "contracts cannot be read, the last ones stay");
      this.#scanError = reason;
      this.#retry();
    }
  }

  async #look(): Promise<void> {
    const root = await resolveDirectory(this.#options.directory);
    // A directory that was away is watched anew: what the old watcher still follows is not certain.
    if (this.#watch?.root !== root || this.#scanError !== undefined) await this.#follow(root);
    const scan = await this.#scanner.scan();
    if (this.#state.kind !== "starting" && this.#state.kind !== "running") return; // (5)
    this.#currentAt = this.#clock.now();
    this.#scanError = undefined;
    this.#dependencies = scan.dependencies;
    const { tools, change, entries } = foldScan(this.#tools, scan);
    this.#logOutcomes(entries);
    this.#tools = tools;
    this.#entries = entries;
    const isChange = change.put.length > 0 || change.remove.length > 0;
    if (isChange) {
      this.#log.info({ put: change.put.map(({ key }) => key), removed: change.remove }, "contracts changed");
      this.#state.apply(change);
    }
    const isBlind = this.#watchError !== undefined || entries.some((entry) => unreadable.has(entry.code));
    if (isBlind) this.#retry();
  }

  async #follow(root: string): Promise<void> {
    if (this.#options.watch === false) return;
    await this.#watch?.close();
    this.#watchError = undefined;
    const watch = await watchFolder({
      directory: this.#options.directory,
      root,
      matters: (path) => basename(path) === nodeContractFile || this.#dependencies.has(path),
      onHint: () => this.#hint(),
      onError: (reason) => {
        if (this.#watchError === undefined) {
          this.#log.warn({ reason }, "contracts cannot be watched, they are read every second instead");
        }
        this.#watchError = `changes are not noticed at once: ${reason}`;
        this.#retry();
      },
    });
    this.#watch = watch;
    if (!this.#isOpen()) await watch.close();
  }

  /** (3) */
  #hint(): void {
    const now = this.#clock.now();
    this.#hintedAt ??= now;
    this.#schedule(Math.max(0, Math.min(settleMs, this.#hintedAt + maxSettleMs - now)));
  }

  #retry(): void {
    const isPlanned = this.#hintedAt !== undefined;
    if (this.#options.watch !== false && !isPlanned) this.#schedule(retryMs);
  }

  #schedule(milliseconds: number): void {
    if (!this.#isOpen()) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#hintedAt = undefined;
      void this.rescan();
    }, milliseconds);
  }

  #logOutcomes(entries: readonly LoadEntry[]): void {
    const known = new Map(this.#entries.map((entry) => [entry.path, entry]));
    for (const { path, outcome, reason } of entries) {
      const before = known.get(path);
      if (before?.outcome === outcome && before.reason === reason) continue;
      const fields = { contract: path, reason };
      if (outcome === "failed") this.#log.warn(fields, "a contract cannot be served");
      else if (outcome === "skipped") this.#log.info(fields, "a contract is no tool");
      else if (before?.outcome === "failed") this.#log.info({ contract: path }, "a contract is mended");
    }
  }
}
