/**
 * What a running tool tells its client: progress and log lines. Owns their order and how many go out. Does not own:
 * which levels a client wants (the SDK).
 *
 * 1. Nothing about a call follows its answer or its cancellation (MCP, utilities/progress and cancellation).
 * 2. What goes out is bounded, since each notification is held until the client has read it. Of progress beyond the
 *    budget the latest is kept, of log lines the number.
 * 3. No timers: what is kept goes out with the next event that finds room, else just before the answer.
 */
import type { ServerContext } from "@modelcontextprotocol/server";
import type { Clock } from "../core/clock.ts";
import type { JsonValue } from "../core/json.ts";
import type { Progress, ToolLogLevel } from "../tools/tool.ts";

/** Notifications of a call at once: more than any tool reports for people; about 5 MB where nobody reads them. */
const burst = 1_000;
/** Notifications of a call a second from then on: faster than a progress bar is drawn. */
const perSecond = 100;
/** On top of the burst, for what a flood of lesser lines must not hide. */
const reserve = 100;

const severeLevels: ReadonlySet<ToolLogLevel> = new Set([
  "warning",
  "error",
  "critical",
  "alert",
  "emergency",
]);

interface ProgressParams {
  readonly progressToken: string | number;
  readonly progress: number;
  readonly total?: number;
  readonly message?: string;
}

export class Notices {
  readonly #context: ServerContext;
  readonly #tool: string;
  readonly #budget: Budget;
  #isOver = false;
  #progress = -Infinity;
  /** The latest progress, where there was no room for it. */
  #held: ProgressParams | undefined;
  #dropped = 0;

  constructor(context: ServerContext, tool: string, clock: Clock) {
    this.#context = context;
    this.#tool = tool;
    this.#budget = new Budget(clock);
  }

  /** Progress that does not increase is left out, as the protocol demands. */
  progress(progressToken: string | number, { done, total, message }: Progress): void {
    if (this.#isEnded() || !Number.isFinite(done) || done <= this.#progress) return;
    this.#progress = done;
    this.#held = {
      progressToken,
      progress: done,
      ...(total !== undefined && Number.isFinite(total) && { total }),
      ...(message !== undefined && { message }),
    };
    if (this.#budget.take(reserve)) this.#sendHeld();
  }

  log(level: ToolLogLevel, data: JsonValue): void {
    if (this.#isEnded()) return;
    if (this.#held !== undefined && this.#budget.take(reserve)) this.#sendHeld();
    if (this.#budget.take(severeLevels.has(level) ? 0 : reserve)) this.#sendLine(level, data);
    else this.#dropped += 1;
  }

  /** To be called just before the answer. (1) */
  end(): void {
    if (!this.#isEnded()) {
      this.#sendHeld();
      if (this.#dropped > 0) {
        const lines = this.#dropped === 1 ? "1 log line" : `${this.#dropped} log lines`;
        this.#sendLine(
          "warning",
          `${lines} of this call left out: it logged faster than ${perSecond} a second`,
        );
      }
    }
    this.#isOver = true;
  }

  #sendHeld(): void {
    const params = this.#held;
    if (params === undefined) return;
    this.#held = undefined;
    this.#context.mcpReq
      .notify({ method: "notifications/progress", params: { ...params } })
      .catch(ignoreClosed);
  }

  #sendLine(level: ToolLogLevel, data: JsonValue): void {
    this.#context.mcpReq.log(level, data, this.#tool).catch(ignoreClosed);
  }

  #isEnded(): boolean {
    return this.#isOver || this.#context.mcpReq.signal.aborted;
  }
}

/** A token bucket, filled as it is asked. */
class Budget {
  readonly #clock: Clock;
  #tokens = burst + reserve;
  #filledAt: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#filledAt = clock.now();
  }

  /** Takes a token, if `spared` are left then. */
  take(spared: number): boolean {
    const now = this.#clock.now();
    const gained = ((now - this.#filledAt) / 1000) * perSecond;
    this.#tokens = Math.min(burst + reserve, this.#tokens + gained);
    this.#filledAt = now;
    if (this.#tokens < spared + 1) return false;
    this.#tokens -= 1;
    return true;
  }
}

/** A notification for a client that has gone is not an error. */
const ignoreClosed = (): undefined => undefined;
