/**
 * What goes on at the same time, and can be held up. Owns: running actions one after the other, each kind beside the
 * others, and stopping all of them at a moment when none is half done. Does not own: what they do.
 */
export class Gate {
  #closed: PromiseWithResolvers<undefined> | undefined;
  #active = 0;
  #idle: (() => void) | undefined;
  #isOver = false;

  /**
   * Does it again and again until `end`. Resolves then; what an action throws goes to `failed`.
   *
   * @param failed is told what went wrong; the action goes on
   */
  async repeat(action: () => Promise<void>, failed: (error: unknown) => void): Promise<void> {
    for (;;) {
      while (this.#closed !== undefined) await this.#closed.promise;
      if (this.#isOver) return;
      this.#active += 1;
      try {
        await action();
      } catch (error) {
        failed(error);
      }
      this.#active -= 1;
      if (this.#active === 0) this.#idle?.();
    }
  }

  /** Resolves when nothing is under way; nothing begins until `open`. */
  async close(): Promise<void> {
    this.#closed ??= Promise.withResolvers<undefined>();
    if (this.#active > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  open(): void {
    this.#closed?.resolve(undefined);
    this.#closed = undefined;
  }

  /** Nothing begins any more. */
  end(): void {
    this.#isOver = true;
    this.open();
  }

  get isClosing(): boolean {
    return this.#closed !== undefined;
  }
}
