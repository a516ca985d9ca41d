/**
 * Tools from Consul. Owns: which answers are followed, what each of them leads to, and how the source is doing. Does not
 * own: the rules of waiting (`consul-wait.ts`), what a row means (`consul-instance.ts`), or what records make of a tool.
 *
 * 1. Two waiting queries wake it, whatever the number of services: `catalog/services` and the checks that do not pass.
 *    A third brings the contracts. What they show to have changed is read first; then everything is looked over.
 * 2. Only `health/service/<name>` says what an instance is: the other answers say what to read.
 * 3. What cannot be reached is not gone: records leave only by an answer in which they are not.
 * 4. No node at all is no answer but a refusal: a Consul that may be read shows at least its own. So what a token has
 *    lost sight of is not gone, neither are a service and a contract of which Consul says that it hides them.
 * 5. After `close` nothing is applied.
 * 6. Contracts that cannot be had, while Consul answers otherwise, keep no tool from being served.
 * 7. A Consul that has just begun answers from a half-read log. What an answer lacks of what is known, or shows as it was
 *    before, is asked for once more, consistently, and only that counts.
 */
import { sleep } from "../core/abort.ts";
import { type Clock, monotonicClock } from "../core/clock.ts";
import { InfraAuthenticationError, messageOf, RuntimeHostError } from "../core/errors.ts";
import { type Logger, silentLogger } from "../core/log.ts";
import type { Instance } from "../tools/instance.ts";
import type { ApplyChange, SourceStatus, ToolSource } from "../tools/source.ts";
import type { ConsulCheck, ConsulKey, ConsulServices } from "./consul-answers.ts";
import {
  type ConsulAnswer,
  type ConsulClient,
  type ConsulOptions,
  type ConsulRead,
  isOutage,
  openConsul,
} from "./consul-client.ts";
import { idFilter } from "./consul-filter.ts";
import { nodeContractPrefix } from "./consul-instance.ts";
import { ConsulReads } from "./consul-reads.ts";
import { type ConsulChange, type ConsulProblem, ConsulState, outsideKeys } from "./consul-state.ts";
import { ConsulSweep, inParallel, visibleNodes } from "./consul-sweep.ts";
import { Troubles } from "./consul-troubles.ts";
import { follow, type News, retryMs } from "./consul-wait.ts";
import { claimedNames, enabledTag } from "./tags.ts";

export interface ConsulSourceOptions {
  readonly consul: ConsulOptions;
  /** Default: nothing is logged. */
  readonly log?: Logger;
  readonly clock?: Clock;
}

/** More services than this that one wake shows to have changed are no reason to let the next wake's wait. */
const maxUrgent = 64;
const defaultReads = 32;
/**
 * Those that pass are not asked for: with 5,000 services their answer takes 35 ms and 2.7 MB, this one 3 ms. It wakes
 * all the same on every change of a check, and what matters of one is whether it passes.
 */
const failingChecks = 'Status != "passing"';

const answers = ["services", "checks", "contracts"] as const;
type AnswerName = (typeof answers)[number];

interface Open {
  readonly client: ConsulClient;
  readonly reads: ConsulReads;
  readonly sweep: ConsulSweep;
  readonly follows: Promise<unknown>;
  readonly apply: ApplyChange;
}

type State =
  | { readonly kind: "new" | "opening" }
  | ({ readonly kind: "starting" | "running" } & Open)
  | { readonly kind: "closed"; readonly done: Promise<void> };

export class ConsulSource implements ToolSource {
  readonly name = "consul";
  readonly kind = "consul";
  readonly #options: ConsulSourceOptions;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #troubles: Troubles;
  readonly #known = new ConsulState();
  readonly #abort = new AbortController();
  /** Resolves with the first state, the first failure or the close, whichever is first. */
  readonly #attempted = Promise.withResolvers<undefined>();
  /** Resolves with the first state or the close. */
  readonly #settled = Promise.withResolvers<undefined>();
  readonly #missing = new Set<AnswerName>(answers);
  #state: State = { kind: "new" };
  #currentAt: number;
  /** Contracts that could not be looked up by their key. */
  readonly #refused = new Set<string>();
  /** Tags of each service that has a tagged instance. */
  #tagged: ReadonlyMap<string, readonly string[]> = new Map();
  /** Tagged services whose name Consul refuses in a path, by that name. */
  #unaskable: ReadonlyMap<string, ConsulProblem> = new Map();

  constructor(options: ConsulSourceOptions) {
    this.#options = options;
    this.#log = (options.log ?? silentLogger).child({ source: this.name });
    this.#clock = options.clock ?? monotonicClock;
    this.#troubles = new Troubles(this.#log, this.#clock);
    this.#currentAt = this.#clock.now();
  }

  /**
   * Resolves once the first state has been applied as one change, or the first attempt at it has failed: then `status()`
   * says "starting" and why, and it goes on trying for ever.
   *
   * @throws ProtocolConfigurationError where the file of `ca` cannot be read
   */
  async start(apply: ApplyChange): Promise<void> {
    if (this.#state.kind !== "new") throw new RuntimeHostError("A Consul source can be started only once.");
    this.#state = { kind: "opening" };
    const client = await openConsul(this.#options.consul);
    if (this.#isClosed()) {
      client.close();
      return;
    }
    const { signal } = this.#abort;
    const reads = new ConsulReads({
      read: (name) => this.#readService(client, name),
      isOutage,
      onFailure: (name, error, isOut) => {
        this.#troubles.set(isOut ? "reads" : `service ${name}`, messageOf(error), isOut);
        if (!isOut && reads.allFail(this.#tagged)) this.#troubles.set("reads", messageOf(error), true);
        if (isOut) this.#attempted.resolve(undefined);
      },
      onSuccess: (name) => this.#troubles.clear("reads", `service ${name}`),
      limit: this.#options.consul.maxSockets ?? defaultReads,
    });
    const sweep = new ConsulSweep({
      client,
      state: this.#known,
      names: () => [...new Set([...this.#tagged.keys(), ...this.#known.serviceNames()])],
      read: (names) => this.#read(names),
      readContract: (key) =>
        this.#readContract(client, key, (found) => this.#apply(this.#known.putContract(key, found))),
      onFailure: (error) => this.#fail("sweep", error),
      onSuccess: () => this.#troubles.clear("sweep"),
      clock: this.#clock,
      signal,
    });
    const follows = Promise.all([
      this.#follow(
        "services",
        (read) => askServices(client, read),
        (data, news) => this.#onServices(data, news),
      ),
      this.#follow(
        "checks",
        (read) => client.checks({ ...read, filter: failingChecks }),
        (data) => this.#onChecks(data),
      ),
      this.#follow(
        "contracts",
        (read) => this.#askContracts(client, read),
        (data, news) => this.#onContracts(data, news),
      ),
    ]);
    this.#state = { kind: "starting", client, reads, sweep, follows, apply };
    await this.#attempted.promise;
  }

  status(): SourceStatus {
    const { kind } = this.#state;
    const since = this.#troubles.outageSince;
    const lastError = this.#troubles.text ?? this.#contractError();
    return {
      name: this.name,
      kind: this.kind,
      state:
        kind === "closed"
          ? "closed"
          : kind !== "running"
            ? "starting"
            : since === undefined
              ? "ready"
              : "degraded",
      ageSeconds: Math.max(0, this.#clock.now() - this.#lastCurrent()) / 1000,
      ...(lastError !== undefined && { lastError }),
    };
  }

  /** What Consul has said that cannot be used, or not as it stands. */
  report(): readonly ConsulProblem[] {
    return [...this.#unaskable.values(), ...this.#known.problems()];
  }

  /**
   * What Consul says of an instance, tagged or not; it is applied, and followed from then on. Undefined: Consul does not
   * know it. A Consul that cannot be reached, or was not yet, is waited for.
   *
   * @param serviceName where it is looked for first
   * @throws OnexError where Consul refuses to say, and at the close
   */
  async lookUp(serviceId: string, serviceName: string | undefined): Promise<Instance | undefined> {
    await this.#settled.promise;
    const open = this.#state;
    if (open.kind !== "running") throw new RuntimeHostError("The Consul source is not running.");
    this.#known.ask(serviceId);
    for (let failures = 1; ; failures += 1) {
      try {
        const found =
          this.#known.instance(serviceId) ?? (await this.#search(open.client, serviceId, serviceName));
        if (found === undefined) this.#known.dismiss(serviceId);
        return found;
      } catch (error) {
        const isOver = this.#isClosed() || error instanceof InfraAuthenticationError;
        if (isOver || !isOutage(error)) {
          this.#known.dismiss(serviceId);
          throw error;
        }
      }
      await sleep(retryMs(failures), this.#abort.signal);
    }
  }

  /** What is registered under this id is not asked for any more. */
  dismiss(serviceId: string): void {
    this.#known.dismiss(serviceId);
  }

  async #search(
    client: ConsulClient,
    serviceId: string,
    serviceName: string | undefined,
  ): Promise<Instance | undefined> {
    if (serviceName !== undefined && isAskable(serviceName)) {
      await this.#readService(client, serviceName);
      const found = this.#known.instance(serviceId);
      if (found !== undefined) return found;
    }
    // (7)
    for (const name of await this.#servicesOf(client, serviceId))
      await this.#readService(client, name, { consistent: true });
    return this.#known.instance(serviceId);
  }

  /** Ends what is under way at once. What was applied stays. Idempotent. (5) */
  close(): Promise<void> {
    if (this.#state.kind === "closed") return this.#state.done;
    const open = this.#state;
    this.#currentAt = this.#lastCurrent();
    this.#abort.abort();
    const done = this.#end(open);
    this.#state = { kind: "closed", done };
    this.#attempted.resolve(undefined);
    this.#settled.resolve(undefined);
    return done;
  }

  async #end(open: State): Promise<void> {
    if (open.kind !== "starting" && open.kind !== "running") return;
    open.reads.close();
    open.client.close();
    await Promise.all([open.follows, open.sweep.close()]);
  }

  #isClosed(): boolean {
    return this.#state.kind === "closed";
  }

  /** When the state was last known to be Consul's present one, by the clock. */
  #lastCurrent(): number {
    return this.#state.kind === "running"
      ? (this.#troubles.outageSince ?? this.#clock.now())
      : this.#currentAt;
  }

  #contractError(): string | undefined {
    const [problem] = this.#known.contracts.problems();
    return problem && `contract ${problem.key}: ${problem.reason}`;
  }

  #follow<T>(
    name: AnswerName,
    ask: (read: ConsulRead) => Promise<ConsulAnswer<T>>,
    onAnswer: (data: T, news: News) => void,
  ): Promise<void> {
    return follow({
      ask,
      signal: this.#abort.signal,
      onAnswer: (data, news) => {
        if (this.#isClosed()) return;
        onAnswer(data, news);
        if (news.isFiltered) this.#troubles.set(`${name} hidden`, hidden(name), false);
        else this.#troubles.clear(`${name} hidden`);
        this.#has(name);
      },
      onReached: (hasIndex) => {
        this.#troubles.clear(name);
        if (hasIndex) this.#troubles.clear(`${name} index`);
        else this.#troubles.set(`${name} index`, unindexed(name), false);
      },
      onFailure: (error) => {
        // A token that may not read contracts may be meant so. (6)
        const isRefused = error instanceof InfraAuthenticationError || !isOutage(error);
        const isDispensable = name === "contracts" && isRefused;
        this.#troubles.set(name, messageOf(error), !isDispensable);
        if (isDispensable) this.#has(name);
        else this.#attempted.resolve(undefined);
      },
    });
  }

  #fail(place: string, error: unknown): void {
    this.#troubles.set(place, messageOf(error), isOutage(error));
    if (isOutage(error)) this.#attempted.resolve(undefined);
  }

  /** The first state is read when all three answers have come once: from then on none of its changes is missed. */
  #has(name: AnswerName): void {
    if (!this.#missing.delete(name) || this.#missing.size > 0) return;
    void this.#readFirst();
  }

  async #readFirst(): Promise<void> {
    for (let attempts = 1; ; attempts += 1) {
      await this.#read(this.#tagged.keys());
      if (this.#state.kind !== "starting") return;
      if (!this.#state.reads.allFail(this.#tagged)) break; // (3)
      this.#attempted.resolve(undefined);
      await sleep(retryMs(attempts), this.#abort.signal).catch(() => undefined);
    }
    const put = this.#known.records();
    this.#log.info({ instances: put.length, services: this.#tagged.size }, "Consul's state is known");
    this.#state = { ...this.#state, kind: "running" };
    this.#state.apply({ put, remove: [] });
    this.#attempted.resolve(undefined);
    this.#settled.resolve(undefined);
  }

  #onServices(services: ConsulServices, { isReset }: News): void {
    const before = this.#tagged;
    const tagged = new Map<string, readonly string[]>();
    const unaskable = new Map<string, ConsulProblem>();
    for (const [name, tags] of Object.entries(services)) {
      if (!tags.includes(enabledTag)) continue;
      if (isAskable(name)) tagged.set(name, tags);
      else unaskable.set(name, this.#unaskable.get(name) ?? this.#cannotAsk(name, tags));
    }
    this.#tagged = tagged;
    this.#unaskable = unaskable;
    if (this.#missing.size > 0) return;
    if (isReset) this.#known.startEra();
    const changed: string[] = [];
    for (const [name, tags] of tagged) if (!sameTags(tags, before.get(name))) changed.push(name);
    const gone = [...before.keys()].filter((name) => !tagged.has(name));
    const shown = [...changed, ...gone];
    void this.#read(shown);
    // Indexes that have begun anew may by chance be what they were.
    if (isReset) void this.#read([...tagged.keys(), ...this.#known.serviceNames()]);
    if (this.#state.kind === "starting" || this.#state.kind === "running")
      this.#state.sweep.wake(shown.length > 0 ? "soon" : "now");
  }

  #cannotAsk(name: string, tags: readonly string[]): ConsulProblem {
    const reason = `Consul answers for no service of the name ${JSON.stringify(name)}: register it under another`;
    this.#log.warn({ service: name, reason }, "A service in Consul cannot be read");
    return { key: name, reason, names: claimedNames(tags) };
  }

  #onChecks(checks: readonly ConsulCheck[]): void {
    if (this.#missing.size > 0) return;
    // One that is tagged only now may be told of here first.
    const isOurs = ({ ServiceName, ServiceTags }: ConsulCheck): boolean =>
      this.#tagged.has(ServiceName) ||
      this.#known.hasService(ServiceName) ||
      ServiceTags.includes(enabledTag);
    void this.#read(this.#known.checkedOtherwise(checks, isOurs));
  }

  #onContracts(keys: readonly ConsulKey[], { isFiltered }: News): void {
    this.#apply(this.#known.putContracts(keys, isFiltered));
    this.#forgetRefused();
    if (isFiltered && this.#state.kind === "running") this.#state.sweep.wake("now"); // (4)
  }

  async #read(names: Iterable<string>): Promise<void> {
    const list = [...names].filter(isAskable);
    if (this.#state.kind !== "starting" && this.#state.kind !== "running") return;
    await this.#state.reads.add(list, list.length > maxUrgent ? "patient" : "urgent");
  }

  /** (7) */
  async #askContracts(client: ConsulClient, read: ConsulRead): Promise<ConsulAnswer<readonly ConsulKey[]>> {
    const answer = await client.keys(nodeContractPrefix, read);
    if (read.consistent === true || !this.#known.takesContractBack(answer.data)) return answer;
    const { signal } = this.#abort;
    return await client.keys(nodeContractPrefix, { signal, consistent: true });
  }

  /** (2) */
  async #readService(
    client: ConsulClient,
    name: string,
    { consistent = false }: Pick<ConsulRead, "consistent"> = {},
  ): Promise<void> {
    const { signal } = this.#abort;
    const read = this.#known.beginRead();
    try {
      let answer = await client.instances(name, { signal, consistent });
      const isBehind =
        this.#known.takesBack(name, answer.data) || (answer.data.length === 0 && this.#tagged.has(name));
      if (isBehind && !consistent) answer = await client.instances(name, { signal, consistent: true }); // (7)
      const { data, isFiltered } = answer;
      if (data.length === 0) {
        // (4); without a token Consul does not say that it hides something
        await visibleNodes(client, { signal, consistent: true });
        if (isFiltered) return;
      }
      const contracts = new Map<string, ConsulKey | undefined>();
      for (const key of outsideKeys(data))
        await this.#readContract(client, key, (found) => contracts.set(key, found));
      this.#apply(this.#known.putService(name, data, read, contracts));
    } finally {
      this.#known.endRead(read);
    }
    this.#forgetRefused();
  }

  /** A key that may not be read is the trouble of the instances that name it; what is known of it stays. */
  async #readContract(
    client: ConsulClient,
    key: string,
    take: (found: ConsulKey | undefined) => void,
  ): Promise<void> {
    const place = `contract ${key}`;
    try {
      const { signal } = this.#abort;
      let found = await client.readKey(key, signal);
      if (found === undefined && this.#known.contracts.has(key))
        found = await client.readKey(key, signal, { consistent: true }); // (7)
      take(found);
      this.#troubles.clear(place);
      this.#refused.delete(key);
    } catch (error) {
      if (isOutage(error) && !(error instanceof InfraAuthenticationError)) throw error;
      this.#troubles.set(place, messageOf(error), false);
      this.#refused.add(key);
    }
  }

  /** What is not looked up any more is no trouble. */
  #forgetRefused(): void {
    if (this.#refused.size === 0) return;
    const needed = this.#known.singleKeys();
    for (const key of this.#refused) {
      if (needed.has(key)) continue;
      this.#refused.delete(key);
      this.#troubles.clear(`contract ${key}`);
    }
  }

  /** Names of the services that have an instance with this id. */
  async #servicesOf(client: ConsulClient, serviceId: string): Promise<readonly string[]> {
    const { signal } = this.#abort;
    const read = { signal, consistent: true };
    const nodes = await visibleNodes(client, read);
    const found = new Set<string>();
    const filter = idFilter([serviceId]);
    await inParallel(nodes, async ({ Node }) => {
      const { data } = await client.nodeServices(Node, { ...read, ...(filter !== undefined && { filter }) });
      for (const { ID, Service } of data) if (ID === serviceId) found.add(Service);
    });
    return [...found];
  }

  /** While the first state is not whole nothing is applied: it comes as one change. */
  #apply(change: ConsulChange): void {
    this.#known.contracts.tell(this.#log);
    if (this.#state.kind !== "running" || change.put.length + change.remove.length === 0) return; // (5)
    this.#log.info(
      { put: change.put.map(({ key }) => key), removed: change.remove },
      "Consul's services changed",
    );
    this.#state.apply(change);
  }
}

/** The others are lost on the way: paths lead elsewhere by them, or Consul refuses them. */
const isAskable = (name: string): boolean => name !== "." && name !== ".." && !/[\r\n\0]/.test(name);

/** Consul gives the tags of a service in another order every time, none twice. Sorting thousands of lists takes 2 ms. */
const sameTags = (a: readonly string[], b: readonly string[] | undefined): boolean =>
  a.length === b?.length && a.every((tag, at) => tag === b[at] || b.includes(tag));

const hidden = (name: AnswerName): string =>
  `Consul leaves out of the ${name} what consul_token may not read: give it node:read, service:read and key:read`;

const unindexed = (name: AnswerName): string =>
  `Consul answers for the ${name} without X-Consul-Index: they are asked for every few seconds; let what stands before Consul pass its headers on`;

/** (4) */
async function askServices(client: ConsulClient, read: ConsulRead): Promise<ConsulAnswer<ConsulServices>> {
  const answer = await client.services(read);
  if (Object.keys(answer.data).length === 0)
    await visibleNodes(client, { ...(read.signal && { signal: read.signal }), consistent: true });
  return answer;
}
