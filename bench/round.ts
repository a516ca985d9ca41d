/** One round of load against one gateway, and what it cost that gateway. Owns the count of wrong answers. */
import type { Job, Outcome } from "./load.ts";
import type { Child } from "./processes.ts";
import type { Figures } from "./table.ts";

/** A gateway that is measured, or that one is compared with. */
export interface Target {
  readonly child: Child;
  readonly url: string;
}

export class Rounds {
  readonly #load: Child;
  #wrong = 0;

  /** @param load runs `load.ts` */
  constructor(load: Child) {
    this.#load = load;
  }

  /** Answers that were wrong, in all rounds. The first of each round is on stderr. */
  get wrong(): number {
    return this.#wrong;
  }

  /** The gateway's CPU time is read on both sides of the calls that are counted. */
  async run({ child, url }: Target, job: Omit<Job, "url">): Promise<Figures> {
    await this.#load.ask({ ...job, url });
    const before = (await child.usage()).cpu;
    const outcome = await this.#load.ask<Outcome>("go");
    const cpu = (await child.usage()).cpu - before;
    this.count(outcome, url);
    return {
      perSecond: outcome.calls / outcome.seconds,
      cpuPerCall: cpu / outcome.calls,
      p50Ms: outcome.p50Ms,
      p99Ms: outcome.p99Ms,
    };
  }

  /** Takes in the wrong answers of a job that was run elsewhere. */
  count({ wrong, firstWrong }: Outcome, url: string): void {
    this.#wrong += wrong;
    if (firstWrong === undefined) return;
    console.error(`${wrong} wrong answers from ${url}, the first:\n${firstWrong}\n`);
  }
}
