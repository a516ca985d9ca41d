/** A set of texts that remembers a limited number of them: those used longest ago are forgotten first. */
export class RecentSet {
  readonly #limit: number;
  /** The one used longest ago is first. */
  readonly #texts = new Set<string>();

  /** @param limit texts that are remembered */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Asking is a use. */
  has(text: string): boolean {
    const isKnown = this.#texts.delete(text);
    if (isKnown) this.#texts.add(text);
    return isKnown;
  }

  add(text: string): void {
    this.#texts.delete(text);
    this.#texts.add(text);
    if (this.#texts.size <= this.#limit) return;
    const [oldest] = this.#texts;
    if (oldest !== undefined) this.#texts.delete(oldest);
  }

  delete(text: string): void {
    this.#texts.delete(text);
  }
}
