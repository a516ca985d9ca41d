/**
 * TLS to services: whom we trust, who we are, and what a failed handshake means. Does not own: connections (`pools.ts`).
 *
 * 1. A custom authority is trusted beside the public ones: the same runtime calls services of its own and of others.
 * 2. One context serves every connection: to read all authorities anew takes milliseconds each time.
 * 3. A connection ends with the first thing that went wrong with it.
 */
import { createSecureContext, getCACertificates, type SecureContext } from "node:tls";
import { buildConnector } from "undici";
import { readCertificates, readKeyOf } from "../core/pem.ts";

/** PEM files, from the working directory. */
export interface ServiceTls {
  /** Certificate authorities that are trusted beside Node's own. */
  readonly ca?: string;
  /** Shown to services that ask for a client certificate. With `key`, or neither. */
  readonly cert?: string;
  readonly key?: string;
}

/**
 * Undefined where there is nothing that differs from Node's own.
 *
 * @throws ProtocolConfigurationError where a file cannot be used, naming it and the remedy
 */
export function secureContext({ ca, cert, key }: ServiceTls): SecureContext | undefined {
  const authorities = ca === undefined ? undefined : readCertificates({ key: "service_ca", value: ca });
  const certificate = cert === undefined ? undefined : readCertificates({ key: "service_cert", value: cert });
  const privateKey =
    certificate === undefined || key === undefined
      ? undefined
      : readKeyOf(certificate, { key: "service_key", value: key });
  if (authorities === undefined && privateKey === undefined) return undefined;
  return createSecureContext({
    ...(authorities !== undefined && { ca: [...getCACertificates("default"), authorities] }), // (1)
    ...(privateKey !== undefined && { cert: certificate, key: privateKey }),
  });
}

/**
 * undici's own. In TLS 1.3 a service refuses a client certificate after the client's handshake is done: the reason is
 * an error of the open socket, and undici would put the end that follows in its place. (3)
 */
export function connector(options: buildConnector.BuildOptions): buildConnector.connector {
  const connect = buildConnector(options);
  return (target, callback) => {
    connect(target, (...[error, socket]) => {
      if (error !== null) {
        callback(error, null);
        return;
      }
      if (target.protocol === "https:") socket.once("error", (reason: Error) => socket.destroy(reason));
      callback(null, socket);
    });
  };
}

export interface TlsProblem {
  /** Ends a sentence that begins with the service; safe to show. */
  readonly text: string;
  /** For whoever runs this. */
  readonly remedy: string;
}

const untrusted: TlsProblem = {
  text: "its certificate is not from an authority that is trusted here",
  remedy: "set service_ca to the certificate of the authority that issued the service's",
};
const clientRefused: TlsProblem = {
  text: "it did not accept this runtime's client certificate, or the lack of one",
  remedy: "set service_cert and service_key to a pair that the service accepts",
};

const problems: ReadonlyMap<string, TlsProblem> = new Map([
  ["DEPTH_ZERO_SELF_SIGNED_CERT", untrusted],
  ["SELF_SIGNED_CERT_IN_CHAIN", untrusted],
  ["UNABLE_TO_GET_ISSUER_CERT", untrusted],
  ["UNABLE_TO_GET_ISSUER_CERT_LOCALLY", untrusted],
  ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", untrusted],
  ["CERT_UNTRUSTED", untrusted],
  [
    "CERT_HAS_EXPIRED",
    { text: "its certificate has expired", remedy: "renew the service's certificate; check both clocks" },
  ],
  [
    "CERT_NOT_YET_VALID",
    {
      text: "its certificate is not valid yet",
      remedy: "check the clocks of this machine and the service's",
    },
  ],
  ["CERT_REVOKED", { text: "its certificate was revoked", remedy: "renew the service's certificate" }],
  [
    "ERR_TLS_CERT_ALTNAME_INVALID",
    {
      text: "its certificate is for another name",
      remedy: "call the service by a name of its certificate, or issue one for its address",
    },
  ],
  ["ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", clientRefused],
  ["ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE", clientRefused],
  ["ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE", clientRefused],
  ["ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE", clientRefused],
  ["ERR_SSL_SSL/TLS_ALERT_BAD_CERTIFICATE", clientRefused],
  ["ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED", clientRefused],
  ["ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN", clientRefused],
  ["ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", clientRefused],
  ["ERR_SSL_TLSV1_ALERT_ACCESS_DENIED", clientRefused],
  [
    "ERR_SSL_WRONG_VERSION_NUMBER",
    { text: "it does not speak TLS", remedy: "check whether the endpoint is http rather than https" },
  ],
]);

const other: TlsProblem = {
  text: "no TLS connection could be made with it",
  remedy: "check the service's TLS versions and ciphers, and that its port is one of https",
};

/** What an error of this code says of TLS; undefined where it is about something else. */
export function tlsProblem(code: string | undefined): TlsProblem | undefined {
  if (code === undefined) return undefined;
  const known = problems.get(code);
  if (known !== undefined) return known;
  return /^(?:ERR_SSL_|ERR_TLS_|ERR_OSSL_|CERT_|UNABLE_TO_|EPROTO$)/.test(code) ? other : undefined;
}
