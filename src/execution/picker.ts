/**
 * Which of a tool's instances gets a call: the one with the least outstanding calls of two that are drawn at random by
 * weight. Pure: the load, the dice and who may be chosen at all are handed in. Does not own: breakers, pools, attempts.
 */

export interface Choice {
  /** Share of the calls, above 0. */
  readonly weight: number;
}

export interface Terms<T> {
  /** Calls that the item has to do now. */
  readonly load: (item: T) => number;
  /** Whether it may be chosen. */
  readonly allows: (item: T) => boolean;
  /** As `Math.random`. */
  readonly random: () => number;
}

/** Immutable. */
export class Picker<T extends Choice> {
  readonly items: readonly T[];
  /** The weights of the items up to and with each. */
  readonly #sums: readonly number[];

  constructor(items: readonly T[]) {
    this.items = items;
    let sum = 0;
    this.#sums = items.map(({ weight }) => (sum += weight));
  }

  /** Undefined where none is allowed. */
  pick(terms: Terms<T>): T | undefined {
    const [only] = this.items;
    if (this.items.length < 2) return only !== undefined && terms.allows(only) ? only : undefined;
    const first = this.#draw(terms.random, undefined);
    const second = this.#draw(terms.random, first);
    const [a, b] = [this.items[first], this.items[second]];
    if (a !== undefined && b !== undefined && terms.allows(a) && terms.allows(b)) {
      // Equal ones, as where nothing is under way: the dice have chosen by weight.
      return terms.load(b) / b.weight < terms.load(a) / a.weight ? b : a;
    }
    const allowed = this.items.filter(terms.allows);
    return new Picker(allowed).pick({ ...terms, allows: () => true });
  }

  /** The index of an item, by weight; never that of `except`. */
  #draw(random: () => number, except: number | undefined): number {
    const last = this.items.length - 1;
    const total = this.#sums[last] ?? 0;
    const left = except === undefined ? 0 : (this.items[except]?.weight ?? 0);
    let point = random() * (total - left);
    if (except !== undefined && point >= (this.#sums[except] ?? 0) - left) point += left;
    let low = 0;
    let high = last;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#sums[middle] ?? 0) > point) high = middle;
      else low = middle + 1;
    }
    // Rounding may end on the one that is left out.
    return low === except ? (low === last ? low - 1 : low + 1) : low;
  }
}
