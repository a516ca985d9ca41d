/** Names of hosts as they appear in a bind address, in a URL and in a `Host` header. Pure. */
import { isIP, isIPv6 } from "node:net";
import { urlHost } from "../core/url-host.ts";

/** True for an address that only this machine can reach: localhost, 127.0.0.0/8, ::1. */
export function isLoopback(host: string): boolean {
  const name = canonicalHost(host);
  return name === "localhost" || name === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(name);
}

/** True for an address that stands for every interface. */
export function isWildcard(host: string): boolean {
  const name = canonicalHost(host);
  return name === "0.0.0.0" || name === "[::]";
}

/** Where a server bound to `host` answers on this machine: a wildcard becomes the loopback of its family. */
export function reachableHost(host: string): string {
  switch (canonicalHost(host)) {
    case "0.0.0.0":
      return "127.0.0.1";
    case "[::]":
      return "::1";
    default:
      return host;
  }
}

/** `http://host:port`, an IPv6 address in brackets. */
export function httpUrl(host: string, port: number): string {
  return `http://${urlHost(host)}:${port}`;
}

/** True for an IPv4 address, or an IPv6 address with or without brackets. */
export function isAddress(host: string): boolean {
  return isIP(unbracketed(host)) !== 0;
}

/** What `isHostName` accepts, for messages. */
export const hostNameForm = "a host name or an address, without scheme and port";

/** True for an address, or a name as DNS and container networks know it. */
export function isHostName(host: string): boolean {
  return isAddress(host) || /^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?$/.test(host);
}

/** Lower case, no trailing dot, IPv6 compressed and in brackets: equal hosts become equal strings. */
export function canonicalHost(host: string): string {
  const name = unbracketed(host.toLowerCase());
  if (!isIPv6(name)) return name.endsWith(".") ? name.slice(0, -1) : name;
  // A zone (`%eth0`) is no part of a URL; such an address stays as it is written.
  return URL.canParse(`http://[${name}]`) ? new URL(`http://[${name}]`).hostname : `[${name}]`;
}

const unbracketed = (host: string): string =>
  host.startsWith("[") && host.endsWith("]") ? host.slice(1, -1) : host;
