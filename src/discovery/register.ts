/**
 * Keeps this runtime registered while it runs: its own service, and the services of its contracts' tools. Owns: trying
 * again, noticing what Consul has lost, following the contracts, and the end. Does not own: what is registered
 * (`register-service.ts`), or how Consul and Kafka are told (`register-publish.ts`).
 *
 * 1. A Consul or a Kafka that cannot be reached is no failure of the start: it is tried again for ever, with jittered
 *    backoff, said once in the log and shown in the status.
 * 2. The agent is asked every few seconds what it has; what it lost is registered again.
 * 3. Kafka never holds Consul up, nor Consul what goes to Kafka once a service is registered.
 * 4. `close` ends within its limit, whatever hangs, and never rejects. What may have been registered is taken out.
 * 5. The service of a tool that another running runtime of the same name keeps registered as well is left to that one:
 *    each first withdraws its own word, then looks at the others', so that the last one takes it out.
 */
import { sleep, within } from "../core/abort.ts";
import { backoffMs } from "../core/backoff.ts";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { Tool } from "../tools/tool.ts";
import {
  type ConsulClient,
  type ConsulOptions,
  type ConsulRegistration,
  openConsul,
} from "./consul-client.ts";
import { contractServices, type ContractFiles } from "./register-contracts.ts";
import {
  allOf,
  announceGone,
  announceTool,
  type ContractPlace,
  ensureTopic,
  type EventTarget,
  forEachOf,
  keptByOthers,
  type Publishing,
  type Registrant,
  registeredAt,
  registerTool,
  removeContracts,
  removeService,
} from "./register-publish.ts";
import {
  type Bound,
  planRegistration,
  type RegisteredTool,
  type RegisterOptions,
  type RegistrationPlan,
  selfAddress,
  ttlCheckId,
} from "./register-service.ts";

export interface RegistrationOptions {
  readonly consul: ConsulOptions;
  readonly register: RegisterOptions;
  /** Where the MCP server listens, its real port. */
  readonly bound: Bound;
  /** The contracts whose tools are registered as services. Absent: the runtime alone is registered. */
  readonly contracts?: ContractFiles;
  /** What is served now; tools that come from elsewhere are passed over. */
  readonly tools: () => readonly Tool[];
  /** Calls back when what is served has changed; the value ends it. */
  readonly onChange: (listener: () => void) => () => void;
  /** Whether the runtime is well: with a TTL check it says so to Consul. */
  readonly isReady: () => boolean;
  /** Absent: no events are sent. */
  readonly events?: EventTarget;
  readonly log: Logger;
}

export interface RegistrationStatus {
  readonly state: "starting" | "registered" | "degraded" | "closed";
  /** Of the runtime itself. */
  readonly serviceId: string;
  /** Services of tools. */
  readonly tools: number;
  readonly lastError?: string;
}

/** Milliseconds between looks at what the agent has. (2) */
const lookMs = 3000;
/** After a failure. (1) */
const retryPause = { firstMs: 250, maxMs: 5000 };
/** Milliseconds for changes of contracts that come together. */
const settleMs = 50;
/** Milliseconds that `close` takes at most. */
const closeMs = 2000;
/** Milliseconds that an event under way has, so that the one that takes it back comes after it. */
const announceEndMs = 300;
const maxSockets = 4;

export class Registration {
  readonly #options: RegistrationOptions;
  readonly #log: Logger;
  readonly #self: ReturnType<typeof selfAddress>;
  readonly #abort = new AbortController();
  #state: "new" | "open" | "closed" = "new";
  #consul: ConsulClient | undefined;
  #running: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;
  #stopListening: (() => void) | undefined;
  /** Ends the pause before the next look. */
  #wake: () => void = () => undefined;
  #isStale = true;
  #plan: RegistrationPlan | undefined;
  /** What Consul was told last, or may have been told, by service id. */
  readonly #told = new Map<string, string>();
  /** The tools' services among these. */
  readonly #tools = new Map<string, RegisteredTool>();
  /** Services that somebody else registers. */
  readonly #others = new Set<string>();
  /** What Kafka was told, or empty where that is not certain, by service id. */
  readonly #announced = new Map<string, string>();
  #announcing: Promise<void> = Promise.resolve();
  #isAnnouncing = false;
  #hasTopic = false;
  #wasRegistered = false;
  /** What is wrong, by who said so. */
  readonly #errors = new Map<"consul" | "kafka", string>();

  /** @throws ProtocolConfigurationError where nothing says at which address others reach this runtime */
  constructor(options: RegistrationOptions) {
    this.#options = options;
    this.#log = options.log.child({ part: "registration" });
    this.#self = selfAddress(options.register, options.bound);
  }

  /** Begins; it goes on by itself until `close`. (1) */
  start(): void {
    if (this.#state !== "new") return;
    this.#state = "open";
    this.#stopListening = this.#options.onChange(() => {
      this.#isStale = true;
      this.#wake();
    });
    this.#running = this.#run();
  }

  status(): RegistrationStatus {
    const lastError = [...this.#errors.values()].join("; ");
    return {
      state:
        this.#state === "closed"
          ? "closed"
          : lastError !== ""
            ? "degraded"
            : this.#wasRegistered
              ? "registered"
              : "starting",
      serviceId: this.#self.id,
      tools: this.#tools.size,
      ...(lastError !== "" && { lastError }),
    };
  }

  /**
   * Takes out of Consul what was registered, and says so on Kafka. Idempotent. (4)
   *
   * @param limitMs milliseconds that it takes at most. Default 2000
   */
  close(limitMs = closeMs): Promise<void> {
    this.#closing ??= this.#close(limitMs);
    return this.#closing;
  }

  async #run(): Promise<void> {
    const { ttlSeconds, check } = this.#options.register;
    const tickMs = check === "ttl" ? Math.min(lookMs, (ttlSeconds * 1000) / 3) : lookMs;
    for (let failures = 0; this.#state === "open";) {
      try {
        await this.#reconcile(this.#abort.signal);
        failures = 0;
        this.#succeeded();
        this.#announce();
        await this.#pause(tickMs);
      } catch (error) {
        if (this.#abort.signal.aborted) return;
        this.#failed("consul", error);
        failures += 1;
        await sleep(backoffMs(failures, retryPause), this.#abort.signal).catch(() => undefined);
      }
    }
  }

  /** Until the next look is due, or what is served has changed. */
  async #pause(milliseconds: number): Promise<void> {
    const { signal } = this.#abort;
    const woken = new Promise<"woken">((resolve) => {
      this.#wake = () => resolve("woken");
    });
    const end = new AbortController();
    const stop = AbortSignal.any([signal, end.signal]);
    try {
      if (this.#isStale) this.#wake();
      const outcome = await Promise.race([sleep(milliseconds, stop), woken]);
      if (outcome === "woken") await sleep(settleMs, signal);
    } catch {
      // It is closing.
    } finally {
      end.abort();
    }
  }

  #succeeded(): void {
    const { id, address, port } = this.#self;
    const facts = { service_id: id, address, port, tools: this.#tools.size };
    const wasWrong = this.#errors.delete("consul");
    if (!this.#wasRegistered) this.#log.info(facts, "registered in Consul");
    else if (wasWrong) this.#log.info(facts, "the registration in Consul is right again");
    this.#wasRegistered = true;
  }

  /** (1) */
  #failed(at: "consul" | "kafka", error: unknown): void {
    const message = messageOf(error);
    if (!this.#errors.has(at))
      this.#log.warn({ err: message }, "the registration is not as it should be; it is tried again");
    this.#errors.set(at, message);
  }

  /** Tells Kafka what it was not told yet, where it is not being told already. (3) */
  #announce(): void {
    if (this.#isAnnouncing || this.#options.events === undefined) return;
    this.#isAnnouncing = true;
    this.#announcing = this.#announceAll()
      .then(() => {
        if (this.#errors.delete("kafka")) this.#log.info({}, "the registration events are sent");
      })
      .catch((error: unknown) => {
        if (!this.#abort.signal.aborted) this.#failed("kafka", error);
      })
      .finally(() => {
        this.#isAnnouncing = false;
      });
  }

  async #announceAll(): Promise<void> {
    const publishing = await this.#publishing();
    const { events } = publishing;
    for (const [id, entry] of [...this.#tools]) {
      const text = this.#told.get(id);
      if (text === undefined || text === "" || this.#announced.get(id) === text) continue;
      if (events !== undefined && !this.#hasTopic) await ensureTopic(events, this.#abort.signal);
      this.#hasTopic = true;
      if (this.#state !== "open") return;
      // Before it is sent: nobody knows what became of an attempt that failed.
      this.#announced.set(id, "");
      await announceTool(publishing, entry);
      this.#announced.set(id, text);
    }
  }

  async #reconcile(signal: AbortSignal): Promise<void> {
    const plan = await this.#present();
    const publishing = await this.#publishing();
    const entries = new Map(plan.tools.map((entry) => [entry.registration.id, entry]));
    const wanted = [...(plan.self === undefined ? [] : [plan.self.id]), ...entries.keys()];
    const present = await registeredAt(publishing.consul, wanted, signal);
    // A word withdrawn is withdrawn before others' is looked at. (5)
    if (plan.self !== undefined)
      await this.#tellSelf(publishing, plan.self, present.get(plan.self.id), signal);
    await allOf([
      forEachOf(entries, ([id, entry]) => this.#tellTool(publishing, entry, present.get(id), signal)),
      this.#withdraw(
        publishing,
        [...this.#tools.keys()].filter((id) => !entries.has(id)),
        signal,
      ),
    ]);
  }

  /** What is to be registered now. */
  async #present(): Promise<RegistrationPlan> {
    if (!this.#isStale && this.#plan !== undefined) return this.#plan;
    this.#isStale = false;
    try {
      const { contracts, register, bound, tools } = this.#options;
      const readings = contracts === undefined ? [] : await contractServices(tools(), contracts);
      this.#plan = planRegistration(register, bound, readings);
      for (const { tool, reason } of this.#plan.left)
        this.#log.debug({ tool, reason }, "a tool is not registered as a service");
      return this.#plan;
    } catch (error) {
      this.#isStale = true;
      throw error;
    }
  }

  async #publishing(): Promise<Publishing> {
    const { consul, events } = this.#options;
    this.#consul ??= await openConsul({ ...consul, maxSockets });
    return { consul: this.#consul, source: this.#self.id, ...(events !== undefined && { events }) };
  }

  async #tellSelf(
    publishing: Publishing,
    registration: ConsulRegistration,
    registrant: Registrant | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { id, check } = registration;
    if (this.#isOthers(id, registrant)) return;
    const isReady = this.#options.isReady();
    const text = JSON.stringify(registration);
    if (registrant === undefined || this.#told.get(id) !== text) {
      this.#told.set(id, "");
      // We know already what the first check will find.
      const known = isReady && check !== undefined ? { check: { ...check, status: "passing" as const } } : {};
      await publishing.consul.registerService({ ...registration, ...known }, signal);
      this.#told.set(id, text);
    }
    if (isReady && check !== undefined && "ttl" in check)
      await publishing.consul.passTtl(ttlCheckId(id), signal);
  }

  async #tellTool(
    publishing: Publishing,
    entry: RegisteredTool,
    registrant: Registrant | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { registration, contract } = entry;
    const { id } = registration;
    if (this.#isOthers(id, registrant)) return;
    const text = JSON.stringify([registration, contract]);
    if (registrant !== undefined && this.#told.get(id) === text) return;
    this.#told.set(id, "");
    this.#tools.set(id, entry);
    const isOurs = await registerTool(publishing, entry, signal);
    if (!isOurs)
      this.#log.warn(
        { contract: contract.key },
        "a contract that somebody else wrote is in Consul, and stays",
      );
    this.#told.set(id, text);
  }

  /** Who registers a service itself is left alone. */
  #isOthers(id: string, registrant: Registrant | undefined): boolean {
    if (registrant !== "other") {
      this.#others.delete(id);
      return false;
    }
    if (!this.#others.has(id))
      this.#log.warn({ service_id: id }, "somebody else has registered this service in Consul, and it stays");
    this.#others.add(id);
    return true;
  }

  /** (5) */
  async #withdraw(publishing: Publishing, ids: readonly string[], signal?: AbortSignal): Promise<void> {
    if (ids.length === 0) return;
    const { consul } = publishing;
    await within(this.#announcing, announceEndMs);
    const self = { ...this.#self, name: this.#options.register.name };
    const kept = await keptByOthers(publishing, self, signal);
    const present = await registeredAt(consul, ids, signal);
    const contracts: ContractPlace[] = [];
    const withdrawOne = async (id: string): Promise<void> => {
      if (!kept.has(id)) {
        await allOf([
          present.get(id) === "runtime" ? consul.deregisterService(id, signal) : Promise.resolve(),
          this.#announced.has(id) ? announceGone(publishing, id) : Promise.resolve(), // (3)
        ]);
      }
      const entry = this.#tools.get(id);
      if (entry !== undefined && !kept.has(id))
        contracts.push({ toolName: entry.toolName, key: entry.contract.key });
      this.#tools.delete(id);
      this.#told.delete(id);
      this.#announced.delete(id);
    };
    try {
      await forEachOf(ids, withdrawOne);
    } finally {
      await removeContracts(consul, contracts, signal);
    }
  }

  /** (4) */
  async #close(limitMs: number): Promise<void> {
    this.#state = "closed";
    this.#stopListening?.();
    this.#abort.abort();
    const outcome = await within(
      this.#takeOut().then(() => "done" as const, messageOf),
      limitMs,
    );
    if (outcome !== "done") {
      const reason = outcome === "timeout" ? `it took longer than ${limitMs / 1000} s` : outcome;
      this.#log.warn({ reason }, "the registration could not be taken out; Consul's checks will find out");
    }
    this.#consul?.close();
  }

  async #takeOut(): Promise<void> {
    await this.#running;
    if (this.#told.size === 0) return;
    const publishing = await this.#publishing();
    await removeService(publishing.consul, this.#self.id);
    await this.#withdraw(publishing, [...this.#tools.keys()]);
    this.#log.info({ service_id: this.#self.id }, "no longer registered in Consul");
  }
}
