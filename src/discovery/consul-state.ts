/**
 * What Consul has said, as records. Owns the present rows of every service, and which records a new answer changes. No
 * input or output.
 *
 * 1. An answer that was asked for earlier than one that is known changes nothing.
 * 2. An instance that has moved from one service to another is told by its index: of two statements about one key the
 *    higher counts, while Consul counts on from where it was.
 */
import type { InstanceRecord, SourceChange } from "../tools/source.ts";
import type { ConsulInstance, ConsulKey, ConsulNodeService } from "./consul-answers.ts";
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
    const tagged = rows.filter(isTagged);
    if (tagged.length === 0) this.#services.delete(name);
    else this.#services.set(name, { read, rows: tagged });
    const put = this.#refold(name, tagged);
    const present = new Set(tagged.map(recordKey));
    const remove = (before?.rows ?? [])
      .map(recordKey)
      .filter((key) => !present.has(key) && this.#records.get(key)?.service === name);
    for (const key of remove) this.#records.delete(key);
    return { put, remove };
  }

  /** Takes all contracts below the prefix. */
  putContracts(keys: readonly ConsulKey[]): ConsulChange {
    const present = new Map(keys.map(({ key, value }) => [key, value]));
    const absent = [...this.contracts.keys()].filter(
      (key) => key.startsWith(nodeContractPrefix) && !present.has(key),
    );
    const changed = new Set<string>();
    for (const key of absent) if (this.contracts.put(key, undefined)) changed.add(key);
    for (const [key, bytes] of present) if (this.contracts.put(key, bytes)) changed.add(key);
    return this.#refoldUsers(changed);
  }

  /** Takes one contract that lies elsewhere. */
  putContract(key: string, found: ConsulKey | undefined): ConsulChange {
    return this.contracts.put(key, found?.value) ? this.#refoldUsers(new Set([key])) : none;
  }

  records(): readonly InstanceRecord[] {
    return [...this.#records.values()].map(({ record }) => record);
  }

  record(key: string): InstanceRecord | undefined {
    return this.#records.get(key)?.record;
  }

  serviceNames(): readonly string[] {
    return [...this.#services.keys()];
  }

  /** Services with an instance at a node. */
  servicesAt(node: string): readonly string[] {
    return [...this.#services].flatMap(([name, { rows }]) =>
      rows.some(({ Node }) => Node.Node === node) ? [name] : [],
    );
  }

  /** Contracts that instances name and that do not lie below the prefix. */
  outsideKeys(rows: Iterable<ConsulInstance> = this.#rows()): readonly string[] {
    const keys = new Set<string>();
    for (const row of rows) {
      const contract = contractKeyOf(row);
      if (contract !== undefined && !contract.key.startsWith(nodeContractPrefix)) keys.add(contract.key);
    }
    return [...keys];
  }

  /**
   * Services of which something differs from what is known, by what all nodes have registered.
   *
   * @param found every node's address index and its tagged services
   */
  differences(
    found: ReadonlyMap<string, { readonly index: number; readonly services: readonly ConsulNodeService[] }>,
  ): ReadonlySet<string> {
    const nodes = new Map(
      [...found].map(([name, { index, services }]) => [
        name,
        { index, services, ids: new Set(services.map(({ ID }) => ID)) },
      ]),
    );
    const changed = new Set<string>();
    const known = new Map<string, ConsulInstance>();
    for (const row of this.#rows()) {
      known.set(recordKey(row), row);
      const node = nodes.get(row.Node.Node);
      const isThere = node?.ids.has(row.Service.ID) === true;
      if (!isThere || node.index !== row.Node.ModifyIndex) changed.add(row.Service.Service);
    }
    for (const [name, { services }] of nodes) {
      for (const { ID, Service, ModifyIndex } of services) {
        if (known.get(`${name}/${ID}`)?.Service.ModifyIndex !== ModifyIndex) changed.add(Service);
      }
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

  *#rows(): Generator<ConsulInstance> {
    for (const { rows } of this.#services.values()) yield* rows;
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
