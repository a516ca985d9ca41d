/**
 * Node contracts of the key-value store. Owns their present text, and the last good version of each. No input or output
 * but log lines.
 *
 * 1. A broken edit leaves the last good version in force; a contract that is gone is gone.
 * 2. A contract is read when an instance first needs it, and again only when its bytes have changed.
 */
import { readRemoteContract, type RemoteDefinition, type RemoteReading } from "../contract/remote.ts";
import type { Logger } from "../core/log.ts";
import type { InstanceContract } from "./consul-instance.ts";

interface Entry {
  readonly bytes: Uint8Array;
  readonly reading?: RemoteReading;
  readonly lastGood?: RemoteDefinition;
}

export class ConsulContracts {
  readonly #entries = new Map<string, Entry>();
  /** Keys of which a text was read, or is gone, since the last word on them. */
  readonly #fresh = new Set<string>();
  /** Keys that were said to be broken. */
  readonly #broken = new Set<string>();

  /** Takes the present text of a key; undefined: it is not there. True where that is news. */
  put(key: string, bytes: Uint8Array | undefined): boolean {
    const before = this.#entries.get(key);
    if (bytes === undefined) {
      this.#fresh.add(key);
      return this.#entries.delete(key);
    }
    if (before !== undefined && Buffer.compare(before.bytes, bytes) === 0) return false;
    const lastGood = goodOf(before);
    this.#entries.set(key, { bytes, ...(lastGood !== undefined && { lastGood }) });
    return true;
  }

  has(key: string): boolean {
    return this.#entries.has(key);
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
    return [...this.#entries].flatMap(([key, entry]) => {
      const reason = reasonOf(entry);
      return reason === undefined ? [] : [{ key, reason }];
    });
  }

  /** Says which contracts that instances need have broken, once for each text, and which are mended. */
  tell(log: Logger): void {
    for (const key of this.#fresh) {
      const entry = this.#entries.get(key);
      const reason = entry && reasonOf(entry);
      if (reason !== undefined) {
        this.#broken.add(key);
        log.warn({ contract: key, reason }, "A contract in Consul cannot be used");
      } else if (this.#broken.delete(key) && entry !== undefined)
        log.info({ contract: key }, "A contract in Consul can be used again");
    }
    this.#fresh.clear();
  }

  /** (2) */
  #read(key: string, entry: Entry): RemoteReading {
    if (entry.reading !== undefined) return entry.reading;
    const reading = readRemoteContract(entry.bytes);
    this.#entries.set(key, { ...entry, reading });
    this.#fresh.add(key);
    return reading;
  }
}

/** Why a contract that was read cannot be used. */
function reasonOf({ reading, lastGood }: Entry): string | undefined {
  if (reading === undefined || reading.ok) return undefined;
  return lastGood === undefined ? reading.reason : `${reading.reason}; the last good version stays`;
}

function goodOf(entry: Entry | undefined): RemoteDefinition | undefined {
  return entry?.reading?.ok === true ? entry.reading.definition : entry?.lastGood;
}
