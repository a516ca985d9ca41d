/**
 * What Consul has said, as records. Owns the present rows of every service, and which records a new answer changes. No
 * input or output.
 *
 * 1. An answer that was asked for earlier than one that is known changes nothing.
 * 2. An instance that has moved from one service to another is told by its index: of two statements about one key the
 *    higher counts, while Consul counts on from where it was.
 * 3. An instance without the tag counts only where it was asked for, and for as long as it is there.
 * 4. A contract outside the prefix is kept for as long as an instance names it.
 */
import type { Instance } from "../tools/instance.ts";
import type { InstanceRecord, SourceChange } from "../tools/source.ts";
import type { ConsulCheck, ConsulInstance, ConsulKey, ConsulNodeService } from "./consul-answers.ts";
import { ConsulContracts } from "./consul-contracts.ts";
import { contractKeyOf, instanceRecord, isTagged, nodeContractPrefix, recordKey } from "./consul-instance.ts";

export type ConsulChange = SourceChange<InstanceRecord>;

/** Something Consul has said that cannot be used, or not as it stands. */
export interface ConsulProblem {
  /** Of a record or a contract, or a service's name. */
  readonly key: string;
  readonly reason: string;
  /** Other names somebody may ask for it by. Default none. */
  readonly names?: readonly string[];
}

interface Service {
  /** Of the read: later ones are higher. */
  readonly read: number;
  /** The tagged ones, and those that were asked for. */
  readonly rows: readonly ConsulInstance[];
  /** Contracts that they name and that do not lie below the prefix. */
  readonly outside: readonly string[];
}

/** What of an instance tells whether it is still what it was. */
interface Mark {
  readonly service: string;
  readonly index: number;
  /** Of its node: the address is the node's. */
  readonly nodeIndex: number;
}

interface Stated {
  readonly record: InstanceRecord;
  readonly text: string;
  readonly service: string;
  readonly era: number;
}

const none: ConsulChange = { put: [], remove: [] };

export class ConsulState {
  readonly contracts = new ConsulContracts();
  readonly #services = new Map<string, Service>();
  readonly #records = new Map<string, Stated>();
  /** By node and id. Looking over thousands of instances makes no garbage. */
  readonly #marks = new Map<string, Map<string, Mark>>();
  /** By service: the index of each failing check that its rows were read with. */
  readonly #failing = new Map<string, ReadonlyMap<string, number>>();
  /** Contracts below the prefix that an answer left out which does not show all there is. */
  #doubtful: ReadonlySet<string> = new Set();
  /** Contracts outside the prefix, each with how many services name it. (4) */
  readonly #uses = new Map<string, number>();
  /** Ids that are asked for, each with the service that had it last: it may leave and come back. (3) */
  readonly #asked = new Map<string, string | undefined>();
  #reads = 0;
  /** Reads under way, the earliest first. */
  readonly #begun = new Set<number>();
  /** Services without an instance: the read that said so, while an earlier one is under way. (1) */
  readonly #emptied = new Map<string, number>();
  #era = 0;

  /** Taken when a read begins; its answer comes with it. (1) */
  beginRead(): number {
    this.#reads += 1;
    this.#begun.add(this.#reads);
    return this.#reads;
  }

  /** Its answer was taken, or there was none. */
  endRead(read: number): void {
    this.#begun.delete(read);
    const [earliest = Infinity] = this.#begun;
    for (const [name, emptied] of this.#emptied) if (emptied < earliest) this.#emptied.delete(name);
  }

  /** What is registered under this id counts from its next read on, tagged or not: it completes what an event says. (3) */
  ask(serviceId: string): void {
    if (!this.#asked.has(serviceId)) this.#asked.set(serviceId, undefined);
  }

  /** Nobody asks for it any more. */
  dismiss(serviceId: string): void {
    this.#asked.delete(serviceId);
  }

  /** Consul's indexes do not go on from where they were. */
  startEra(): void {
    this.#era += 1;
  }

  /** Whether these rows lack an instance that is known, or show one as it was before: Consul may be behind. */
  takesBack(name: string, rows: readonly ConsulInstance[]): boolean {
    const shown = new Map(rows.map((row) => [recordKey(row), row]));
    return (this.#services.get(name)?.rows ?? []).some((known) => {
      const row = shown.get(recordKey(known));
      return row === undefined || lastIndex(row) < lastIndex(known);
    });
  }

  /** Whether a contract below the prefix is known that is not among these. */
  takesContractBack(keys: readonly ConsulKey[]): boolean {
    const present = new Set(keys.map(({ key }) => key));
    return [...this.contracts.keys()].some((key) => key.startsWith(nodeContractPrefix) && !present.has(key));
  }

  /** @param contracts those outside the prefix that were looked up for these rows. Default none */
  putService(
    name: string,
    rows: readonly ConsulInstance[],
    read: number,
    contracts: ReadonlyMap<string, ConsulKey | undefined> = new Map(),
  ): ConsulChange {
    const before = this.#services.get(name);
    if ((before?.read ?? this.#emptied.get(name) ?? 0) > read) return none; // (1)
    const failing = rows.flatMap(({ Checks }) => Checks).filter(({ Status }) => Status !== "passing");
    if (failing.length === 0) this.#failing.delete(name);
    else this.#failing.set(name, new Map(failing.map((check) => [checkKey(check), check.ModifyIndex])));
    const counted = rows.filter((row) => isTagged(row) || this.#isAsked(row));
    const outside = outsideKeys(counted);
    this.#emptied.delete(name);
    if (counted.length > 0) this.#services.set(name, { read, rows: counted, outside });
    else {
      this.#services.delete(name);
      this.#emptied.set(name, read);
    }
    for (const { Service } of counted) if (this.#asked.has(Service.ID)) this.#asked.set(Service.ID, name);
    this.#mark(name, before?.rows ?? [], counted);
    const changed = outside.filter(
      (key) => contracts.has(key) && this.contracts.put(key, contracts.get(key)?.value),
    );
    this.#use(before?.outside ?? [], outside);
    const put = [...this.#refoldUsers(new Set(changed)).put, ...this.#refold(name, counted)];
    const present = new Set(counted.map(recordKey));
    const left = (before?.rows ?? []).filter((row) => !present.has(recordKey(row)));
    const remove = left.map(recordKey).filter((key) => this.#records.get(key)?.service === name);
    for (const key of remove) this.#records.delete(key);
    return { put, remove };
  }

  /** (3) */
  #isAsked({ Service }: ConsulInstance): boolean {
    return Service.Kind === "" && this.#asked.has(Service.ID);
  }

  /** (4) */
  #use(before: readonly string[], now: readonly string[]): void {
    for (const key of now) this.#uses.set(key, (this.#uses.get(key) ?? 0) + 1);
    for (const key of before) {
      const uses = (this.#uses.get(key) ?? 0) - 1;
      if (uses > 0) this.#uses.set(key, uses);
      else {
        this.#uses.delete(key);
        this.contracts.put(key, undefined);
      }
    }
  }

  /**
   * Takes the contracts below the prefix.
   *
   * @param isFiltered there may be more of them: one that is known and not shown stays, until it is looked up by its key
   */
  putContracts(keys: readonly ConsulKey[], isFiltered = false): ConsulChange {
    const present = new Map(keys.map(({ key, value }) => [key, value]));
    const absent = [...this.contracts.keys()].filter(
      (key) => key.startsWith(nodeContractPrefix) && !present.has(key),
    );
    const changed = new Set<string>();
    this.#doubtful = new Set(isFiltered ? absent : []);
    if (!isFiltered) for (const key of absent) if (this.contracts.put(key, undefined)) changed.add(key);
    for (const [key, bytes] of present) if (this.contracts.put(key, bytes)) changed.add(key);
    return this.#refoldUsers(changed);
  }

  /** Takes one contract that was looked up by its key, if it is still to be. */
  putContract(key: string, found: ConsulKey | undefined): ConsulChange {
    if (!this.#uses.has(key) && !this.#doubtful.has(key)) return none;
    return this.contracts.put(key, found?.value) ? this.#refoldUsers(new Set([key])) : none;
  }

  records(): readonly InstanceRecord[] {
    return [...this.#records.values()].map(({ record }) => record);
  }

  /** What is known under this id. */
  instance(serviceId: string): Instance | undefined {
    for (const [node, marks] of this.#marks)
      if (marks.has(serviceId)) return this.#records.get(`${node}/${serviceId}`)?.record.instance;
    return undefined;
  }

  serviceNames(): readonly string[] {
    return [...new Set([...this.#services.keys(), ...this.#askedServices()])];
  }

  /** Of the ids that are asked for and nobody has at the moment. */
  #askedServices(): readonly string[] {
    if (this.#asked.size === 0) return [];
    const away = [...this.#asked].filter(([id]) => this.instance(id) === undefined);
    return away.map(([, name]) => name).filter((name) => name !== undefined);
  }

  hasService(name: string): boolean {
    return this.#services.has(name);
  }

  /** Services with an instance at a node. */
  servicesAt(node: string): ReadonlySet<string> {
    return new Set([...(this.#marks.get(node)?.values() ?? [])].map(({ service }) => service));
  }

  /** Contracts that are looked up by their key: those that instances name outside the prefix, and those in doubt. */
  singleKeys(): ReadonlySet<string> {
    return new Set([...[...this.#doubtful].filter((key) => this.contracts.has(key)), ...this.#uses.keys()]);
  }

  /**
   * Services of which something differs from what is known, by what all nodes have registered. Those of which an instance
   * without the tag is known, or asked for, always do.
   *
   * @param found the address index and the tagged services of every node
   */
  differences(
    found: ReadonlyMap<string, { readonly index: number; readonly services: readonly ConsulNodeService[] }>,
  ): ReadonlySet<string> {
    const changed = new Set<string>(this.#askedServices());
    for (const node of this.#marks.keys()) {
      if (!found.has(node)) for (const name of this.servicesAt(node)) changed.add(name);
    }
    for (const [node, { index, services }] of found) {
      const marks = this.#marks.get(node);
      let known = 0;
      for (const { ID, Service, ModifyIndex } of services) {
        const mark = marks?.get(ID);
        if (mark !== undefined) known += 1;
        if (mark?.index !== ModifyIndex || mark.nodeIndex !== index || mark.service !== Service)
          changed.add(Service);
      }
      if (marks === undefined || known === marks.size) continue;
      const ids = new Set(services.map(({ ID }) => ID));
      for (const [id, { service }] of marks) if (!ids.has(id)) changed.add(service);
    }
    return changed;
  }

  /**
   * Services that were read with other failing checks than there are. What was read counts, not an earlier answer: a
   * check that fails and passes again between two answers leaves no trace in them.
   *
   * @param checks every check that does not pass
   * @param isOurs whether the service of a check is read at all
   */
  checkedOtherwise(
    checks: readonly ConsulCheck[],
    isOurs: (check: ConsulCheck) => boolean,
  ): ReadonlySet<string> {
    const changed = new Set<string>();
    const present = new Set<string>();
    for (const check of checks) {
      const key = checkKey(check);
      present.add(key);
      const own = isOurs(check) ? [check.ServiceName] : [];
      const names = check.ServiceName === "" ? this.servicesAt(check.Node) : own;
      for (const name of names)
        if (this.#failing.get(name)?.get(key) !== check.ModifyIndex) changed.add(name);
    }
    for (const [name, failing] of this.#failing) {
      for (const key of failing.keys()) if (!present.has(key)) changed.add(name);
    }
    return changed;
  }

  problems(): readonly ConsulProblem[] {
    const records = [...this.#records.values()].flatMap(({ record: { key, instance } }) => {
      const { claim } = instance;
      if (claim !== undefined && "refused" in claim) return [{ key, reason: claim.refused }];
      const isUnusable = instance.url === undefined && instance.down !== undefined;
      return isUnusable ? [{ key, reason: instance.down }] : [];
    });
    return [...records, ...this.contracts.problems()];
  }

  #mark(service: string, before: readonly ConsulInstance[], rows: readonly ConsulInstance[]): void {
    for (const { Node, Service } of before) {
      const marks = this.#marks.get(Node.Node);
      if (marks?.get(Service.ID)?.service === service) marks.delete(Service.ID);
      if (marks?.size === 0) this.#marks.delete(Node.Node);
    }
    for (const { Node, Service } of rows) {
      const marks = this.#marks.get(Node.Node) ?? new Map<string, Mark>();
      marks.set(Service.ID, { service, index: Service.ModifyIndex, nodeIndex: Node.ModifyIndex });
      this.#marks.set(Node.Node, marks);
    }
  }

  #refoldUsers(keys: ReadonlySet<string>): ConsulChange {
    if (keys.size === 0) return none;
    const put: InstanceRecord[] = [];
    for (const [name, { rows }] of this.#services) {
      const isUser = rows.some((row) => keys.has(contractKeyOf(row)?.key ?? ""));
      if (isUser) put.push(...this.#refold(name, rows));
    }
    return { put, remove: [] };
  }

  #refold(name: string, rows: readonly ConsulInstance[]): InstanceRecord[] {
    const put: InstanceRecord[] = [];
    for (const row of rows) {
      const wanted = contractKeyOf(row);
      const contract =
        wanted === undefined ? ({ state: "absent" } as const) : this.contracts.of(wanted.key, wanted.isNamed);
      const record = instanceRecord(row, contract);
      const before = this.#records.get(record.key);
      if (before !== undefined && this.#isOlder(record, name, before)) continue; // (2)
      const text = JSON.stringify(record);
      this.#records.set(record.key, { record, text, service: name, era: this.#era });
      if (before?.text !== text) put.push(record);
    }
    return put;
  }

  #isOlder(record: InstanceRecord, service: string, before: Stated): boolean {
    if (before.service === service || before.era !== this.#era) return false;
    return (record.instance.index ?? 0) < (before.record.instance.index ?? 0);
  }
}

/** Of the last change to anything of a row. */
const lastIndex = ({ Node, Service, Checks }: ConsulInstance): number =>
  Math.max(Node.ModifyIndex, Service.ModifyIndex, ...Checks.map(({ ModifyIndex }) => ModifyIndex));

const checkKey = ({ Node, CheckID }: ConsulCheck): string => `${Node}/${CheckID}`;

/** Contracts that these instances name and that do not lie below the prefix. */
export function outsideKeys(rows: readonly ConsulInstance[]): readonly string[] {
  const keys = new Set<string>();
  for (const row of rows) {
    const contract = contractKeyOf(row);
    if (contract !== undefined && !contract.key.startsWith(nodeContractPrefix)) keys.add(contract.key);
  }
  return [...keys];
}
