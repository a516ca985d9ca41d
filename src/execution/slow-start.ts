/**
 * The share of an instance that has just joined others: little at first, as its caches are cold and its code is not yet
 * compiled, then more and more. Pure. Does not own: when an instance joined (`routes.ts`), how one is chosen (`picker.ts`).
 */
import { Picker, type Choice } from "./picker.ts";

/** Milliseconds from joining to the whole share. */
const rampMs = 30_000;
/** Share at first. */
const leastShare = 0.1;
/** Milliseconds for which one step of the ramp stays as it is, so that a picker serves many calls. */
const stepMs = 1000;

/** Of its full weight, 0.1..1. */
export const shareAt = (ageMs: number): number =>
  Math.min(1, leastShare + (1 - leastShare) * Math.max(0, ageMs / rampMs));

/** When each of the items that are not warm yet joined, in milliseconds of a monotonic clock. */
export type Joined<T> = ReadonlyMap<T, number>;

/** Those that are not warm at `now`. */
export const stillCold = <T>(joined: Joined<T>, now: number): Joined<T> =>
  new Map([...joined].filter(([, at]) => now - at < rampMs));

/** The pickers of one set of items while some of them warm up. */
export class Ramp<T extends Choice> {
  readonly #items: readonly T[];
  readonly #joined: Joined<T>;
  #step: { readonly picker: Picker<T>; readonly until: number } | undefined;

  constructor(items: readonly T[], joined: Joined<T>) {
    this.#items = items;
    this.#joined = joined;
  }

  /** Over items with the weights that they have now; undefined once all are warm. */
  pickerAt(now: number): Picker<T> | undefined {
    if (this.#step !== undefined && now < this.#step.until) return this.#step.picker;
    const cold = stillCold(this.#joined, now);
    if (cold.size === 0) return undefined;
    const items = this.#items.map((item) => {
      const at = cold.get(item);
      return at === undefined ? item : { ...item, weight: item.weight * shareAt(now - at) };
    });
    const picker = new Picker(items);
    this.#step = { picker, until: now + stepMs };
    return picker;
  }
}
