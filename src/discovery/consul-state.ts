/**
 * What Consul has said, as records. Owns the present rows of every service, and which records a new answer changes. No
 * input or output.
 *
 * 1. An answer that was asked for earlier than one that is known changes nothing.
 * 2. An instance that has moved from one service to another is told by its index: of two statements about one key the
 *    higher counts, while Consul counts on from where it was.
 */
import type { InstanceRecord, SourceChange } from "../tools/source.ts";
import type { ConsulCheck, ConsulInstance, ConsulKey, ConsulNodeService } from "./consul-answers.ts";
import { ConsulContracts } from "./consul-contracts.ts";
import { contractKeyOf, instanceRecord, isTagged, nodeContractPrefix, recordKey } from "./consul-instance.ts";

export type ConsulChange = SourceChange<InstanceRecord>;

/** Something Consul has said that cannot be used, or not as it stands. */
export interface ConsulProblem {
  /** Of a record, or of a contract. */
  readonly key: string;
  readonly reason: string;
}

interface Service {
  /** Of the read: later ones are higher. */
  readonly read: number;
  /** The tagged ones. */
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
  #reads = 0;
  #era = 0;

  /** Taken when a read begins; its answer comes with it. (1) */
  beginRead(): number {
    this.#reads += 1;
    return this.#reads;
  }

  /** Consul's indexes do not go on from where they were. */
  startEra(): void {
    this.#era += 1;
  }

  putService(name: string, rows: readonly ConsulInstance[], read: number): ConsulChange {
    const before = this.#services.get(name);
    if (before !== undefined && before.read > read) return none; // (1)
    const failing = rows.flatMap(({ Checks }) => Checks).filter(({ Status }) => Status !== "passing");
    if (failing.length === 0) this.#failing.delete(name);
    else this.#failing.set(name, new Map(failing.map((check) => [checkKey(check), check.ModifyIndex])));
    const tagged = rows.filter(isTagged);
    if (tagged.length === 0) this.#services.delete(name);
    else this.#services.set(name, { read, rows: tagged, outside: outsideKeys(tagged) });
    this.#mark(name, before?.rows ?? [], tagged);
    const put = this.#refold(name, tagged);
    const present = new Set(tagged.map(recordKey));
    const remove = (before?.rows ?? [])
      .map(recordKey)
      .filter((key) => !present.has(key) && this.#records.get(key)?.service === name);
    for (const key of remove) this.#records.delete(key);
    return { put, remove };
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

  /** Takes one contract that was looked up by its key. */
  putContract(key: string, found: ConsulKey | undefined): ConsulChange {
    return this.contracts.put(key, found?.value) ? this.#refoldUsers(new Set([key])) : none;
  }

  records(): readonly InstanceRecord[] {
    return [...this.#records.values()].map(({ record }) => record);
  }

  serviceNames(): readonly string[] {
    return [...this.#services.keys()];
  }

  /** Services with an instance at a node. */
  servicesAt(node: string): ReadonlySet<string> {
    return new Set([...(this.#marks.get(node)?.values() ?? [])].map(({ service }) => service));
  }

  /** Contracts that are looked up by their key: those that instances name outside the prefix, and those in doubt. */
  singleKeys(): ReadonlySet<string> {
    const keys = new Set([...this.#doubtful].filter((key) => this.contracts.has(key)));
    for (const { outside } of this.#services.values()) for (const key of outside) keys.add(key);
    return keys;
  }

  /**
   * Services of which something differs from what is known, by what all nodes have registered.
   *
   * @param found the address index and the tagged services of every node
   */
  differences(
    found: ReadonlyMap<string, { readonly index: number; readonly services: readonly ConsulNodeService[] }>,
  ): ReadonlySet<string> {
    const changed = new Set<string>();
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
