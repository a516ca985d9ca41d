/** The host as a URL has it: an IPv6 address in brackets, whether it has them already or not. Pure. */
export const urlHost = (host: string): string =>
  host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
