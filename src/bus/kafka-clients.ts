/**
 * A client of the library that many use at once, and another one after a failure that spoiled it, or when it is
 * retired. Owns: which client is used next, and when one is closed. Does not own: what a client is used for.
 *
 * 1. A use that fails ends no other: a spoiled or retired client is used no more, and closed once nobody uses it.
 */
interface Entry<T> {
  readonly client: T;
  users: number;
}

export class KafkaClients<T extends { readonly link: { cut(): void } }> {
  readonly #connect: () => T;
  /** Whether a client with which this happened is of no more use. */
  readonly #isSpoiled: (thrown: unknown) => boolean;
  readonly #open = new Set<Entry<T>>();
  #current: Entry<T> | undefined;

  constructor(connect: () => T, isSpoiled: (thrown: unknown) => boolean) {
    this.#connect = connect;
    this.#isSpoiled = isSpoiled;
  }

  /** Those that are not closed, spoiled ones among them. */
  get open(): readonly T[] {
    return [...this.#open].map(({ client }) => client);
  }

  async use<R>(run: (client: T) => Promise<R>): Promise<R> {
    const entry = (this.#current ??= this.#add());
    entry.users += 1;
    try {
      return await run(entry.client);
    } catch (thrown) {
      if (this.#isSpoiled(thrown)) this.retire(entry.client);
      throw thrown;
    } finally {
      entry.users -= 1;
      if (this.#current !== entry && entry.users === 0) this.#close(entry); // (1)
    }
  }

  /** Uses the client no more: who comes next gets another one. (1) */
  retire(client: T): void {
    if (this.#current?.client === client) this.#current = undefined;
  }

  /** Closes all of them at once. */
  cut(): void {
    this.#current = undefined;
    for (const entry of this.#open) this.#close(entry);
  }

  #add(): Entry<T> {
    const entry = { client: this.#connect(), users: 0 };
    this.#open.add(entry);
    return entry;
  }

  #close(entry: Entry<T>): void {
    if (this.#open.delete(entry)) entry.client.link.cut();
  }
}
