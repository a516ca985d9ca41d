/**
 * Which addresses may be called. Owns the check of IP addresses and the DNS lookup that applies it to what a name
 * resolves to at the moment of connecting, so that a name cannot be pointed elsewhere after the check.
 */
import { lookup, type LookupAddress } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { inspect } from "node:util";
import { ProtocolConfigurationError } from "../core/errors.ts";

/** A name or an address that may not be called. */
export class AddressRefusedError extends Error {
  override readonly name = "AddressRefusedError";
}

export interface Networks {
  /** True for an IP address that may be called. */
  allows(address: string): boolean;
  /** For `net.connect`: fails with an `AddressRefusedError` where a name resolves to nothing that may be called. */
  readonly lookup: LookupFunction;
}

/** Link-local networks, and where clouds serve the credentials of the machine. Always refused. */
const refused = new BlockList();
refused.addSubnet("169.254.0.0", 16);
refused.addSubnet("fe80::", 10, "ipv6");
refused.addSubnet("64:ff9b::a9fe:0", 112, "ipv6"); // 169.254.0.0/16 behind NAT64
refused.addSubnet("2002:a9fe::", 32, "ipv6"); // the same behind 6to4
refused.addSubnet("::a9fe:0", 112, "ipv6"); // the same in the old IPv4-compatible form
refused.addAddress("fd00:ec2::254", "ipv6"); // Amazon
refused.addAddress("fd20:ce::254", "ipv6"); // Google
refused.addAddress("100.100.100.200"); // Alibaba
refused.addAddress("192.0.0.192"); // Oracle
refused.addAddress("168.63.129.16"); // Azure

/**
 * @param allowed CIDR networks or single addresses; absent or empty allows every address that is not always refused
 * @throws ProtocolConfigurationError naming an entry that is neither
 */
export function networks(allowed: readonly string[] = []): Networks {
  const list = allowed.length === 0 ? undefined : blockList(allowed);
  const allows = (address: string): boolean => {
    // A zone ("fe80::1%eth0") says nothing about the network.
    const plain = address.split("%", 1)[0] ?? "";
    const family = isIP(plain) === 6 ? "ipv6" : "ipv4";
    return !refused.check(plain, family) && (list === undefined || list.check(plain, family));
  };
  return { allows, lookup: guardedLookup(allows) };
}

function blockList(entries: readonly string[]): BlockList {
  const list = new BlockList();
  for (const entry of entries) {
    const [address = "", prefix, ...more] = entry.split("/");
    const family = isIP(address) === 6 ? "ipv6" : "ipv4";
    const longest = family === "ipv6" ? 128 : 32;
    const bits = prefix === undefined ? longest : /^\d{1,3}$/.test(prefix) ? Number(prefix) : -1;
    if (isIP(address) === 0 || more.length > 0 || bits < 0 || bits > longest)
      throw new ProtocolConfigurationError(
        `allowed_networks: expected a network such as "10.0.0.0/8" or an address, got ${inspect(entry)}`,
      );
    list.addSubnet(address, bits, family);
  }
  return list;
}

const guardedLookup =
  (allows: (address: string) => boolean): LookupFunction =>
  (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) {
        callback(error, []);
        return;
      }
      const permitted: LookupAddress[] = addresses.filter(({ address }) => allows(address));
      const [first] = permitted;
      if (first === undefined)
        callback(new AddressRefusedError(`${hostname} resolves to no address that may be called`), []);
      else if (options.all === true) callback(null, permitted);
      else callback(null, first.address, first.family);
    });
  };
