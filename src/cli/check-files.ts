/** The certificates and keys that a configuration names, as `onex check` looks at them. Opens no connection. */
import type { LoadedConfig } from "../config/load.ts";
import { messageOf } from "../core/errors.ts";
import { readCertificates, readKeyOf } from "../core/pem.ts";
import type { McpConfig } from "../handlers/mcp-config.ts";

interface TlsFiles {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

/** Problems of the files that the host itself reads. */
export function hostFileProblems({ eventBus, consul }: LoadedConfig["runtime"]): string[] {
  const ssl = eventBus.type === "kafka" && typeof eventBus.ssl === "object" ? eventBus.ssl : {};
  return [
    ...problemsOf(ssl, (part) => `event_bus.ssl.${part}`),
    ...problemsOf(consul?.scheme === "https" ? consul : {}, (part) => `consul.${part}`),
  ];
}

/** Problems of the files that the mcp handler reads. */
export function mcpFileProblems({ serviceTls = {}, consul }: McpConfig): string[] {
  return [
    ...problemsOf(consul?.scheme === "https" ? consul : {}, (part) => `consul_${part}`),
    ...problemsOf(serviceTls, (part) => `service_${part}`),
  ];
}

function problemsOf({ ca, cert, key }: TlsFiles, nameOf: (part: keyof TlsFiles) => string): string[] {
  const problems: string[] = [];
  const read = (work: () => string): string | undefined => {
    try {
      return work();
    } catch (error) {
      problems.push(messageOf(error));
      return undefined;
    }
  };
  if (ca !== undefined) read(() => readCertificates({ key: nameOf("ca"), value: ca }));
  if (cert === undefined) return problems;
  const certificate = read(() => readCertificates({ key: nameOf("cert"), value: cert }));
  if (certificate !== undefined && key !== undefined)
    read(() => readKeyOf(certificate, { key: nameOf("key"), value: key }));
  return problems;
}
