/**
 * Node contracts of the key-value store. Owns their present text, and the last good version of each. No input or output.
 *
 * 1. A broken edit leaves the last good version in force; a contract that is gone is gone.
 * 2. A contract is read when an instance first needs it, and again only when its bytes have changed.
 */
import { readRemoteContract, type RemoteDefinition, type RemoteReading } from "../contract/remote.ts";
import type { InstanceContract } from "./consul-instance.ts";

interface Entry {
  readonly bytes: Uint8Array;
  readonly reading?: RemoteReading;
  readonly lastGood?: RemoteDefinition;
}

export class ConsulContracts {
  readonly #entries = new Map<string, Entry>();

  /** Takes the present text of a key; undefined: it is not there. True where that is news. */
  put(key: string, bytes: Uint8Array | undefined): boolean {
    const before = this.#entries.get(key);
    if (bytes === undefined) return this.#entries.delete(key);
    if (before !== undefined && Buffer.compare(before.bytes, bytes) === 0) return false;
    const lastGood = goodOf(before);
    this.#entries.set(key, { bytes, ...(lastGood !== undefined && { lastGood }) });
    return true;
  }

  keys(): Iterable<string> {
    return this.#entries.keys();
  }

  /** @param isNamed the instance asks for this key: then it must be there */
  of(key: string, isNamed: boolean): InstanceContract {
    const entry = this.#entries.get(key);
    if (entry === undefined) {
      if (!isNamed) return { state: "absent" };
      return { state: "broken", reason: `its contract ${key} (meta mcp-contract) is not in Consul` };
    }
    const reading = this.#read(key, entry);
    if (reading.ok) return { state: "good", definition: reading.definition };
    if (entry.lastGood !== undefined) return { state: "good", definition: entry.lastGood }; // (1)
    return { state: "broken", reason: `its contract ${key} cannot be used: ${reading.reason}` };
  }

  /** What is wrong with contracts that instances need. */
  problems(): { readonly key: string; readonly reason: string }[] {
    return [...this.#entries].flatMap(([key, { reading, lastGood }]) => {
      if (reading === undefined || reading.ok) return [];
      const stays = lastGood === undefined ? "" : "; the last good version stays";
      return [{ key, reason: `${reading.reason}${stays}` }];
    });
  }

  /** (2) */
  #read(key: string, entry: Entry): RemoteReading {
    if (entry.reading !== undefined) return entry.reading;
    const reading = readRemoteContract(entry.bytes);
    this.#entries.set(key, { ...entry, reading });
    return reading;
  }
}

function goodOf(entry: Entry | undefined): RemoteDefinition | undefined {
  return entry?.reading?.ok === true ? entry.reading.definition : entry?.lastGood;
}
