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
 */
import { type Clock, monotonicClock } from "../core/clock.ts";
import { InfraAuthenticationError, messageOf, RuntimeHostError } from "../core/errors.ts";
import { type Logger, silentLogger } from "../core/log.ts";
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
import { nodeContractPrefix } from "./consul-instance.ts";
import { ConsulReads } from "./consul-reads.ts";
import { type ConsulChange, type ConsulProblem, ConsulState, outsideKeys } from "./consul-state.ts";
import { ConsulSweep, inParallel, visibleNodes } from "./consul-sweep.ts";
import { Troubles } from "./consul-troubles.ts";
import { follow, type News } from "./consul-wait.ts";
import { enabledTag } from "./tags.ts";

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
  readonly #missing = new Set<AnswerName>(answers);
  #state: State = { kind: "new" };
  #currentAt: number;
  /** Contracts that could not be looked up by their key. */
  readonly #refused = new Set<string>();
  /** Tags of each service that has a tagged instance. */
  #tagged: ReadonlyMap<string, readonly string[]> = new Map();

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
      onFailure: (name, error) => this.#fail(isOutage(error) ? "reads" : `service ${name}`, error),
      onSuccess: (name) => this.#troubles.clear("reads", `service ${name}`),
      limit: this.#options.consul.maxSockets ?? defaultReads,
    });
    const sweep = new ConsulSweep({
      client,
      state: this.#known,
      names: () => [...new Set([...this.#tagged.keys(), ...this.#known.serviceNames()])],
      read: (names) => this.#read(names),
      readContract: (key) => this.#readContract(client, key),
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
        (read) => client.keys(nodeContractPrefix, read),
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
    return this.#known.problems();
  }

  /**
   * Looks for an instance now and applies what it finds. False: Consul knows none with this id that is tagged
   * `mcp-enabled`.
   *
   * @throws OnexError where Consul cannot say
   */
  async lookUp(serviceId: string, serviceName: string | undefined): Promise<boolean> {
    const open = this.#state;
    if (open.kind !== "starting" && open.kind !== "running")
      throw new RuntimeHostError("The Consul source is not running.");
    const names = serviceName === undefined ? await this.#servicesOf(open.client, serviceId) : [serviceName];
    for (const name of names) await this.#readService(open.client, name);
    return this.#known.records().some(({ instance }) => instance.serviceId === serviceId);
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
        // Tools can be served without contracts; a token that may not read them may be meant so.
        const isRefused = name === "contracts" && error instanceof InfraAuthenticationError;
        this.#troubles.set(name, messageOf(error), !isRefused);
        if (isRefused) this.#has(name);
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
    await this.#read(this.#tagged.keys());
    if (this.#state.kind !== "starting") return;
    const put = this.#known.records();
    this.#log.info({ instances: put.length, services: this.#tagged.size }, "Consul's state is known");
    this.#state = { ...this.#state, kind: "running" };
    this.#state.apply({ put, remove: [] });
    this.#attempted.resolve(undefined);
  }

  #onServices(services: ConsulServices, { isReset }: News): void {
    const before = this.#tagged;
    const tagged = new Map<string, readonly string[]>();
    for (const [name, tags] of Object.entries(services))
      if (tags.includes(enabledTag)) tagged.set(name, tags);
    this.#tagged = tagged;
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

  #onChecks(checks: readonly ConsulCheck[]): void {
    if (this.#missing.size > 0) return;
    // One that is tagged only now may be told of here first.
    const isOurs = ({ ServiceName, ServiceTags }: ConsulCheck): boolean =>
      this.#tagged.has(ServiceName) || ServiceTags.includes(enabledTag);
    void this.#read(this.#known.checkedOtherwise(checks, isOurs));
  }

  #onContracts(keys: readonly ConsulKey[], { isFiltered }: News): void {
    this.#apply(this.#known.putContracts(keys, isFiltered));
    this.#forgetRefused();
    if (isFiltered && this.#state.kind === "running") this.#state.sweep.wake("now"); // (4)
  }

  async #read(names: Iterable<string>): Promise<void> {
    const list = [...names];
    if (this.#state.kind !== "starting" && this.#state.kind !== "running") return;
    await this.#state.reads.add(list, list.length > maxUrgent ? "patient" : "urgent");
  }

  /** (2) */
  async #readService(client: ConsulClient, name: string): Promise<void> {
    const { signal } = this.#abort;
    const read = this.#known.beginRead();
    const { data, isFiltered } = await client.instances(name, { signal });
    if (data.length === 0) {
      await visibleNodes(client, signal); // (4); without a token Consul does not say that it hides something
      if (isFiltered) return;
    }
    for (const key of outsideKeys(data)) await this.#readContract(client, key);
    this.#apply(this.#known.putService(name, data, read));
    this.#forgetRefused();
  }

  /** A key that may not be read is the trouble of the instances that name it; what is known of it stays. */
  async #readContract(client: ConsulClient, key: string): Promise<void> {
    const place = `contract ${key}`;
    try {
      this.#apply(this.#known.putContract(key, await client.readKey(key, this.#abort.signal)));
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
    const known = this.#known.records().find(({ instance }) => instance.serviceId === serviceId);
    if (known?.instance.serviceName !== undefined) return [known.instance.serviceName];
    const nodes = await visibleNodes(client, signal);
    const found = new Set<string>();
    // Consul's filter language has no escapes: what cannot be quoted is looked for here, in all that a node has.
    const filter = serviceId.includes("`") ? {} : { filter: `ID == \`${serviceId}\`` };
    await inParallel(nodes, async ({ Node }) => {
      const { data } = await client.nodeServices(Node, { signal, ...filter });
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
  if (Object.keys(answer.data).length === 0) await visibleNodes(client, read.signal);
  return answer;
}
