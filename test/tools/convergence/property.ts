/**
 * The one property: whatever the order in which a history is told, the snapshot is what the present truth makes it.
 *
 * A failure names the seed and the path of its shortest history: given to `fc.check` they bring it back.
 */
import fc from "fast-check";
import { type History, history, schedule } from "./history.ts";
import { canonical, type Expected, expectedSnapshot } from "./reference.ts";
import { type Modules, play } from "./system.ts";
import { feedsOf } from "./world.ts";

/** A history, and two orders in which it is told. */
export type Case = [History, readonly number[], readonly number[]];

export class WrongSnapshot extends Error {
  override name = "WrongSnapshot";

  constructor(where: string, actual: Expected, expected: Expected) {
    super(`${where}\n  expected ${textOf(expected)}\n  got      ${textOf(actual)}`);
  }
}

/**
 * Of the parts that are given: whenever all is quiet the snapshot is that of the reference, and once nothing is silenced
 * any more it is the same in both orders.
 */
export function convergence(parts: Modules): fc.IProperty<Case> {
  return fc.property(history, schedule, schedule, (past, ...orders) => {
    const feeds = feedsOf(past);
    const ends = orders.map((order, which) => {
      const quiet = play(parts, past, feeds, order);
      for (const [at, { actual, truth }] of quiet.entries())
        same(`order ${which + 1}, quiet point ${at}`, actual, expectedSnapshot(truth));
      return quiet.at(-1)!.actual;
    });
    same("the end of order 2, expected that of order 1", ends[1]!, ends[0]!);
  });
}

/** What failed, with the history as lines. */
export const reportOf = (details: fc.RunDetails<Case>): string =>
  `${fc.defaultReportMessage(details)}\n${String(details.errorInstance)}`;

function same(where: string, actual: Expected, expected: Expected): void {
  if (canonical(actual) !== canonical(expected)) throw new WrongSnapshot(where, actual, expected);
}

const textOf = ({ served, withheld }: Expected): string =>
  [...served.map((tool) => canonical(tool)), `withheld ${JSON.stringify(withheld)}`].join("\n           ");
